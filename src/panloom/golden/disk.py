"""A tree becomes a disk that boots by BIOS and by UEFI, made without loop devices or mounts.

    MiB  0         1           2            66                                        end
         ┌─────┬───┬───────────┬────────────┬─────────────────────────────────────────┬───┐
         │ MBR │GPT│ BIOS boot │ ESP: FAT32 │ ext4: the system, /boot and all         │GPT│
         └──┬──┴───┴─▲───┬─────┴──────┬─────┴───────────▲──────▲──────────────────────┴───┘
            └────────┘   └────────────┼─────────────────┘      │
     BIOS   boot.img ▶ core.img ▶ /boot/grub/grub.cfg          │
     UEFI                       BOOTX64.EFI ▶ /boot/grub/grub.cfg

The last partition is the system's, so that it can grow with its disk.
"""

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path
from uuid import UUID, uuid5

from panloom.errors import UnavailableError
from panloom.golden.debian import Built
from panloom.wire import gpt

MIB_SECTORS = (1 << 20) // gpt.SECTOR_OCTETS
_BIOS_BOOT_AT, _ESP_AT, _ROOT_AT = MIB_SECTORS, 2 * MIB_SECTORS, 66 * MIB_SECTORS
_BOOT_CODE_KERNEL_AT = 0x5C  # GRUB 2.06, boot.S: where boot.img finds the sector of core.img
_BOOT_CODE_DRIVE_CHECK_AT = 0x66  # a jump; two NOPs in its place make it believe the drive that BIOS names
_CORE_BLOCKS_AT = 0x1F4  # diskboot.S: first sector (8), sectors (2), segment (2) of the rest of core.img
_CORE_SEGMENT = 0x820


def write_disk(built: Built, output: Path, *, octets: int, root_uuid: UUID) -> str:
    """Make the disk ``output``, which is there whole or not at all; return its SHA-256.

    UnavailableError: a tool is missing, or the system does not fit into ``octets``.
    """
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with partial.open("xb") as file:
            file.truncate(octets)
        sectors = octets // gpt.SECTOR_OCTETS
        root_sectors = (sectors - gpt.TABLE_SECTORS - _ROOT_AT) // MIB_SECTORS * MIB_SECTORS
        _write_root(partial, built.root, root_sectors, root_uuid)
        _write_esp(partial, built.efi)
        _write_tables(partial, built.root, sectors, root_sectors, root_uuid)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def _write_tables(disk: Path, root: Path, sectors: int, root_sectors: int, root_uuid: UUID) -> None:
    core = (root / "boot/grub/core.img").read_bytes()
    boot_code = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    partitions = (
        gpt.Partition(gpt.BIOS_BOOT, uuid5(root_uuid, "bios"), _BIOS_BOOT_AT, _ESP_AT - _BIOS_BOOT_AT, "bios"),
        gpt.Partition(gpt.EFI_SYSTEM, uuid5(root_uuid, "esp"), _ESP_AT, _ROOT_AT - _ESP_AT, "esp"),
        gpt.Partition(gpt.LINUX_ROOT_X86_64, uuid5(root_uuid, "root"), _ROOT_AT, root_sectors, "root"),
    )
    begin, end = gpt.encode(
        partitions, disk=uuid5(root_uuid, "disk"), sectors=sectors, boot_code=boot_record(boot_code, _BIOS_BOOT_AT)
    )
    with disk.open("r+b") as file:
        file.write(begin)
        file.seek(_BIOS_BOOT_AT * gpt.SECTOR_OCTETS)
        file.write(located_core(core, _BIOS_BOOT_AT, _ESP_AT - _BIOS_BOOT_AT))
        file.seek(-len(end), os.SEEK_END)
        file.write(end)


def boot_record(boot_code: bytes, core_at: int) -> bytes:
    """Return the code of GRUB's boot.img, told in which sector core.img begins."""
    made = bytearray(boot_code[: gpt.BOOT_CODE_OCTETS])
    struct.pack_into("<Q", made, _BOOT_CODE_KERNEL_AT, core_at)
    made[_BOOT_CODE_DRIVE_CHECK_AT : _BOOT_CODE_DRIVE_CHECK_AT + 2] = b"\x90\x90"
    return bytes(made)


def located_core(core: bytes, at: int, room_sectors: int) -> bytes:
    """Return GRUB's core.img for sector ``at``: its first sector loads the others."""
    rest = -(-len(core) // gpt.SECTOR_OCTETS) - 1
    if rest + 1 > room_sectors:
        raise UnavailableError(f"GRUB's core.img has {len(core)} octets and does not fit into its partition")
    made = bytearray(core)
    struct.pack_into("<QHH", made, _CORE_BLOCKS_AT, at + 1, rest, _CORE_SEGMENT)
    return bytes(made)


def _write_esp(disk: Path, tree: Path) -> None:
    sectors = _ROOT_AT - _ESP_AT
    options = ("--invariant", "-F", "32", "-s", "1", "-n", "ESP", "--offset", str(_ESP_AT))
    _run("mkfs.vfat", *options, str(disk), str(sectors // 2))
    at = f"{disk}@@{_ESP_AT * gpt.SECTOR_OCTETS}"
    _run("mcopy", "-s", "-i", at, *(str(entry) for entry in sorted(tree.iterdir())), "::")


def _write_root(disk: Path, tree: Path, sectors: int, root_uuid: UUID) -> None:
    """Make an ext4 of a tree, owners, modes and extended attributes included."""
    where = f"offset={_ROOT_AT * gpt.SECTOR_OCTETS},lazy_itable_init=0,lazy_journal_init=0,discard"
    options = ("-q", "-t", "ext4", "-b", "4096", "-m", "1", "-L", "root", "-U", str(root_uuid), "-E", where)
    _run("mke2fs", *options, "-d", str(tree), str(disk), str(sectors * gpt.SECTOR_OCTETS // 4096))


def _run(*command: str) -> None:
    environment = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    environment["LD_LIBRARY_PATH"] = os.environ.get("LD_LIBRARY_PATH", "")
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise UnavailableError(f"{command[0]} is not in PATH; apt install e2fsprogs dosfstools mtools")
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UnavailableError(f"{command[0]}: {said}")
