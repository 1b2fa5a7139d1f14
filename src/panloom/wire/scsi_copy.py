"""The parameter list of EXTENDED COPY(LID1) and the answers about it (SPC-4 r37 6.4, 6.20 and 6.23).

│ list id │ usage │ targets' length 2 │ 4 │ segments' length 4 │ inline data's length 4 │ targets │ segments │
target   E4h │ … │ code set │ designator type │ 0 │ length │ designator 20 │ … block length 3 │       32 octets
segment  02h │ … │ 24: length 2 │ source 2 │ destination 2 │ 2 │ blocks 2 │ source LBA 8 │ LBA 8 │   28 octets
"""

import struct

import msgspec

HEADER_OCTETS, TARGET_OCTETS, SEGMENT_OCTETS = 16, 32, 28
IDENTIFICATION, BLOCK_TO_BLOCK = 0xE4, 0x02
MAX_TARGETS, MAX_SEGMENTS, MAX_DESCRIPTORS_OCTETS = 4, 16, 1024
SEGMENT_BLOCKS = 0xFFFF
_KEEP_NOTHING = 0x18  # list id usage 11b

_HEADER = struct.Struct(">BBH4xII")
_SEGMENT = struct.Struct(">4xHH2xHQQ")


class CopyHeader(msgspec.Struct, frozen=True, gc=False):
    """What the list says of itself."""

    list_identifier: int
    usage: int
    targets_octets: int
    segments_octets: int
    inline_octets: int

    @property
    def keeps_status(self) -> bool:
        """Whether RECEIVE COPY RESULTS may ask for it."""
        return self.usage & _KEEP_NOTHING != _KEEP_NOTHING


class Target(msgspec.Struct, frozen=True, gc=False):
    """A target descriptor: which unit."""

    kind: int
    designator: bytes  # its header of 4 octets included
    block_octets: int


class Segment(msgspec.Struct, frozen=True, gc=False):
    """A segment descriptor: which blocks."""

    kind: int
    source: int  # the target descriptor's number
    destination: int
    blocks: int
    source_lba: int
    destination_lba: int


def decode_header(octets: bytes) -> CopyHeader:
    """Return the header of a list of at least 16 octets."""
    return CopyHeader(*_HEADER.unpack_from(octets))


def decode_target(octets: bytes) -> Target:
    """Return a target descriptor of 32 octets; of a kind other than E4h only that kind means anything."""
    return Target(octets[0], bytes(octets[4 : 8 + min(octets[7], 20)]), int.from_bytes(octets[29:32], "big"))


def decode_segment(octets: bytes) -> Segment:
    """Return a segment descriptor of 28 octets; of a kind other than 02h only that kind means anything."""
    return Segment(octets[0], *_SEGMENT.unpack_from(octets))


def encode_list(header: CopyHeader, targets: tuple[Target, ...], segments: tuple[Segment, ...]) -> bytes:
    """Return a parameter list."""
    octets = _HEADER.pack(*msgspec.structs.astuple(header))
    for each in targets:
        octets += bytes((each.kind, 0, 0, 0)) + each.designator.ljust(24, b"\0") + each.block_octets.to_bytes(4, "big")
    for one in segments:
        rest = _SEGMENT.pack(*msgspec.structs.astuple(one)[1:])
        octets += bytes((one.kind, 0, 0, SEGMENT_OCTETS - 4)) + rest[4:]
    return octets


def encode_status(*, failed: bool, segments: int, octets: int) -> bytes:
    """Return the answer to RECEIVE COPY RESULTS for a copy's status; the transfer count is told in KiB."""
    return struct.pack(">IBHBI", 8, 0x02 if failed else 0x01, segments, 0x01, octets >> 10)


def encode_parameters(block_octets: int) -> bytes:
    """Return the answer to RECEIVE COPY RESULTS for the operating parameters."""
    segment_octets = SEGMENT_BLOCKS * block_octets
    body = struct.pack(">B3xHHIIII", 0, MAX_TARGETS, MAX_SEGMENTS, MAX_DESCRIPTORS_OCTETS, segment_octets, 0, 0)
    body += struct.pack(">I2xHBBBB3xB", 0, 1, 1, block_octets.bit_length() - 1, 0, 0, 2)
    body += bytes((BLOCK_TO_BLOCK, IDENTIFICATION))
    return struct.pack(">I", len(body)) + body


def encode_third_party_page(block_octets: int) -> bytes:
    """Return the third party copy page, 8Fh, without its header (SPC-4 r37 7.8.17)."""
    commands = bytes((0x83, 1, 0x00, 0x84, 2, 0x00, 0x03))
    supported = _descriptor(0x0001, bytes((len(commands),)) + commands)
    limits = struct.pack(">4xHHII12x", MAX_TARGETS, MAX_SEGMENTS, MAX_DESCRIPTORS_OCTETS, 0)
    kinds = bytes((2, BLOCK_TO_BLOCK, IDENTIFICATION))
    general = struct.pack(">IIIBB18x", 1, 1, SEGMENT_BLOCKS * block_octets, block_octets.bit_length() - 1, 0)
    return (
        supported
        + _descriptor(0x0004, limits)
        + _descriptor(0x0008, kinds)
        + _descriptor(0x000C, bytes(2))
        + _descriptor(0x8001, general)
    )


def _descriptor(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(">HH", kind, len(body)) + body
