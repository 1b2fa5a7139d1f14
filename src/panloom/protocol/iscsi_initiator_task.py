"""One SCSI command of an initiator, from the caller's wish to its outcome (RFC 7143 sections 4.2.5, 11.4, 11.7, 11.8).

┌─────────┐ window, CmdSN ┌──────┐ Data-In …, or R2T and Data-Out …, then status
│ WAITING │ ────────────▶ │ SENT │ ───────────────────────────────────────────────▶ Outcome
└─────────┘ ◀──────────── └──────┘
     the connection broke: it begins anew, and what has arrived is forgotten
"""

from enum import Enum, auto

import msgspec

from panloom.errors import MalformedError, PeerError
from panloom.protocol.iscsi_initiator_keys import Agreed
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import DataIn, Octets, ReadyToTransfer, ScsiResponse
from panloom.wire.scsi_cdb import CDB_OCTETS, Operation
from panloom.wire.scsi_sense import Sense

GOOD, CHECK_CONDITION, BUSY, TASK_SET_FULL = 0x00, 0x02, 0x08, 0x28  # status, SAM-5 5.3.1
UNIT_ATTENTION, NOT_READY = 0x06, 0x02  # sense keys, SPC-4 r37 table 48
BECOMING_READY = 0x0401  # SPC-4 r37 annex F
_LONGEST_SENSE_OCTETS = 260

# What may be sent twice, because doing it twice is doing it once: all that ``Operation`` names, and what only looks.
_LOOKS = (0x3C, 0x4D, 0x5E, 0x9B)  # READ BUFFER(10), LOG SENSE, PERSISTENT RESERVE IN, READ BUFFER(16)
REPEATABLE = frozenset((*Operation, *_LOOKS))


class CommandError(PeerError):
    """The unit refused a command, or failed at it: ``status`` as in SAM-5 5.3.1; ``sense`` None where it gives none."""

    def __init__(self, what: str, status: int, sense: Sense | None) -> None:
        self.status = status
        self.sense = sense
        why = f"sense {sense}" if sense else f"status {status:02X}"
        super().__init__(f"{what}: the target answers with {why}")


class CommandLostError(PeerError):
    """A command ended without an answer: whether it was carried out is not known."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """What is asked of a unit: data goes one way, or none.

    ``insistent``: ask again, a few times, where the unit only wants attention first or is busy; else that is the
    outcome.
    """

    lun: int
    cdb: bytes
    data_out: bytes = b""
    data_in_octets: int = 0
    insistent: bool = True

    def __post_init__(self) -> None:
        if not 6 <= len(self.cdb) <= CDB_OCTETS:
            raise ValueError(f"a command descriptor block has 6 … {CDB_OCTETS} octets, not {len(self.cdb)}")
        if self.data_out and self.data_in_octets:
            raise ValueError("a command with data in both directions is not supported")

    @property
    def repeatable(self) -> bool:
        """Whether the command may be sent anew when nobody knows if it was carried out."""
        return self.cdb[0] in REPEATABLE


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a command ended.

    ``data`` counts only with GOOD; tgtd sends some before a CHECK CONDITION, too.  ``residual``: octets that were
    expected and not transferred; negative: how many more the unit had.
    """

    status: int
    sense: Sense | None = None
    data: bytes = b""
    residual: int = 0


class Phase(Enum):
    """Where the command is; the picture is above."""

    WAITING = auto()
    SENT = auto()


