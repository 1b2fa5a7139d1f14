"""Blocks that say what they are, and what each block of a disk may be after a crash.

    octet   0        8        16                     508   512
            ┌────────┬────────┬── … ──────────────────┬─────┐
            │  lba   │ number │ filler: both, again   │ crc │     number 0: a block of zeros
            └────────┴────────┴── … ──────────────────┴─────┘

A block that was torn, or written somewhere else, has the wrong sum or the wrong lba.
"""

import struct
import zlib

BLOCK = 512
ZEROS = bytes(BLOCK)
_HEAD = struct.Struct(">QQ")
_SUM = struct.Struct(">I")
_FILLERS = (BLOCK - _SUM.size) // _HEAD.size + 1


def marked(lba, number):
    """Return the block that says this; zeros for number 0."""
    if not number:
        return ZEROS
    body = (_HEAD.pack(lba, number) * _FILLERS)[: BLOCK - _SUM.size]
    return body + _SUM.pack(zlib.crc32(body))


def number_of(lba, block):
    """Return the number that a block says, 0 for zeros, None if it is none that was written there."""
    if block == ZEROS:
        return 0
    _, number = _HEAD.unpack_from(block)
    return number if block == marked(lba, number) else None


class Ledger:
    """What each block of one disk holds, and may hold; no two commands to the same block are under way at once."""

    def __init__(self, blocks, *, first=0):
        """Begin with zeros; numbers begin after ``first``."""
        self.now = [0] * blocks
        self._under_way = {}  # lba → the number that is being written
        self._last = first
        self.answered = 0
        self.unanswered = 0  # blocks of commands that the kill cut off
        self.violations = []

    def is_busy(self, lba, blocks):
        """Return whether something is under way there."""
        return any(each in self._under_way for each in range(lba, lba + blocks))

    def begin(self, lba, blocks, *, zeros=False):
        """Return what to write, each block with a number of its own, or zeros."""
        octets = []
        for each in range(lba, lba + blocks):
            self._last += 1
            self._under_way[each] = 0 if zeros else self._last
            octets.append(marked(each, self._under_way[each]))
        return b"".join(octets)

    def done(self, lba, blocks):
        """It was answered with GOOD."""
        self.answered += blocks
        for each in range(lba, lba + blocks):
            self.now[each] = self._under_way.pop(each)

    def reading(self, lba, blocks):
        """Let nobody write there meanwhile."""
        for each in range(lba, lba + blocks):
            self._under_way[each] = self.now[each]

    def check(self, octets, lba=0):
        """Compare blocks that were read; what was under way may be there or not, each block whole.

        From here on what was seen is what is there.
        """
        for each in range(lba, lba + len(octets) // BLOCK):
            block = octets[(each - lba) * BLOCK : (each - lba + 1) * BLOCK]
            number, before = number_of(each, block), self.now[each]
            may_be = {before, self._under_way.get(each, before)}
            self.unanswered += each in self._under_way and len(may_be) > 1
            if number not in may_be:
                what = "torn or foreign" if number is None else f"number {number}"
                self.violations.append(f"block {each} is {what}, may be {sorted(may_be)}: {block[:16].hex()}")
            self.now[each] = number or 0
            self._under_way.pop(each, None)
