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


# ── growth ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_GROWABLE = {
    LINUX_ROOT_X86_64,
    UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"),  # Linux file system
    UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),  # root of arm64
    UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"),  # LVM
    UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),  # basic data
}
"""What may stand in a last partition that is to be as large as its disk; anything else, swap say, stays as it is."""
_ALIGNED_SECTORS = (1 << 20) // SECTOR_OCTETS


class Tables(msgspec.Struct, frozen=True):
    """What stands at the beginning of a disk and at its end."""

    begin: bytes
    end: bytes


def grown(begin: bytes, end: bytes, sectors: int) -> Tables | None:
    """Return the tables of a disk that has become larger: the other one at its new end, the last partition grown to it.

    ``begin`` and ``end`` are the first ``1 + TABLE_SECTORS`` sectors and the last ``TABLE_SECTORS``.  None: there is
    nothing to grow, or no table that can be read.  Of two tables one is enough, so that the tables are written again
    and right after a crash in between, if the end was on the disk before the beginning was begun.
    """
    found = _readable(begin[SECTOR_OCTETS:], 1) or _readable_at_end(end, sectors)
    if found is None:
        return None
    disk, first, entries = found
    last = sectors - TABLE_SECTORS - 1
    entries = _grown_entries(entries, last)
    main = _header(1, sectors - 1, first, last, 2, disk, entries)
    other = _header(sectors - 1, 1, first, last, sectors - TABLE_SECTORS, disk, entries)
    made = Tables(_protective(begin[:SECTOR_OCTETS], sectors) + main + entries, entries + other)
    return made if made != Tables(begin, end) else None


def _readable(octets: bytes, at: int) -> tuple[UUID, int, bytes] | None:
    """Return a disk's identity, its first usable sector and its entries; None where these do not stand undamaged.

    A table of another size, or with entries elsewhere, is left to the tools that made it so.
    """
    header, entries = octets[:SECTOR_OCTETS], octets[SECTOR_OCTETS:]
    (signature, _, size, crc, _, mine, _, first, _, disk, entries_at, count, each, entries_crc) = _HEADER.unpack_from(
        header
    )
    blank = header[:16] + bytes(4) + header[20 : _HEADER.size]
    if (signature, size, mine, count, each) != (b"EFI PART", _HEADER.size, at, _ENTRIES, _ENTRY_OCTETS):
        return None
    if binascii.crc32(blank) != crc or binascii.crc32(entries) != entries_crc or (at == 1 and entries_at != 2):
        return None
    return UUID(bytes_le=disk), first, entries


def _readable_at_end(end: bytes, sectors: int) -> tuple[UUID, int, bytes] | None:
    return _readable(end[-SECTOR_OCTETS:] + end[:-SECTOR_OCTETS], sectors - 1)


def _grown_entries(entries: bytes, last_usable: int) -> bytes:
    """Return the entries with the last partition made as long as it can be, if it is of a kind that grows."""
    made = bytearray(entries)
    used = [at for at in range(0, len(entries), _ENTRY_OCTETS) if any(entries[at : at + 16])]
    at = max(used, key=lambda at: _ENTRY.unpack_from(entries, at)[3], default=None)
    if at is None:
        return entries
    kind, identity, first, last, flags, name = _ENTRY.unpack_from(entries, at)
    end = (last_usable + 1) // _ALIGNED_SECTORS * _ALIGNED_SECTORS - 1
    if UUID(bytes_le=kind) in _GROWABLE and end > last:
        _ENTRY.pack_into(made, at, kind, identity, first, end, flags, name)
    return bytes(made)


def _protective(record: bytes, sectors: int) -> bytes:
    """Return sector 0 with its protective partition as long as the disk; one that is no such record stays as it is."""
    if record[450] != 0xEE or record[454:458] != b"\x01\x00\x00\x00":
        return record
    return record[:458] + struct.pack("<I", min(sectors - 1, 0xFFFFFFFF)) + record[462:]