class Task:
    """A command on its way; ``number`` is the caller's name for it."""

    __slots__ = (
        *("number", "command", "phase", "tag", "cmd_sn", "deadline", "attempts", "breaks"),
        *("_pieces", "_arrived", "_next_sn", "_sent"),
    )

    def __init__(self, number: int, command: Command) -> None:
        self.number = number
        self.command = command
        self.attempts = 0  # answered with "not now"
        self.breaks = 0  # connections that broke under it because of what the target said
        self.reset()

    def reset(self) -> None:
        """Be as new: nothing has been sent."""
        self.phase = Phase.WAITING
        self.tag = iscsi.NO_TAG
        self.cmd_sn = 0
        self.deadline = 0.0
        self._pieces: list[bytes] = []
        self._arrived = 0
        self._next_sn = 0  # of Data-In or R2T
        self._sent = 0  # octets of the data that have gone, or are allowed to go

    def begin(self, tag: int, cmd_sn: int, deadline: float) -> None:
        """Be sent."""
        self.phase, self.tag, self.cmd_sn, self.deadline = Phase.SENT, tag, cmd_sn, deadline

    def unasked(self, agreed: Agreed) -> tuple[int, int]:
        """Return how much data goes with the command, and up to where it follows without being asked for."""
        octets = len(self.command.data_out)
        first_burst = min(octets, agreed.first_burst_length)
        immediate = min(first_burst, agreed.max_send_octets) if agreed.immediate_data else 0
        self._sent = immediate if agreed.initial_r2t else first_burst
        return immediate, self._sent

    def asked(self, pdu: ReadyToTransfer, agreed: Agreed) -> tuple[int, int]:
        """Return from where to where the target asks for data; MalformedError where it may not."""
        start, octets = pdu.buffer_offset, pdu.desired_data_transfer_length
        end = start + octets
        if pdu.r2t_sn != self._next_sn or pdu.target_transfer_tag == iscsi.NO_TAG:
            raise MalformedError(f"R2TSN {pdu.r2t_sn} instead of {self._next_sn}, or an R2T without tag")
        if start != self._sent or not 0 < octets <= agreed.max_burst_length or end > len(self.command.data_out):
            raise MalformedError(f"an R2T for octets {start} to {end} of {len(self.command.data_out)}, not in order")
        self._next_sn += 1
        self._sent = end
        return start, end

    def take(self, pdu: DataIn) -> None:
        """Take data of a read; MalformedError for what is out of order, or too much."""
        if pdu.data_sn != self._next_sn or pdu.buffer_offset != self._arrived:
            raise MalformedError(
                f"DataSN {pdu.data_sn} at {pdu.buffer_offset} instead of {self._next_sn} at {self._arrived}"
            )
        self._next_sn += 1
        self._arrived += len(pdu.data)
        if self._arrived > self.command.data_in_octets:
            raise MalformedError(f"{self._arrived} octets of data for a read of {self.command.data_in_octets}")
        self._pieces.append(bytes(pdu.data))  # out of the buffer, which will be used again

    def outcome(self, pdu: DataIn | ScsiResponse) -> Outcome:
        """Return what the status in an answer makes of the command."""
        residual = 0
        if pdu.flags & iscsi.UNDERFLOW:
            residual = pdu.residual_count
        elif pdu.flags & iscsi.OVERFLOW:
            residual = -pdu.residual_count
        sense = _sense(pdu.data) if isinstance(pdu, ScsiResponse) and pdu.status == CHECK_CONDITION else None
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Outcome(pdu.status, sense, data, residual)


def _sense(data: Octets) -> Sense | None:
    """Return the sense data in a SCSI Response's segment (section 11.4.7); None where there is none to be read."""
    octets = bytes(data[: 2 + _LONGEST_SENSE_OCTETS])
    try:
        return scsi_sense.decode(octets[2 : 2 + int.from_bytes(octets[:2], "big")])
    except MalformedError:
        return None


class Refusal(Enum):
    """Why a unit has not done a command that it may do the next time."""

    ATTENTION = auto()  # it had something to tell first
    BUSY = auto()


def refusal(outcome: Outcome) -> Refusal | None:
    """Return why a command should be tried again; None: it should not."""
    sense = outcome.sense
    if sense is not None and sense.key == UNIT_ATTENTION:
        return Refusal.ATTENTION
    if sense is not None and (sense.key, sense.code) == (NOT_READY, BECOMING_READY):
        return Refusal.BUSY
    return Refusal.BUSY if outcome.status in (BUSY, TASK_SET_FULL) else None
