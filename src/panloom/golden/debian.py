"""Debian in a tree: debootstrap and apt in mount and PID namespaces of their own, from this machine's mirror.

    WORK/recipe's packages, files, run.sh ──unshare──▶ build.sh ──▶ WORK/root   the system
                                                                    WORK/efi    what firmware of UEFI reads
                                                                    WORK/versions

Whatever is mounted goes with the namespace, and with the process that waits for it; nothing else of this machine is
touched.
"""

import hashlib
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import msgspec

from panloom.errors import UnavailableError
from panloom.golden.mirrors import Archive, archives
from panloom.golden.recipe import Recipe

PACKAGES = (
    *("systemd-sysv", "udev", "kmod", "dbus", "iproute2", "initramfs-tools", "busybox", "zstd", "e2fsprogs"),
    *("linux-image-cloud-amd64", "open-iscsi", "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common", "python3-minimal"),
)
"""What boots from iSCSI, whatever the recipe wants beside it."""
_COMMAND_LINE = "rw quiet console=tty0 console=ttyS0,115200 panic=10 net.ifnames=0"
_TOLD_LINES = 3


class Built(msgspec.Struct, frozen=True):
    """A tree that is ready to become a disk, and where it comes from."""

    root: Path
    efi: Path
    mirror: str
    packages: int
    packages_sha256: str  # of `dpkg-query -W`


def build_tree(recipe: Recipe, work: Path, root_uuid: UUID, *, archive: Path, log: Path) -> Built:
    """Make the tree of a recipe below the empty directory ``work``; needs root.

    ``archive`` keeps downloaded packages; ``log`` gets all that the tools say.  UnavailableError: a tool is missing or
    has failed, and the last that it said.
    """
    for tool, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if shutil.which(tool, path=_path()) is None:
            raise UnavailableError(f"{tool} is not in PATH; apt install {package}")
    if os.geteuid() != 0:
        raise UnavailableError("only root can make the namespaces and files of a system; use sudo")
    sources = archives(recipe.suite, recipe.mirror)
    _write_inputs(recipe, work, root_uuid, sources, archive)
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("http_proxy", "https_proxy", "no_proxy")},
        "PATH": _path(),
        "LC_ALL": "C",
        "SUITE": recipe.suite,
        "MIRROR": sources[0].uri,
        **({"DEBOOTSTRAP_DIR": str(directory)} if (directory := _debootstrap_directory()) else {}),
        "ROOT_UUID": str(root_uuid),
    }
    ends_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
    held = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
    with log.open("wb") as output:
        done = subprocess.run(
            (*ends_with_us, *held, "bash", str(files("panloom.golden").joinpath("build.sh"))),
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        told = log.read_text(errors="replace").splitlines()[-_TOLD_LINES:]
        raise UnavailableError(f"the system could not be made: {' / '.join(told)}; see {log}")
    versions = (work / "versions").read_bytes()
    digest = hashlib.sha256(versions).hexdigest()
    return Built(work / "root", work / "efi", sources[0].uri, versions.count(b"\n"), digest)


def _write_inputs(recipe: Recipe, work: Path, root_uuid: UUID, sources: tuple[Archive, ...], archive: Path) -> None:
    archive.mkdir(parents=True, exist_ok=True)
    (work / "archives").symlink_to(archive.absolute())
    (work / "packages").write_text("".join(f"{package}\n" for package in (*PACKAGES, *recipe.packages)))
    (work / "sources.list").write_text("".join(f"{source.line()}\n" for source in sources))
    (work / "run.sh").write_text("".join(f"{line}\n" for line in recipe.run))
    (work / "grub.cfg").write_text(grub_configuration(root_uuid))
    shutil.copytree(str(files("panloom.golden").joinpath("system")), work / "system")
    shared_nic = files("panloom.node").joinpath("guest/shared-nic.sh").read_bytes()
    (work / "system/usr/lib/panloom/shared-nic").write_bytes(shared_nic)
    agent = files("panloom.node").joinpath("agent.py").read_bytes()
    (work / "system/usr/lib/panloom/agent").write_bytes(agent)
    (work / "system/etc/fstab").write_text(f"UUID={root_uuid} / ext4 defaults,x-systemd.growfs,noatime 0 0\n")
    (work / "files").mkdir()
    for path, text in recipe.files.items():
        place = work / "files" / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755 if text.startswith("#!") else 0o644)


def grub_configuration(root_uuid: UUID) -> str:
    """Return GRUB's file: it boots the newest kernel by Debian's own links, on screen and serial line."""
    return f"""serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
menuentry 'Debian' {{
    search --no-floppy --fs-uuid --set=root {root_uuid}
    linux /vmlinuz root=UUID={root_uuid} {_COMMAND_LINE}
    initrd /initrd.img
}}
"""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _debootstrap_directory() -> Path | None:
    """Return debootstrap's scripts where it was unpacked and not installed, None where it finds them by itself."""
    program = shutil.which("debootstrap", path=_path())
    if program is None or (Path("/usr/share/debootstrap")).is_dir():
        return None
    return Path(program).resolve().parents[1] / "share/debootstrap"
