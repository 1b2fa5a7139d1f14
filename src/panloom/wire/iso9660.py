"""A disc of a few files as octets: ECMA-119 (ISO 9660), with POSIX names by the Rock Ridge Interchange Protocol 1.09.

block 0 … 15     the system area: whatever the disc's maker wants there (section 6.2.1)
block 16, 17     primary volume descriptor, terminator (sections 8.4 and 8.3)
block 18, 19     path tables, little-endian and big-endian (section 6.9)
block 20         the root directory: each record with its fields PX and NM behind the name (SUSP 1.09 section 5)
block 21 …       the files
"""

import re
import struct
from collections.abc import Mapping

BLOCK_OCTETS = 2048
SYSTEM_AREA_OCTETS = 16 * BLOCK_OCTETS

_VOLUME, _TERMINATOR, _LITTLE_TABLE, _BIG_TABLE, _ROOT, _FILES = 16, 17, 18, 19, 20, 21
_DIRECTORY = 0x02
_RECORD_OCTETS, _RECORD_LIMIT = 33, 255
_LABEL = re.compile(r"[A-Z0-9_]{1,32}")
_FILE_MODE, _DIRECTORY_MODE = 0o100400, 0o040555
_WRITTEN_AT = bytes((126, 1, 1, 0, 0, 0, 0))  # the same for the same files, whenever they are written
_SHARING = b"SP\x07\x01\xbe\xef\x00"  # SUSP 1.09 section 5.3: system use fields are there
_ROCK_RIDGE = b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A"  # section 5.5: and they are Rock Ridge's


def encode(label: str, files: Mapping[str, bytes], *, system_area: bytes = b"") -> bytes:
    """Return a disc whose root directory holds these files, readable by their owner, root, only.

    ValueError: a label that is none, too much in the system area, or more names than one block of directory takes.
    """
    if not _LABEL.fullmatch(label):
        raise ValueError(f"{label!r} is no volume identifier: write A-Z, 0-9 and _, at most 32 of them")
    if len(system_area) > SYSTEM_AREA_OCTETS:
        raise ValueError(f"{len(system_area)} octets do not fit into a system area of {SYSTEM_AREA_OCTETS}")
    records, block, placed = [], _FILES, {}
    for number, (name, octets) in enumerate(sorted(files.items())):
        identifier = f"FILE{number:04d}.;1".encode()
        records.append(_record(identifier, block, len(octets), 0, _attributes(_FILE_MODE, 1) + _named(name)))
        placed[block] = octets
        block += -(-len(octets) // BLOCK_OCTETS)
    itself = _attributes(_DIRECTORY_MODE, 2)
    root = b"".join(
        (
            _record(b"\0", _ROOT, BLOCK_OCTETS, _DIRECTORY, _SHARING + itself + _ROCK_RIDGE),
            _record(b"\1", _ROOT, BLOCK_OCTETS, _DIRECTORY, itself),
            *records,
        )
    )
    if len(root) > BLOCK_OCTETS:
        raise ValueError(f"{len(files)} files are too many for one block of directory")
    parts = {
        0: system_area,
        _VOLUME: _volume_descriptor(label, block),
        _TERMINATOR: b"\xffCD001\x01",
        _LITTLE_TABLE: struct.pack("<BBIHxx", 1, 0, _ROOT, 1),
        _BIG_TABLE: struct.pack(">BBIHxx", 1, 0, _ROOT, 1),
        _ROOT: root,
        **placed,
    }
    disc = bytearray(block * BLOCK_OCTETS)
    for at, octets in parts.items():
        disc[at * BLOCK_OCTETS : at * BLOCK_OCTETS + len(octets)] = octets
    return bytes(disc)


def _both(number: int, octets: int) -> bytes:
    """Return a number in either order (ECMA-119 sections 7.2.3 and 7.3.3)."""
    return number.to_bytes(octets, "little") + number.to_bytes(octets, "big")


def _record(identifier: bytes, block: int, octets: int, flags: int, system_use: bytes) -> bytes:
    """Return a directory record (section 9.1); an identifier of even length is followed by an octet of padding."""
    fixed = _both(block, 4) + _both(octets, 4) + _WRITTEN_AT + bytes((flags, 0, 0)) + _both(1, 2)
    named = bytes((len(identifier),)) + identifier + bytes((len(identifier) + 1) % 2)
    record = bytes(1) + fixed + named + system_use
    record += bytes((len(record) + 1) % 2)
    if len(record) + 1 > _RECORD_LIMIT:
        raise ValueError("a name is too long for one directory record")
    return bytes((len(record) + 1,)) + record


def _attributes(mode: int, links: int) -> bytes:
    """Return the field PX (RRIP 1.09 section 4.1.1): mode, links, and root's user and group."""
    return b"PX\x24\x01" + _both(mode, 4) + _both(links, 4) + _both(0, 4) + _both(0, 4)


def _named(name: str) -> bytes:
    """Return the field NM (section 4.1.4)."""
    octets = name.encode("ascii")
    return b"NM" + bytes((5 + len(octets), 1, 0)) + octets


def _volume_descriptor(label: str, blocks: int) -> bytes:
    """Return the primary volume descriptor (ECMA-119 section 8.4)."""
    parts = {
        0: b"\x01CD001\x01",
        8: b" " * 32 + label.encode().ljust(32),
        80: _both(blocks, 4),
        120: _both(1, 2) + _both(1, 2) + _both(BLOCK_OCTETS, 2) + _both(10, 4),
        140: struct.pack("<II", _LITTLE_TABLE, 0) + struct.pack(">II", _BIG_TABLE, 0),
        156: _record(b"\0", _ROOT, BLOCK_OCTETS, _DIRECTORY, b""),
        190: b" " * 623,
        813: (b"0" * 16 + b"\0") * 4 + b"\x01",
    }
    descriptor = bytearray(BLOCK_OCTETS)
    for at, octets in parts.items():
        descriptor[at : at + len(octets)] = octets
    return bytes(descriptor)
