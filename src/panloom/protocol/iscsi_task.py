"""One SCSI command while it is under way: what its initiator still owes, and what is done on the medium for it.

    ┌─────────────┐  F, or all is there   ┌───────────┐  R2T   ┌───────────┐
    │ UNSOLICITED │ ────────────────────▶ │ COLLECTED │ ─────▶ │ SOLICITED │
    └─────────────┘                       └───────────┘ ◀───── └───────────┘
     only with InitialR2T=No               all is there: status     F

Data goes to the medium in whole blocks as it arrives; the rest of a block waits in the task for the next PDU.  Several
R2T may be outstanding (MaxOutstandingR2T); their bursts come in the order in which they were asked for.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeAlias

import msgspec

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.scsi_verdicts import (
    Busy,
    Check,
    CompareAndWrite,
    Conflict,
    Data,
    Deallocate,
    Erase,
    Fill,
    Flush,
    LookUp,
    Perform,
    Quiesce,
    Read,
    Store,
    Then,
    Use,
    Verdict,
    Wants,
    WriteAtomic,
)
from panloom.protocol.scsi_verdicts import Deed as UnitDeed
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import NO_TAG, DataOut, Octets, ScsiCommand
from panloom.wire.scsi_sense import Sense


class Write(msgspec.Struct, frozen=True, gc=False):
    """Write this, whole blocks."""

    offset: int
    data: Octets
    before: int = 0


class Compare(msgspec.Struct, frozen=True, gc=False):
    """Compare this, whole blocks, with the medium; ``before``: octets of the same command, for MISCOMPARE to tell."""

    offset: int
    data: Octets
    before: int = 0


class WriteAndVerify(msgspec.Struct, frozen=True, gc=False):
    """Write this, whole blocks, and compare what is then read."""

    offset: int
    data: Octets
    before: int = 0


class OrWrite(msgspec.Struct, frozen=True, gc=False):
    """Write this, whole blocks, combined by OR with what is there."""

    offset: int
    data: Octets
    before: int = 0


FromInitiator: TypeAlias = Write | Compare | WriteAndVerify | OrWrite
Deed: TypeAlias = FromInitiator | UnitDeed
_DEEDS: dict[Use, Callable[[int, Octets, int], Deed]] = {
    Use.WRITE: Write,
    Use.COMPARE: Compare,
    Use.VERIFY: WriteAndVerify,
    Use.COMBINE: OrWrite,
}


class Action(msgspec.Struct, frozen=True, gc=False):
    """Something to do on a unit's medium for a task.

    After ``Read`` whoever does it has also sent the Data-In PDUs, the last of them with GOOD and the task's residual.
    """

    lun: int
    deed: Deed
    task: "Task"


class Extent(msgspec.Struct, frozen=True, gc=False):
    """The part of a medium that a task touches, from an octet to before another."""

    start: int
    end: int
    writes: bool

    def disturbs(self, other: "Extent") -> bool:
        """Whether the order of the two matters."""
        return (self.writes or other.writes) and self.start < other.end and other.start < self.end


NOWHERE = Extent(0, 0, False)
_END = 1 << 80  # of every medium


def extent_of(what: "Verdict | Deed") -> Extent:
    """Return what a verdict or a deed touches; everything, for writing, where that cannot be said."""
    match what:
        case Read(offset, octets):
            return Extent(offset, offset + octets, writes=False)
        case Store(offset, octets) | Fill(offset, octets):
            return Extent(offset, offset + octets, writes=not (isinstance(what, Store) and what.compare))
        case Write(offset, data) | WriteAndVerify(offset, data) | OrWrite(offset, data) | WriteAtomic(offset, data):
            return Extent(offset, offset + len(data), writes=True)
        case CompareAndWrite(offset, _, data):
            return Extent(offset, offset + len(data), writes=True)
        case Compare(offset, data):
            return Extent(offset, offset + len(data), writes=False)
        case Check(offset, octets) | LookUp(offset, octets):
            return Extent(offset, offset + octets, writes=False)
        case Then(deed):
            return extent_of(deed)
        case Deallocate(ranges):
            ends = [offset + octets for offset, octets in ranges]
            return Extent(min((offset for offset, _ in ranges), default=0), max(ends, default=0), writes=True)
        case Flush():
            return Extent(0, _END, writes=False)
        case Sense() | Data() | Conflict() | Busy() | Perform() | Quiesce() | Erase():
            return NOWHERE
        case _:
            return Extent(0, _END, writes=True)


class Phase(Enum):
    """What the initiator may send for the task; the picture is above."""

    UNSOLICITED = auto()
    COLLECTED = auto()
    SOLICITED = auto()


class Task:
    """A command that was accepted and has no status yet."""

    def __init__(self, command: ScsiCommand, lun: int | None) -> None:
        self.initiator_task_tag = command.initiator_task_tag
        self.lun_field = command.lun
        self.immediate = command.immediate
        self.attribute = command.flags & 0x07
        self.lun = lun if lun is not None else -1  # -1 names no unit, and no verdict on it touches a medium
        length = command.expected_data_transfer_length
        self.expected_in = length if command.flags & iscsi.READ else 0
        self.expected_out = length if command.flags & iscsi.WRITE else 0
        self.residual_flags = 0
        self.residual_count = 0
        self.data_in_pdus = 0  # sent for it
        self.phase = Phase.UNSOLICITED
        self.sink: Store | Wants | None = None
        self.wanted = 0  # octets from the initiator, residual taken off
        self.arrived = 0
        self.flushed = False
        self.r2t_sn = 0
        self.extent = NOWHERE
        self.under_way = 0  # actions that are not performed yet
        self.sense: Sense | None = None  # why it has failed, while actions are still under way
        self.aborted = False
        self.plain_read = False  # one that the caller has begun by itself, as any other READ may be meanwhile
        self.dormant = False  # it waits for older tasks
        self.then: Callable[[], Verdict] | None = None  # the verdict once what is under way is done
        self.verdict: Verdict | None = None  # what it means; None: not known yet
        self.waiting: list[ScsiCommand | DataOut] = []  # what has come for it while it is dormant
        self.asked = 0  # octets that came, or were asked for
        self.writing = 0  # octets that came and are under way to the medium
        self._first_burst_end = 0
        self._bursts: deque[tuple[int, int]] = deque()  # asked for: target transfer tag and end
        self._data_sn = 0
        self._kept = b""  # a begun block, or all parameters so far

    def transfers(self, octets: int, expected: int) -> int:
        """Set the residual of a transfer of so many octets; return how many of them are transferred.

        RFC 7143 sections 4.5.1 and 11.4.1: overflow when the command has more than the initiator expects.
        """
        if octets > expected:
            self.residual_flags, self.residual_count = iscsi.OVERFLOW, octets - expected
        elif octets < expected:
            self.residual_flags, self.residual_count = iscsi.UNDERFLOW, expected - octets
        return min(octets, expected)

    def begin(self, sink: Store | Wants, command: ScsiCommand, *, first_burst: int) -> None:
        """Begin to collect data; ``first_burst``: how much may come without being asked for."""
        self.sink = sink
        self.wanted = self.transfers(sink.octets, self.expected_out)
        self._first_burst_end = min(first_burst, self.expected_out)
        if command.flags & iscsi.FINAL:
            self.phase = Phase.COLLECTED

    @staticmethod
    def wrong(command: ScsiCommand, parameters: SessionParameters) -> Sense | None:
        """Return what is wrong with the extent of a command or the data that came with it."""
        if command.ahs:  # a longer CDB, or a bidirectional command: no such command is supported
            return scsi_sense.INVALID_FIELD_IN_CDB
        octets = len(command.data)
        unsolicited = not command.flags & iscsi.FINAL and command.flags & iscsi.WRITE
        if (octets and not parameters.immediate_data) or (unsolicited and parameters.initial_r2t):
            return scsi_sense.UNEXPECTED_UNSOLICITED_DATA
        if octets > min(parameters.first_burst_length, command.expected_data_transfer_length):
            return scsi_sense.INCORRECT_AMOUNT_OF_DATA
        return None

    def too_short(self, block_octets: int) -> Sense | None:
        """Return why the data that the initiator expects to send cannot serve the command, if so.

        Fewer whole blocks than a WRITE names are written and the residual tells; a part of a block would have to be
        acknowledged without being written, so nothing is, as FCP-4 allows for FCP_DL and Linux and libiscsi expect.
        """
        if isinstance(self.sink, Wants):
            if self.sink.exact and self.expected_out > self.sink.octets:
                return scsi_sense.INVALID_FIELD_IN_CDB
            return scsi_sense.PARAMETER_LIST_LENGTH if self.wanted < self.sink.octets else None
        return scsi_sense.INVALID_FIELD_IN_COMMAND_IU if self.wanted % block_octets else None

    def began(self, deed: "Deed") -> None:
        """Take note that something is to be done for it."""
        self.under_way += 1
        self.writing += len(deed.data) if isinstance(deed, FromInitiator) else 0

    def ended(self, deed: "Deed") -> None:
        """Take note that it has been done, or will not be."""
        self.under_way -= 1
        self.writing -= len(deed.data) if isinstance(deed, FromInitiator) else 0

    @property
    def in_hand(self) -> int:
        """Return how many octets it may fill in our memory."""
        return self.writing + max(0, self.asked - self.arrived)

    def may_solicit(self, *, max_outstanding: int) -> bool:
        """Whether another R2T may go out."""
        if self.sink is None or self.sense is not None or self.aborted:
            return False
        if self.phase is Phase.UNSOLICITED or len(self._bursts) >= max_outstanding:
            return False
        return max(self.asked, self.arrived) < self.wanted

    def solicit(self, target_transfer_tag: int, *, max_burst: int) -> tuple[int, int]:
        """Ask for the next burst; return its offset and length."""
        if self.phase is not Phase.SOLICITED:
            self.phase = Phase.SOLICITED
            self._data_sn = 0
        offset = max(self.asked, self.arrived)
        self.asked = min(offset + max_burst, self.wanted)
        self._bursts.append((target_transfer_tag, self.asked))
        return offset, self.asked - offset

    def check(self, pdu: DataOut) -> Sense | None:
        """Return what is wrong with a Data-Out of this task, and end its burst where it is the last."""
        tag, burst_end = self._bursts[0] if self._bursts else (NO_TAG, self._first_burst_end)
        if self.phase is Phase.COLLECTED or pdu.target_transfer_tag != tag:
            return scsi_sense.UNEXPECTED_UNSOLICITED_DATA
        if pdu.data_sn != self._data_sn or pdu.buffer_offset != self.arrived:
            return scsi_sense.DATA_OUT_OF_ORDER
        end = self.arrived + len(pdu.data)
        early = self.phase is Phase.SOLICITED and pdu.flags & iscsi.FINAL and end < burst_end
        if end > burst_end or early:
            return scsi_sense.INCORRECT_AMOUNT_OF_DATA
        self._data_sn += 1
        if pdu.flags & iscsi.FINAL or end == burst_end:
            self._data_sn = 0  # RFC 7143 section 11.7.5: it starts anew with every burst
            if self._bursts:
                self._bursts.popleft()
            if not self._bursts:
                self.phase = Phase.COLLECTED
        return None

    def take(self, data: Octets, block_octets: int) -> "Deed | None":
        """Take the next data; return what is now to be done with it."""
        before, self.arrived = self.arrived, self.arrived + len(data)
        if self.arrived > self.wanted:  # the initiator sends all that it announced, the command wants less
            data = memoryview(data)[: max(0, self.wanted - before)]
        if isinstance(self.sink, Wants):
            self._kept += bytes(data)
            return None
        if self.sink is None or not len(data):
            return None
        offset = self.sink.offset + before - len(self._kept)
        if self._kept:
            data = self._kept + bytes(data)
        whole = len(data) - len(data) % block_octets
        self._kept = bytes(data[whole:])
        if not whole:
            return None
        return _DEEDS[self.sink.use](offset, memoryview(data)[:whole], offset - self.sink.offset)

    @property
    def complete(self) -> bool:
        """Whether all that is wanted has arrived."""
        return self.arrived >= self.wanted

    @property
    def parameters(self) -> bytes:
        """Return the data of a command that wanted parameters."""
        return self._kept
