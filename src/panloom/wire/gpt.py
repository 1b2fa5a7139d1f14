"""A GUID partition table as octets: UEFI 2.10 section 5.3, with a boot record that BIOS runs.

sector 0          boot code, protective partition (section 5.2.3)
sector 1          header: where the rest is, CRC-32 of itself and of the entries
sectors 2 … 33    128 entries of 128 octets
…                 partitions
last 33           the entries again, and a header that looks the other way
"""

import binascii
import struct
from collections.abc import Sequence
from uuid import UUID

import msgspec

SECTOR_OCTETS = 512
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT_X86_64 = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")

_ENTRIES, _ENTRY_OCTETS = 128, 128
TABLE_SECTORS = 1 + _ENTRIES * _ENTRY_OCTETS // SECTOR_OCTETS
"""Header and entries; partitions begin behind them, and end before as many."""
BOOT_CODE_OCTETS = 440
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")


class Partition(msgspec.Struct, frozen=True):
    """A partition: its type, who it is, and its sectors."""

    kind: UUID
    identity: UUID
    first: int
    sectors: int
    name: str

    @property
    def last(self) -> int:
        """Its last sector."""
        return self.first + self.sectors - 1


def encode(partitions: Sequence[Partition], *, disk: UUID, sectors: int, boot_code: bytes) -> tuple[bytes, bytes]:
    """Return what stands at the beginning of a disk of that many sectors, and what at its end.

    ValueError: partitions that overlap or lie where the tables are, more than 128 of them, or too long a boot code.
    """
    first, last = 1 + TABLE_SECTORS, sectors - TABLE_SECTORS - 1
    end = first - 1
    for partition in sorted(partitions, key=lambda one: one.first):
        if partition.first <= end or partition.sectors < 1 or partition.last > last:
            raise ValueError(f"{partition.name}: sectors {partition.first} … {partition.last} are not free")
        end = partition.last
    if len(boot_code) > BOOT_CODE_OCTETS or len(partitions) > _ENTRIES:
        raise ValueError("too much for one table")
    entries = b"".join(_entry(partition) for partition in partitions).ljust(_ENTRIES * _ENTRY_OCTETS, b"\0")
    main = _header(1, sectors - 1, first, last, 2, disk, entries)
    other = _header(sectors - 1, 1, first, last, sectors - TABLE_SECTORS, disk, entries)
    return _boot_record(boot_code, sectors) + main + entries, entries + other


def _entry(partition: Partition) -> bytes:
    name = partition.name.encode("utf-16-le")
    return _ENTRY.pack(
        partition.kind.bytes_le, partition.identity.bytes_le, partition.first, partition.last, 0, name
    ).ljust(_ENTRY_OCTETS, b"\0")


def _header(at: int, other_at: int, first: int, last: int, entries_at: int, disk: UUID, entries: bytes) -> bytes:
    def pack(crc: int) -> bytes:
        return _HEADER.pack(
            *(b"EFI PART", 0x10000, _HEADER.size, crc, 0, at, other_at, first, last),
            *(disk.bytes_le, entries_at, _ENTRIES, _ENTRY_OCTETS, binascii.crc32(entries)),
        )

    return pack(binascii.crc32(pack(0))).ljust(SECTOR_OCTETS, b"\0")


def _boot_record(boot_code: bytes, sectors: int) -> bytes:
    """Return sector 0.  Some BIOSes boot only from a disk with an active partition; UEFI wants none: it stays so."""
    length = min(sectors - 1, 0xFFFFFFFF)
    protective = b"\x00\x00\x02\x00\xee\xff\xff\xff" + struct.pack("<II", 1, length)
    return boot_code.ljust(446, b"\0") + protective + bytes(48) + b"\x55\xaa"
