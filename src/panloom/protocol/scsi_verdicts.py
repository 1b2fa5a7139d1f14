"""What a SCSI command comes to: an answer, or something to be done first.

    Data        GOOD, with these octets for the initiator
    Sense       CHECK CONDITION
    Conflict    RESERVATION CONFLICT
    Busy        BUSY
    Store       take so many octets from the initiator, and write, compare or combine them as they arrive
    Wants       take so many octets from the initiator, then ``then(octets)`` is the verdict
    Then        do a deed, then ``then()`` is the verdict
    a deed      do it, then GOOD

A deed is done on the medium, by who holds it: ``Read``, ``Flush``, ``Deallocate``, ``Fill``, ``CompareAndWrite``,
``WriteAtomic``, ``Check``, ``LookUp``, ``Copy``; or beside it: ``Perform``, ``Erase``, ``Quiesce``.  Every range in it
is inside its unit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum, auto
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec

from panloom.wire.scsi_sense import Sense


class Data(msgspec.Struct, frozen=True, gc=False):
    """GOOD, with these octets, none included."""

    octets: bytes = b""


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """RESERVATION CONFLICT: the unit is another's (SAM-5 5.3.1)."""

    STATUS: ClassVar[int] = 0x18


class Busy(msgspec.Struct, frozen=True, gc=False):
    """BUSY: the initiator is to ask again (SAM-5 5.3.1)."""

    STATUS: ClassVar[int] = 0x08


class Read(msgspec.Struct, frozen=True, gc=False):
    """Send octets of the medium; ``flush`` first, so that they come from stable storage (FUA)."""

    offset: int
    octets: int
    flush: bool


class Use(Enum):
    """What is done with a command's data."""

    WRITE = auto()
    COMPARE = auto()  # and write nothing
    VERIFY = auto()  # write, and compare what is read back
    COMBINE = auto()  # write what is there OR the data


class Store(msgspec.Struct, frozen=True, gc=False):
    """Take octets for the medium; ``flush`` once all are written (FUA, or no write cache)."""

    offset: int
    octets: int
    flush: bool = False
    use: Use = Use.WRITE

    @property
    def compare(self) -> bool:
        """Whether the medium stays as it is."""
        return self.use is Use.COMPARE


class Flush(msgspec.Struct, frozen=True, gc=False):
    """Make all earlier writes durable."""


class Deallocate(msgspec.Struct, frozen=True, gc=False):
    """Make each range, offset and octets, read as zeroes."""

    ranges: tuple[tuple[int, int], ...]


class Fill(msgspec.Struct, frozen=True, gc=False):
    """Write ``block`` from an offset on, over so many octets."""

    offset: int
    octets: int
    block: bytes


class CompareAndWrite(msgspec.Struct, frozen=True, gc=False):
    """Write ``data`` where ``expected`` is found, with no other write between; MISCOMPARE otherwise."""

    offset: int
    expected: bytes
    data: bytes


class WriteAtomic(msgspec.Struct, frozen=True, gc=False):
    """Write all of ``data``, durable, or through a crash nothing: ``intend(offset, data)`` remembers it meanwhile."""

    offset: int
    data: bytes
    intend: Callable[[int, bytes], AbstractContextManager[None]]


class Check(msgspec.Struct, frozen=True, gc=False):
    """Read a range; where there is a ``block``, compare each block of the range with it."""

    offset: int
    octets: int
    block: bytes | None = None


class Found(Protocol):
    """Takes one run of a look-up: its octets, and whether it takes space."""

    def __call__(self, octets: int, mapped: bool, /) -> None: ...


class LookUp(msgspec.Struct, frozen=True, gc=False):
    """Tell of each run of octets from an offset on, to the end of the unit or until ``runs`` were told."""

    offset: int
    octets: int
    runs: int
    found: Found


class CopySegment(msgspec.Struct, frozen=True, gc=False):
    """Octets of one unit that are to be in another, or elsewhere in the same."""

    source_lun: int
    source_offset: int
    destination_lun: int
    destination_offset: int
    octets: int


class Copy(msgspec.Struct, frozen=True, gc=False):
    """Copy segments in their order; ``copied`` hears of each that is done."""

    segments: tuple[CopySegment, ...]
    copied: Callable[[int], None]  # octets


class Perform(msgspec.Struct, frozen=True, gc=False):
    """Call this, which may take as long as a disk does; it returns why it failed, None when it is done."""

    act: Callable[[], Sense | None]


class Erase(msgspec.Struct, frozen=True, gc=False):
    """Begin to overwrite the whole unit, whatever becomes of the session; ``begin`` gets what reaches the medium."""

    begin: Callable[[Any], Sense | None]


class Quiesce(msgspec.Struct, frozen=True, gc=False):
    """Abort the tasks that these nexuses have at a unit, and wait until nothing of them is under way on the medium."""

    victims: "tuple[Victim, ...]"


class Victim(Protocol):
    """One session's tasks at one unit."""

    def abort(self) -> None:
        """Let no task that has begun go on, from any thread, without waiting."""

    def await_quiet(self) -> None:
        """Return when nothing of what was aborted is under way on the medium."""


class Wants(msgspec.Struct, frozen=True, gc=False):
    """Take octets from the initiator (at most MAX_WANTED_OCTETS); the verdict on them is ``then(octets)``."""

    octets: int
    then: "Callable[[bytes], Verdict]"
    exact: bool = False  # an initiator that is about to send more is refused


class Then(msgspec.Struct, frozen=True, gc=False):
    """Do a deed; when it is done, and has not failed, the verdict is ``then()``."""

    deed: "Deed"
    then: "Callable[[], Verdict]"


Deed: TypeAlias = (
    Read | Flush | Deallocate | Fill | CompareAndWrite | WriteAtomic | Check | LookUp | Copy | Perform | Erase | Quiesce
)
Verdict: TypeAlias = Data | Sense | Conflict | Busy | Store | Wants | Then | Deed

MAX_WANTED_OCTETS = 1 << 18
GOOD = Data()
