"""A Debian as its cloud images are, with open-iscsi in its initramfs and nothing of Panloom's: built once, and kept.

debootstrap ▶ cloud-init, sshd, GRUB, kernel, open-iscsi (ISCSI_AUTO=true) ▶ GPT disk
"""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

from panloom.golden.debian import Built
from panloom.golden.disk import write_disk
from panloom.golden.mirrors import archives
from support.lab import IMAGES

SCRIPT = Path(__file__).parent / "guest" / "stock_cloud.sh"
SUITE = "bookworm"
OCTETS = 1 << 30


def cloud_image() -> Path:
    """Return the disk; its name says by which script it was made."""
    made_of = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:16]
    path = IMAGES / f"cloud-{made_of}.img"
    if not path.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".cloud-", dir=IMAGES) as work:
            _build(Path(work), path)
        for older in IMAGES.glob("cloud-*.img"):
            if older != path:
                older.unlink()
    return path


def _build(work: Path, path: Path) -> None:
    archive, sources, root_uuid = IMAGES / "debian-archive", archives(SUITE, None), uuid4()
    archive.mkdir(exist_ok=True)
    (work / "archives").symlink_to(archive)
    (work / "sources.list").write_text("".join(f"{source.line()}\n" for source in sources))
    told = {"SUITE": SUITE, "MIRROR": sources[0].uri, "ROOT_UUID": str(root_uuid)}
    unpacked_scripts = Path(__file__).parents[2] / ".cache" / "debian" / "usr" / "share" / "debootstrap"
    if not Path("/usr/share/debootstrap").is_dir():
        told["DEBOOTSTRAP_DIR"] = str(unpacked_scripts)
    held = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
    log = path.with_name(f"{path.name}.log")
    with log.open("wb") as output:
        done = subprocess.run(
            ("setpriv", "--pdeathsig", "KILL", "--", *held, "bash", SCRIPT),
            cwd=work, env={**os.environ, **told, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text(errors="replace")[-2000:]
    versions = (work / "versions").read_bytes()
    built = Built(work / "root", work / "efi", sources[0].uri, versions.count(b"\n"), "")
    write_disk(built, path, octets=OCTETS, root_uuid=root_uuid)
