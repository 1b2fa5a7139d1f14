"""What a unit says of itself, octets to values (SPC-4 r37 6.6 and 6.33, SBC-4 r22 5.20, 5.21 and 6.6.3).

READ CAPACITY(10)  │ last LBA 4 │ block length 4 │             FFFFFFFFh: more than that, ask with (16)
             (16)  │ last LBA 8 │ block length 4 │ … │
REPORT LUNS        │ length 4 │ 4 reserved │ LUN 8 │ LUN 8 │ …
block limits       │ page header 4 │ … 20: most blocks of an UNMAP 4 │ 24: most ranges 4 │ …
"""

import struct

from panloom.errors import MalformedError
from panloom.wire.iscsi import lun_number

BLOCK_LIMITS = 0xB0  # VPD page code


def decode_capacity(octets: bytes, *, long: bool) -> tuple[int, int]:
    """Return blocks and octets of a block from READ CAPACITY(16), or (10) if not ``long``; MalformedError otherwise."""
    layout = ">QI" if long else ">II"
    if len(octets) < struct.calcsize(layout):
        raise MalformedError(f"a READ CAPACITY answer of {len(octets)} octets")
    last, block_octets = struct.unpack_from(layout, octets)
    if block_octets < 512 or block_octets & block_octets - 1:
        raise MalformedError(f"a unit with blocks of {block_octets} octets")
    return last + 1, block_octets


def decode_luns(octets: bytes) -> tuple[int, ...]:
    """Return the logical unit numbers in a REPORT LUNS answer, well-known units left out; MalformedError otherwise."""
    if len(octets) < 8:
        raise MalformedError(f"a REPORT LUNS answer of {len(octets)} octets")
    listed = int.from_bytes(octets[:4], "big")
    if listed % 8 or listed > len(octets) - 8:
        raise MalformedError(f"a REPORT LUNS answer of {len(octets)} octets that says it lists {listed}")
    numbers = (lun_number(field) for (field,) in struct.iter_unpack(">Q", octets[8 : 8 + listed]))
    return tuple(sorted({number for number in numbers if number is not None}))


def decode_unmap_limits(octets: bytes) -> tuple[int, int]:
    """Return the most blocks and ranges of one UNMAP from the block limits page; MalformedError for another page.

    0 means that the unit cannot unmap; a page too short to say it as well.
    """
    if len(octets) < 4 or octets[1] != BLOCK_LIMITS:
        raise MalformedError("no block limits page")
    if len(octets) < 28:
        return 0, 0
    return struct.unpack_from(">II", octets, 20)


def encode_lba_status(lba: int, runs: tuple[tuple[int, bool], ...]) -> bytes:
    """Return the answer to GET LBA STATUS: runs of (blocks, whether mapped), one behind the other (SBC-4 r22 5.6.2)."""
    descriptors = b""
    for blocks, mapped in runs:
        descriptors += struct.pack(">QIB3x", lba, min(blocks, 0xFFFF_FFFF), 0x00 if mapped else 0x01)
        lba += blocks
    return struct.pack(">I4x", len(descriptors) + 4) + descriptors
