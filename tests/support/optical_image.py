"""A disc of one file in its root directory: the least that ECMA-119 calls a volume."""

import struct

BLOCK_OCTETS = 2048
_VOLUME, _TERMINATOR, _LITTLE_TABLE, _BIG_TABLE, _ROOT, _FILE = 16, 17, 18, 19, 20, 21  # where each stands, in blocks
_DIRECTORY = 0x02


def _both(number: int, octets: int) -> bytes:
    """Return a number in either order (ECMA-119 sections 7.2.3 and 7.3.3)."""
    return number.to_bytes(octets, "little") + number.to_bytes(octets, "big")


def _record(name: bytes, block: int, octets: int, flags: int) -> bytes:
    """Return a directory record (section 9.1)."""
    date = bytes((126, 11, 21, 0, 0, 0, 0))
    fixed = _both(block, 4) + _both(octets, 4) + date + struct.pack("BBB", flags, 0, 0) + _both(1, 2)
    named = bytes((0,)) + fixed + bytes((len(name),)) + name
    padded = named + bytes((len(named) + 1) % 2)
    return bytes((len(padded) + 1,)) + padded


def _volume_descriptor(label: str, blocks: int) -> bytes:
    """Return the primary volume descriptor (section 8.4)."""
    parts = {
        0: b"\x01CD001\x01",
        8: b" " * 32 + label.encode().ljust(32),
        80: _both(blocks, 4),
        120: _both(1, 2) + _both(1, 2) + _both(BLOCK_OCTETS, 2) + _both(10, 4),
        140: struct.pack("<II", _LITTLE_TABLE, 0) + struct.pack(">II", _BIG_TABLE, 0),
        156: _record(b"\0", _ROOT, BLOCK_OCTETS, _DIRECTORY),
        190: b" " * 623,
        813: (b"0" * 16 + b"\0") * 4 + b"\x01",
    }
    descriptor = bytearray(BLOCK_OCTETS)
    for at, octets in parts.items():
        descriptor[at : at + len(octets)] = octets
    return bytes(descriptor)


def optical_image(label: str, name: str, content: bytes) -> bytes:
    """Return an image; ``label`` and ``name``, which is 8.3, are of capital letters, digits and underscores."""
    blocks = _FILE + -(-len(content) // BLOCK_OCTETS)
    itself, above = (_record(known, _ROOT, BLOCK_OCTETS, _DIRECTORY) for known in (b"\0", b"\1"))
    parts = {
        _VOLUME: _volume_descriptor(label, blocks),
        _TERMINATOR: b"\xffCD001\x01",
        _LITTLE_TABLE: struct.pack("<BBIHxx", 1, 0, _ROOT, 1),
        _BIG_TABLE: struct.pack(">BBIHxx", 1, 0, _ROOT, 1),
        _ROOT: itself + above + _record(f"{name};1".encode(), _FILE, len(content), 0),
        _FILE: content,
    }
    image = bytearray(blocks * BLOCK_OCTETS)
    for block, octets in parts.items():
        image[block * BLOCK_OCTETS : block * BLOCK_OCTETS + len(octets)] = octets
    return bytes(image)
