"""The small Linux that machines of the lab boot: one disk image for BIOS and UEFI, made without loop devices or mounts.

    sector 0   1024 … 2047           2048 (1 MiB)                    133120 (65 MiB)            262144 (128 MiB)
    ┌─────┬───┬─────────────────────┬───────────────────────────────┬───────────────────────────────┐
    │ MBR │   │ ring of the writer  │ FAT16: syslinux, its config,  │ ext4: busybox, /sbin/init,    │
    │     │   │ (tests of fencing)  │ vmlinuz, initrd.img;          │ /sbin/os, /boots              │
    │     │   │                     │ EFI/BOOT/BOOTX64.EFI          │                               │
    └─────┴───┴─────────────────────┴───────────────────────────────┴───────────────────────────────┘

    BIOS   boot code of the MBR ▶ syslinux, from the active partition ▶ vmlinuz, initrd.img
    UEFI   EFI/BOOT/BOOTX64.EFI of a partition of type EFh (UEFI 2.10 sections 3.5.1 and 5.2): both in one program

The same inputs give the same octets: every time stamp, identifier and order is fixed.
"""

import gzip
import hashlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR, S_ISLNK
from typing import Literal

import msgspec

from panloom.errors import UnavailableError
from panloom.lab.guest_files import Guest, Tree, collect_guest
from panloom.lab.unified_kernel import unified_kernel

SECTOR_OCTETS = 512
WRITER_RING = range(1024, 2048)
"""Sectors that a machine with ``/panloom-writer`` writes in turn, each a padded text ``PAN/SERVER:EPOCH:COUNTER``."""

_BOOT = range(2048, 133120)
_ROOT = range(133120, 262144)
_COMMAND_LINE = (  # measured: what makes the kernel quickest to userland under emulation
    "console=ttyS0,115200 panic=-1 quiet mitigations=off tsc=reliable no_timer_check nokaslr"
    " random.trust_cpu=on cryptomgr.notests"
)
_SYSLINUX = """SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
 LINUX vmlinuz
 INITRD initrd.img
 APPEND {}
"""
_RECIPE = b"2"  # raised when the same inputs shall give other octets
_TIME_STAMP = "1700000000"
_UUID = "9a6b1d0c-7f1e-4c1b-8b53-70616e6c6f6f"


class ImageFacts(msgspec.Struct, frozen=True):
    """What an image is; also the file ``IMAGE.json`` beside it, by which the next build knows that nothing changed."""

    inputs: str  # sha256 of all that goes in
    sha256: str  # of the image
    octets: int
    kernel: str  # its release


def build_image(
    packages: Path,
    output: Path,
    *,
    extra_files: Mapping[str, bytes] | None = None,
    layout: Literal["merged", "split"] = "merged",
) -> ImageFacts:
    """Make the disk image ``output`` from the packages unpacked below ``packages``, unless it is there already.

    ``extra_files`` are put on the root disk, by absolute path; ``/panloom-writer`` makes the machine write without
    pause, and its system runs ``/etc/rc.local``.  ``layout`` is that of the card which disk and network share
    (``node/guest/shared-nic.sh``).  The image appears whole or not at all.  Raises ``UnavailableError`` when a package
    is missing or a tool fails.
    """
    guest = collect_guest(packages, extra_files or {})
    command_line = _COMMAND_LINE if layout == "merged" else f"{_COMMAND_LINE} panloom.nic={layout}"
    inputs = hashlib.sha256(_RECIPE + _SYSLINUX.format(command_line).encode() + guest.digest().encode()).hexdigest()
    notes = output.with_name(output.name + ".json")
    if output.exists() and notes.exists():
        facts = msgspec.json.decode(notes.read_bytes(), type=ImageFacts)
        if facts.inputs == inputs:
            return facts
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".image-{os.getpid()}-", dir=output.parent) as directory:
        work = Path(directory)
        disk = work / "disk.img"
        with disk.open("xb") as file:
            file.truncate(_ROOT.stop * SECTOR_OCTETS)
        _write_boot_partition(disk, guest, command_line, work)
        _write_root_partition(disk, guest.root, work)
        _write_boot_record(disk, packages / "usr/lib/syslinux/mbr/mbr.bin")
        with disk.open("rb") as file:
            facts = ImageFacts(
                inputs, hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size, guest.release
            )
            os.fsync(file.fileno())
        disk.replace(output)
    notes.write_bytes(msgspec.json.encode(facts))
    return facts


