"""One connection of an initiator in full feature phase, error recovery level 0 (RFC 7143 sections 4 and 11).

    start(task) ──▶ waits for its turn in the command window ──▶ ``output`` ──▶ … ──▶ ``finished``

    WRITE:  command ──▶ immediate data ──▶ unsolicited Data-Out … F ──▶ R2T ──▶ Data-Out … F ──▶ R2T ──▶ … ──▶ status
            (ImmediateData)      (InitialR2T=No)              each at most MaxBurstLength

Every way in may raise PeerError: the target has broken the rules, or does not answer; the connection is then over, and
``unanswered`` says whom it leaves behind.
"""

import math
from collections import deque
from enum import Enum, auto

import msgspec

from panloom.errors import MalformedError, PeerError, RefusedError
from panloom.protocol.iscsi_initiator_keys import Agreed
from panloom.protocol.iscsi_initiator_task import CommandLostError, Outcome, Phase, Task
from panloom.protocol.serial_number import after, ahead
from panloom.wire import iscsi
from panloom.wire.iscsi import (
    FINAL,
    NO_TAG,
    AsyncMessage,
    DataIn,
    DataOut,
    LogoutResponse,
    NopIn,
    Octets,
    Pdu,
    ReadyToTransfer,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskManagementResponse,
    TextResponse,
    lun_field,
)
from panloom.wire.iscsi_stream import frame

MAX_ECHOES = 64  # answers to the target's pings that wait to be sent; more is an attack
MAX_TEXT_OCTETS = 1 << 20  # in an answer to SendTargets, over all its PDUs
SIMPLE = 0x01  # task attribute, section 11.3.1

# Functions of task management (section 11.5.1), and their responses (section 11.6.1)
ABORT_TASK, LOGICAL_UNIT_RESET = 1, 5
FUNCTION_COMPLETE, NO_SUCH_TASK = 0, 1

# Events of an asynchronous message (section 11.9.1)
LOGOUT_WANTED, CONNECTION_DROPPED, SESSION_DROPPED, NEGOTIATION_WANTED = 1, 2, 3, 4

# Reasons of Reject (section 11.17.1)
DATA_DIGEST_ERROR = 0x02


class Timing(msgspec.Struct, frozen=True, gc=False):
    """How patient an initiator is; all in seconds.

    ``ping_seconds`` of silence make it ask whether the target is there, and it waits ``answer_seconds`` for that, for
    the answer to an abort, and for that to a logout.
    """

    login_seconds: float = 15.0
    ping_seconds: float = 5.0
    answer_seconds: float = 5.0
    command_seconds: float = 60.0
    reconnect_seconds: float = 30.0


class State(Enum):
    """Whether the connection carries commands."""

    OPEN = auto()
    LOGGING_OUT = auto()
    LOGGED_OUT = auto()


class Managing(msgspec.Struct, frozen=True):
    """A task management function that waits for its response: an abort of ``task``, or a reset that the caller wants.

    ``number`` is the caller's name for it.
    """

    deadline: float
    task: Task | None = None
    lun: int = 0
    number: int = 0


