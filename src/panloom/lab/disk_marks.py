"""What an emulated machine writes on its disk: a count of boots and, under load, a ring of marks that say whose it is.

    octet 32 Ki          64 Ki                                         512 Ki
    ┌──────────┬─────────┬─────────┬─────────┬── … ──┬─────────┬────────┐
    │  (MBR)   │ boots   │ n       │ n+1     │       │ n+111   │ (guest's ring, partitions)
    └──────────┴─────────┴─────────┴─────────┴── … ──┴─────────┴────────┘
                4 KiB     4 KiB each, mark ``n`` at place n modulo 112

A mark is text, then filler that depends on it, so that a torn or foreign block is never taken for a whole one:

    panloom-mark 1 PAN/SERVER EPOCH NUMBER CRC32    CRC over all that follows, in hex
"""

import re
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from panloom.errors import MalformedError

MARK_OCTETS = 4096
BOOTS_OFFSET = 32 << 10
RING_OFFSET = 64 << 10
RING_MARKS = 112
IMAGE_OCTETS = 1 << 20

_MAGIC = b"panloom-mark"
_FORM = re.compile(rb"panloom-mark 1 ([a-z0-9-]{1,63}/[a-z0-9-]{1,63}) ([0-9]{1,12}) ([0-9]{1,15}) ([0-9a-f]{8})\n")


class Mark(msgspec.Struct, frozen=True, order=True):
    """One block: which server wrote it, under which epoch, and its number among all that server wrote."""

    server: str
    epoch: int
    number: int

    @property
    def offset(self) -> int:
        """Where in the ring it lies, in octets."""
        return RING_OFFSET + self.number % RING_MARKS * MARK_OCTETS

    def encode(self) -> bytes:
        """Return the block."""
        said = f"{self.server} {self.epoch} {self.number}".encode()
        filler = (said + b"\n") * (MARK_OCTETS // (len(said) + 1) + 1)
        head = len(b"panloom-mark 1  01234567\n") + len(said)
        body = filler[: MARK_OCTETS - head]
        return b"panloom-mark 1 %b %08x\n%b" % (said, zlib.crc32(body, zlib.crc32(said)), body)

    @classmethod
    def decode(cls, octets: bytes) -> "Mark | None":
        """Read a block; None if no mark begins there, MalformedError if one does and is not whole."""
        if not octets.startswith(_MAGIC):
            return None
        match = _FORM.match(octets)
        if match is None:
            raise MalformedError(f"no mark, but {octets[:48]!r}")
        server, epoch, number, crc = (group.decode("ascii") for group in match.groups())
        said = f"{server} {epoch} {number}".encode()
        if len(octets) != MARK_OCTETS or zlib.crc32(octets[match.end() :], zlib.crc32(said)) != int(crc, 16):
            raise MalformedError(f"the block of mark {said.decode()} is torn")
        return cls(server, int(epoch), int(number))


def make_blank_image(path: Path) -> Path:
    """Write the image of a disk that an emulated machine boots from: it needs no system there, only room."""
    with path.open("wb") as file:
        file.truncate(IMAGE_OCTETS)
    return path


def ring(octets: bytes) -> Mapping[int, Mark]:
    """Return number → mark of a whole ring; MalformedError if a block is torn or lies where it does not belong."""
    found: dict[int, Mark] = {}
    for place in range(RING_MARKS):
        mark = Mark.decode(octets[place * MARK_OCTETS : (place + 1) * MARK_OCTETS])
        if mark is None:
            continue
        if mark.number % RING_MARKS != place:
            raise MalformedError(f"mark {mark.number} lies at place {place}")
        found[mark.number] = mark
    return found


def faults(marks: Mapping[int, Mark], server: str, acknowledged: int = -1) -> tuple[str, ...]:
    """Return what proves that a write was lost, came too late, or came from another server; nothing if all is well.

    ``acknowledged`` is the highest number whose write was answered.  A writer waits for each answer, so only the mark
    above the highest may be under way, and the ring holds the newest numbers without a gap.
    """
    found = [f"mark {mark.number} is of {mark.server}" for mark in marks.values() if mark.server != server]
    newest = max(marks, default=-1)
    if newest < acknowledged:
        found.append(f"mark {acknowledged} was acknowledged, the newest on the disk is {newest}")
    found += [
        f"mark {n} is missing below {newest}" for n in range(max(0, newest - RING_MARKS + 1), newest) if n not in marks
    ]
    in_order = [marks[number] for number in sorted(marks)]
    found += [
        f"mark {after.number} is of epoch {after.epoch}, after one of epoch {before.epoch}"
        for before, after in pairwise(in_order)
        if after.epoch < before.epoch
    ]
    return tuple(found)