def _write_boot_record(disk: Path, boot_code: Path) -> None:
    """Write sector 0: boot code, a disk identifier, and two partitions by their block addresses, the first active."""

    def partition(active: int, kind: int, sectors: range) -> bytes:
        outside_chs = b"\xfe\xff\xff"
        return (
            bytes([active])
            + outside_chs
            + bytes([kind])
            + outside_chs
            + struct.pack("<II", sectors.start, len(sectors))
        )

    table = partition(0x80, 0xEF, _BOOT) + partition(0, 0x83, _ROOT) + bytes(32)
    with disk.open("r+b") as file:
        file.write(boot_code.read_bytes().ljust(440, b"\0") + struct.pack("<IH", 0x50414E4C, 0) + table + b"\x55\xaa")


def _write_boot_partition(disk: Path, guest: Guest, command_line: str, work: Path) -> None:
    initramfs = gzip.compress(guest.initramfs, mtime=0)
    configuration = _SYSLINUX.format(command_line).encode()
    contents = {"vmlinuz": guest.kernel, "initrd.img": initramfs, "syslinux.cfg": configuration}
    for name, content in contents.items():
        (work / name).write_bytes(content)
    loader = work / "BOOTX64.EFI"
    loader.write_bytes(
        unified_kernel(
            guest.efi_stub,
            kernel=guest.kernel,
            initramfs=initramfs,
            command_line=command_line,
            release=guest.release,
        )
    )
    offset = _BOOT.start * SECTOR_OCTETS
    format_options = ("--invariant", "-F", "16", "-n", "BOOT", "--offset", str(_BOOT.start))
    _run("mkfs.vfat", *format_options, str(disk), str(len(_BOOT) // 2))
    # The loader comes first, so that it lies in one piece and firmware reads it at once.
    _run("mmd", "-i", f"{disk}@@{offset}", "::EFI", "::EFI/BOOT")
    _run("mcopy", "-i", f"{disk}@@{offset}", str(loader), "::EFI/BOOT/BOOTX64.EFI")
    _run("mcopy", "-i", f"{disk}@@{offset}", *(str(work / name) for name in contents), "::")
    _run("syslinux", "--offset", str(offset), "--install", str(disk))


def _write_root_partition(disk: Path, tree: Tree, work: Path) -> None:
    """Make an ext4 file system and fill it by debugfs, which takes no time stamps from this host's files."""
    offset = _ROOT.start * SECTOR_OCTETS
    _run(
        *(
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-m",
            "0",
            "-J",
            "size=4",
            "-O",
            "^metadata_csum,^64bit,^resize_inode",
        ),
        *("-L", "root", "-U", _UUID, "-E", f"offset={offset},hash_seed={_UUID},lazy_itable_init=0,root_owner=0:0"),
        *(str(disk), str(len(_ROOT) * SECTOR_OCTETS // 4096)),
    )
    commands = []
    for index, (path, (mode, content)) in enumerate(tree.items()):
        if S_ISDIR(mode):
            commands.append(f"mkdir {path}")
        elif S_ISLNK(mode):
            commands.append(f"symlink {path} {content.decode()}")
        else:
            source = work / f"root-{index}"
            source.write_bytes(content)
            commands += [f"write {source} {path}", f"set_inode_field {path} mode 0{mode:o}"]
            commands += [f"set_inode_field {path} {owner} 0" for owner in ("uid", "gid")]
    (work / "debugfs").write_text("\n".join(commands) + "\n")
    complaints = _run("debugfs", "-w", "-f", str(work / "debugfs"), f"{disk}?offset={offset}").splitlines()[1:]
    if complaints:
        raise UnavailableError(f"debugfs: {complaints[0]}")


def _run(*command: str) -> str:
    """Run a tool with everything fixed that could show in the image; return what it wrote to standard error."""
    environment = {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
        "LC_ALL": "C",
        "TZ": "UTC",
        "MTOOLS_SKIP_CHECK": "1",
        "SOURCE_DATE_EPOCH": _TIME_STAMP,
        "E2FSPROGS_FAKE_TIME": _TIME_STAMP,
    }
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is not in PATH; run: make setup-demo") from error
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{command[0]} failed: {error.stderr.strip() or error.stdout.strip()}") from error
    return done.stderr