class InitiatorConnection:
    """What an initiator and a target say to each other after a login."""

    def __init__(
        self,
        agreed: Agreed,
        timing: Timing,
        *,
        cmd_sn: int,
        exp_stat_sn: int,
        max_cmd_sn: int,
        now: float,
    ) -> None:
        self.agreed = agreed
        self.state = State.OPEN
        self.output: deque[tuple[Octets, ...]] = deque()  # a PDU each
        self.finished: list[tuple[Task, Outcome | PeerError]] = []
        self.managed: list[tuple[int, PeerError | None]] = []  # resets, by the caller's number
        self.text: bytes | None = None  # the whole answer to ``ask``
        self.notes: list[str] = []  # what somebody may want to read in a log
        self.wants_logout = False  # the target does
        self.time2wait_seconds = agreed.time2wait_seconds  # before the next login
        self.cmd_sn = cmd_sn  # of our next command
        self.exp_stat_sn = exp_stat_sn
        self.max_cmd_sn = max_cmd_sn
        self._exp_cmd_sn = cmd_sn
        self._timing = timing
        self._waiting: deque[Task] = deque()
        self._sent: dict[int, Task] = {}  # by tag, the oldest first
        self._aborting: dict[int, Task] = {}  # by tag: nobody waits for their outcome
        self._managing: dict[int, Managing] = {}  # by tag
        self._forgotten: set[int] = set()  # tags of commands that were rejected; an answer may follow
        self._heard_at = now
        self._ping_tag: int | None = None
        self._ping_deadline = math.inf
        self._logout_deadline = math.inf
        self._text_tag: int | None = None
        self._text = b""
        self._last_tag = 0
        self._echoes = 0

    # -- what the caller wants -----------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no command is under way."""
        return not self._sent and not self._waiting

    @property
    def deadline(self) -> float:
        """When ``handle_timer`` has something to do."""
        if self.state is not State.OPEN:
            return self._logout_deadline
        due = self._heard_at + self._timing.ping_seconds if self._ping_tag is None else self._ping_deadline
        oldest = next(iter(self._sent.values()), None)
        managing = next(iter(self._managing.values()), None)
        return min(
            due,
            oldest.deadline if oldest else math.inf,
            managing.deadline if managing else math.inf,
        )

    def start(self, task: Task, now: float) -> None:
        """Send a command as soon as the target's window allows."""
        self._waiting.append(task)
        self._send_waiting(now)

    def cancel(self, task: Task, now: float) -> None:
        """Forget a command; where it has been sent, have the target abort it."""
        if task.phase is Phase.WAITING:
            self._waiting.remove(task)
            return
        del self._sent[task.tag]
        self._aborting[task.tag] = task
        self._manage(ABORT_TASK, Managing(now + self._timing.answer_seconds, task=task))

    def reset_unit(self, lun: int, number: int, now: float) -> None:
        """Have the target abort every command to a unit (LOGICAL UNIT RESET)."""
        self._manage(LOGICAL_UNIT_RESET, Managing(now + self._timing.answer_seconds, lun=lun, number=number))

    def ask(self, text: bytes) -> None:
        """Send a text request; the answer comes into ``text``."""
        self._text_tag = self._new_tag()
        self._ask(text)

    def log_out(self, now: float) -> None:
        """Close the session; what is under way will not be answered any more."""
        self.state = State.LOGGING_OUT
        self._logout_deadline = now + self._timing.answer_seconds
        self._send(
            iscsi.LogoutRequest(
                initiator_task_tag=self._new_tag(), cmd_sn=self.cmd_sn, exp_stat_sn=self.exp_stat_sn, immediate=True
            )
        )

    def unanswered(self) -> tuple[Task, ...]:
        """Return the commands that have no outcome, in the order in which they were to be carried out."""
        return (*self._sent.values(), *self._waiting)

    def handle_timer(self, now: float) -> None:
        """Do what is due: ask whether the target is there, give up on commands; PeerError when it does not answer."""
        if self.state is not State.OPEN:
            if now >= self._logout_deadline:
                raise CommandLostError("no answer to the logout")
            return
        if now >= self._ping_deadline:
            raise CommandLostError(f"no answer to a ping in {self._timing.answer_seconds:g} s")
        if any(now >= managing.deadline for managing in self._managing.values()):
            raise CommandLostError(f"no answer to an abort in {self._timing.answer_seconds:g} s")
        for task in tuple(self._sent.values()):
            if now < task.deadline:
                break
            self.cancel(task, now)
            why = f"no answer in {self._timing.command_seconds:g} s; the command was aborted"
            self.finished.append((task, CommandLostError(why)))
        if self._ping_tag is None and now >= self._heard_at + self._timing.ping_seconds:
            self._ping_tag = self._new_tag()
            self._ping_deadline = now + self._timing.answer_seconds
            self._send(
                iscsi.NopOut(
                    initiator_task_tag=self._ping_tag, cmd_sn=self.cmd_sn, exp_stat_sn=self.exp_stat_sn, immediate=True
                )
            )

    # -- what the target says ------------------------------------------------------------------------------------

    def receive(self, pdu: Pdu, now: float) -> None:
        """Take a PDU; its data may be a view that is valid only during the call."""
        self._heard_at = now
        match pdu:
            case DataIn():
                self._data_in(pdu)
            case ScsiResponse():
                self._response(pdu)
            case ReadyToTransfer():
                self._ready_to_transfer(pdu)
            case NopIn():
                self._nop_in(pdu)
            case TaskManagementResponse():
                self._count(pdu.stat_sn)
                self._managed(pdu.initiator_task_tag, pdu.response)
            case TextResponse():
                self._count(pdu.stat_sn)
                self._text_response(pdu)
            case LogoutResponse():
                self._count(pdu.stat_sn)
                if self.state is not State.LOGGING_OUT:
                    raise MalformedError("a logout response that nobody has asked for")
                self.state = State.LOGGED_OUT
            case AsyncMessage():
                self._count(pdu.stat_sn)
                self._async_message(pdu, now)
            case Reject():
                self._count(pdu.stat_sn)
                self._reject(pdu)
            case _:
                raise MalformedError(f"{type(pdu).__name__} in full feature phase")
        self._take_window(pdu.exp_cmd_sn, pdu.max_cmd_sn, now)

    def _count(self, stat_sn: int) -> None:
        if stat_sn != self.exp_stat_sn:
            raise MalformedError(f"StatSN {stat_sn} instead of {self.exp_stat_sn}")
        self.exp_stat_sn = after(stat_sn)

    def _take_window(self, exp_cmd_sn: int, max_cmd_sn: int, now: float) -> None:
        """Note how many commands the target takes (section 4.2.2.1)."""
        if ahead(max_cmd_sn, exp_cmd_sn) < -1:
            return
        if ahead(exp_cmd_sn, self._exp_cmd_sn) > 0:
            if ahead(exp_cmd_sn, self.cmd_sn) > 0:
                raise MalformedError(f"ExpCmdSN {exp_cmd_sn}, but command {self.cmd_sn} has not been sent")
            self._exp_cmd_sn = exp_cmd_sn
        if ahead(max_cmd_sn, self.max_cmd_sn) > 0:
            self.max_cmd_sn = max_cmd_sn
            self._send_waiting(now)

    def _under_way(self, tag: int) -> Task:
        task = self._sent.get(tag) or self._aborting.get(tag)
        if task is None:
            raise MalformedError(f"an answer to a command that is not under way, {tag:#x}")
        return task

    def _data_in(self, pdu: DataIn) -> None:
        last = bool(pdu.flags & iscsi.DATA_IN_STATUS)
        if last:
            self._count(pdu.stat_sn)
        if pdu.initiator_task_tag in self._forgotten:
            return
        task = self._under_way(pdu.initiator_task_tag)
        task.take(pdu)
        if last:
            self._finish(task, task.outcome(pdu))

    def _response(self, pdu: ScsiResponse) -> None:
        self._count(pdu.stat_sn)
        tag = pdu.initiator_task_tag
        if tag in self._forgotten:
            self._forgotten.discard(tag)
            return
        task = self._under_way(tag)
        if pdu.response:  # section 11.4.3: not completed at the target
            why = f"the target could not carry the command out (response {pdu.response:02X})"
            self._finish(task, CommandLostError(why))
        else:
            self._finish(task, task.outcome(pdu))

    def _finish(self, task: Task, outcome: Outcome | PeerError) -> None:
        if self._sent.pop(task.tag, None) is not None:
            self.finished.append((task, outcome))
        else:
            del self._aborting[task.tag]

    def _ready_to_transfer(self, pdu: ReadyToTransfer) -> None:
        if pdu.initiator_task_tag in self._forgotten:
            return
        task = self._under_way(pdu.initiator_task_tag)
        start, end = task.asked(pdu, self.agreed)
        self._send_data(task, start, end, pdu.target_transfer_tag)

    def _nop_in(self, pdu: NopIn) -> None:
        if pdu.initiator_task_tag != NO_TAG:
            self._count(pdu.stat_sn)
            if pdu.initiator_task_tag != self._ping_tag:
                raise MalformedError("an answer to a ping that was not sent")
            self._ping_tag, self._ping_deadline = None, math.inf
        elif pdu.target_transfer_tag != NO_TAG and self.state is State.OPEN:
            self._echoes += 1
            if self._echoes > MAX_ECHOES:
                raise RefusedError("the target pings faster than it takes the answers")
            self._send(
                iscsi.NopOut(
                    lun=pdu.lun,
                    initiator_task_tag=NO_TAG,
                    target_transfer_tag=pdu.target_transfer_tag,
                    cmd_sn=self.cmd_sn,
                    exp_stat_sn=self.exp_stat_sn,
                    immediate=True,
                    data=bytes(pdu.data[: self.agreed.max_send_octets]),
                )
            )

    def _managed(self, tag: int, response: int) -> None:
        managing = self._managing.pop(tag, None)
        if managing is None:
            raise MalformedError("a task management response that nobody has asked for")
        if managing.task is not None:
            if response not in (FUNCTION_COMPLETE, NO_SUCH_TASK):
                raise RefusedError(f"the target does not abort a command (response {response:02X})")
            self._aborting.pop(managing.task.tag, None)
            return
        if response != FUNCTION_COMPLETE:
            why = RefusedError(f"the target does not reset unit {managing.lun} (response {response:02X})")
            self.managed.append((managing.number, why))
            return
        lost = CommandLostError(f"unit {managing.lun} was reset while the command was under way")
        for task in [task for task in self._sent.values() if task.command.lun == managing.lun]:
            self._finish(task, lost)
        self.managed.append((managing.number, None))

    def _text_response(self, pdu: TextResponse) -> None:
        if pdu.initiator_task_tag != self._text_tag:
            raise MalformedError("a text response that nobody has asked for")
        self._text += bytes(pdu.data)
        if len(self._text) > MAX_TEXT_OCTETS:
            raise MalformedError("a text response without end")
        if pdu.flags & FINAL:
            self.text, self._text, self._text_tag = self._text, b"", None
        elif pdu.target_transfer_tag == NO_TAG:
            raise MalformedError("a text response that is neither the last nor goes on")
        else:
            self._ask(b"", pdu.target_transfer_tag)

    def _async_message(self, pdu: AsyncMessage, now: float) -> None:
        match pdu.async_event:
            case event if event in (LOGOUT_WANTED, NEGOTIATION_WANTED):
                self.wants_logout = True
                if self.state is State.OPEN:
                    self.log_out(now)
            case event if event in (CONNECTION_DROPPED, SESSION_DROPPED):
                self.time2wait_seconds = pdu.parameter2
                raise CommandLostError("the target says that it drops the connection")
            case event:
                self.notes.append(f"the target tells event {event}, code {pdu.async_vcode}, of LUN field {pdu.lun:#x}")

    def _reject(self, pdu: Reject) -> None:
        """Take the refusal of something that we have sent (section 11.17)."""
        if pdu.reason == DATA_DIGEST_ERROR or len(pdu.data) < iscsi.HEADER_OCTETS:
            raise RefusedError(f"the target rejects what we sent (reason {pdu.reason:02X})")
        opcode, tag = pdu.data[0] & 0x3F, int.from_bytes(pdu.data[16:20], "big")
        why = RefusedError(f"the target rejects the command (reason {pdu.reason:02X})")
        if opcode in (ScsiCommand.OPCODE, DataOut.OPCODE) and tag in (*self._sent, *self._aborting):
            self._forgotten.add(tag)
            self._finish(self._under_way(tag), why)
        elif opcode == iscsi.NopOut.OPCODE and tag in (self._ping_tag, NO_TAG):
            self._ping_tag, self._ping_deadline = None, math.inf  # it is there
        else:
            raise RefusedError(f"the target rejects a PDU with opcode {opcode:#04x} (reason {pdu.reason:02X})")

    # -- what we send --------------------------------------------------------------------------------------------

    def taken(self) -> tuple[Octets, ...] | None:
        """Return the next PDU to send, and forget it; None when there is none."""
        if not self.output:
            self._echoes = 0
            return None
        return self.output.popleft()

    def _send_waiting(self, now: float) -> None:
        while self._waiting and self.state is State.OPEN and ahead(self.max_cmd_sn, self.cmd_sn) >= 0:
            task = self._waiting.popleft()
            task.begin(self._new_tag(), self.cmd_sn, now + self._timing.command_seconds)
            self._sent[task.tag] = task
            self.cmd_sn = after(self.cmd_sn)
            self._send_command(task)

    def _send_command(self, task: Task) -> None:
        command = task.command
        flags = FINAL | SIMPLE
        if command.data_in_octets:
            flags |= iscsi.READ
        immediate = unsolicited = 0
        if command.data_out:
            flags |= iscsi.WRITE
            immediate, unsolicited = task.unasked(self.agreed)
            if unsolicited > immediate:
                flags &= ~FINAL
        self._send(
            ScsiCommand(
                flags=flags,
                lun=lun_field(command.lun),
                initiator_task_tag=task.tag,
                expected_data_transfer_length=len(command.data_out) or command.data_in_octets,
                cmd_sn=task.cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
                cdb=command.cdb.ljust(16, b"\0"),
                data=memoryview(command.data_out)[:immediate] if immediate else b"",
            )
        )
        if unsolicited > immediate:
            self._send_data(task, immediate, unsolicited, NO_TAG)

    def _send_data(self, task: Task, start: int, end: int, target_transfer_tag: int) -> None:
        """Send a sequence of Data-Out PDUs, the last of them with F."""
        data, limit = memoryview(task.command.data_out), self.agreed.max_send_octets
        for data_sn, offset in enumerate(range(start, end, limit)):
            stop = min(offset + limit, end)
            self._send(
                DataOut(
                    flags=FINAL if stop == end else 0,
                    lun=lun_field(task.command.lun),
                    initiator_task_tag=task.tag,
                    target_transfer_tag=target_transfer_tag,
                    exp_stat_sn=self.exp_stat_sn,
                    data_sn=data_sn,
                    buffer_offset=offset,
                    data=data[offset:stop],
                )
            )

    def _manage(self, function: int, managing: Managing) -> None:
        tag = self._new_tag()
        self._managing[tag] = managing
        task = managing.task
        self._send(
            iscsi.TaskManagementRequest(
                flags=FINAL | function,
                lun=lun_field(task.command.lun if task else managing.lun),
                initiator_task_tag=tag,
                referenced_task_tag=task.tag if task else NO_TAG,
                cmd_sn=self.cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
                ref_cmd_sn=task.cmd_sn if task else 0,
            )
        )

    def _ask(self, text: bytes, target_transfer_tag: int = NO_TAG) -> None:
        self._send(
            iscsi.TextRequest(
                initiator_task_tag=self._text_tag if self._text_tag is not None else NO_TAG,
                target_transfer_tag=target_transfer_tag,
                cmd_sn=self.cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
                immediate=True,
                data=text,
            )
        )

    def _new_tag(self) -> int:
        while True:
            self._last_tag = (self._last_tag + 1) % NO_TAG
            if self._last_tag not in self._sent and self._last_tag not in self._forgotten:
                return self._last_tag

    def _send(self, pdu: Pdu) -> None:
        self.output.append(frame(pdu, header_digest=self.agreed.header_digest, data_digest=self.agreed.data_digest))
