"""A session in full feature phase, the target's side: one connection, error recovery level 0 (RFC 7143 sections 4, 11).

    receive(pdu)  ─┬─▶ None                nothing to do; the answers, if any, are in ``output``
                   └─▶ an Action           the caller does it on the medium, then
    performed(sense or None)  ─┬─▶ None    … and so on, until nothing is left to do
                               └─▶ an Action

    WRITE whose data does not all come at once:

      command ──▶ immediate data ──▶ unsolicited Data-Out … F ──▶ R2T ──▶ Data-Out … F ──▶ R2T ──▶ … ──▶ status
                  (ImmediateData)    (InitialR2T=No)              at most MaxBurstLength each, one under way

One action is under way at a time and commands are carried out in the order of their CmdSN, so a task that waits only
ever waits for its initiator's data: aborting it is forgetting it, and no octet of it is written afterwards.

The caller may answer READ and WRITE commands by itself, for speed, as long as it keeps ``exp_cmd_sn`` and ``stat_sn``
and leaves to the session whatever ``must_see`` claims.
"""

from collections import deque
from typing import TypeAlias, TypedDict

import msgspec

from panloom.errors import MalformedError
from panloom.protocol import scsi_disk
from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_login import COMMAND_WINDOW
from panloom.protocol.iscsi_task import Action, Deed, Phase, Task
from panloom.protocol.scsi_disk import Data, LogicalUnits, Read, Store, Verdict, Wants
from panloom.protocol.send_targets import answers
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import (
    NO_TAG,
    DataOut,
    LogoutRequest,
    NopOut,
    Octets,
    Pdu,
    ScsiCommand,
    Snack,
    TaskManagementRequest,
    TextRequest,
    lun_number,
)
from panloom.wire.iscsi_text import decode_text, encode_text
from panloom.wire.scsi_sense import Sense

MAX_TASKS = 2 * COMMAND_WINDOW  # immediate commands are outside the window, but not without end
MAX_HELD_OCTETS = 1 << 20  # of commands that came before their turn
BLOCK_OCTETS = 512
CHECK_CONDITION = 0x02  # status, SAM-5 5.3.1

# Reasons of Reject (section 11.17.1)
SNACK_REJECT, PROTOCOL_ERROR, NOT_SUPPORTED, TOO_MANY_IMMEDIATE = 0x03, 0x04, 0x05, 0x06
TASK_IN_PROGRESS, INVALID_FIELD = 0x07, 0x09

# Task management: functions (section 11.5.1) and responses (section 11.6.1)
ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TASK_REASSIGN = 1, 2, 4, 5, 6, 8
FUNCTION_COMPLETE, NO_SUCH_TASK, NO_SUCH_LUN, NO_REASSIGNMENT, FUNCTION_NOT_SUPPORTED = 0, 1, 2, 4, 5

# Logout: reasons (section 11.14.1) and responses (section 11.15.1)
CLOSE_SESSION, CLOSE_CONNECTION = 0, 1
CLOSED, NO_SUCH_CONNECTION, NO_RECOVERY = 0, 1, 2

_Numbered: TypeAlias = NopOut | ScsiCommand | TaskManagementRequest | TextRequest | LogoutRequest


class _Numbers(TypedDict):
    """The sequence numbers that every answer carries."""

    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


class IscsiSession:
    """What an initiator and a target know of each other; ``units`` None makes it a discovery session.

    ``targets`` are the (name, portal) pairs that SendTargets tells.
    """

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        cid: int,
        exp_cmd_sn: int,
        stat_sn: int,
        units: LogicalUnits | None,
        targets: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.parameters = parameters
        self.exp_cmd_sn = exp_cmd_sn
        self.stat_sn = stat_sn  # of our next answer
        self.output: list[bytes] = []
        self.closing: str | None = None  # why the connection ends once ``output`` is sent
        self.pings_answered = 0
        self._discovers = units is None
        self._units = units or LogicalUnits({})
        self._cid = cid
        self._targets = targets
        self._tasks: dict[int, Task] = {}  # by initiator task tag
        self._inbox: deque[_Numbered] = deque()  # in order, to be carried out
        self._held: dict[int, _Numbered] = {}  # by CmdSN, before their turn
        self._held_octets = 0
        self._performing: Task | None = None
        self._ping: int | None = None  # the tag of one that is not yet answered
        self._last_tag = 0
        self._text = b""  # the rest of an answer
        self._text_tag = NO_TAG

    # -- what the caller sees ------------------------------------------------------------------------------------

    @property
    def max_cmd_sn(self) -> int:
        """Return MaxCmdSN: tasks that wait for data narrow the window."""
        return (self.exp_cmd_sn + COMMAND_WINDOW - 1 - len(self._tasks)) & 0xFFFFFFFF

    def must_see(self, initiator_task_tag: int) -> bool:
        """Whether even a plain READ or WRITE with this tag, the next in order, has to go through ``receive``."""
        unusual = bool(self._units.attentions) or bool(self._held) or initiator_task_tag in self._tasks
        return unusual or initiator_task_tag == NO_TAG

    def receive(self, pdu: Pdu) -> Action | None:
        """Take a PDU; its data may be a view that is valid only until the last action that it leads to is performed."""
        if self.closing is not None:
            return None
        match pdu:
            case DataOut():
                return self._data_out(pdu)
            case NopOut() | ScsiCommand() | TaskManagementRequest() | TextRequest() | LogoutRequest():
                self._order(pdu)
                return self._next()
            case Snack():
                self.reject(SNACK_REJECT, pdu)
            case _:
                self.end(f"{type(pdu).__name__} in full feature phase", pdu)
        return None

    def performed(self, sense: Sense | None) -> Action | None:
        """Go on after an action: ``sense`` says why it failed, None that it is done."""
        task, self._performing = self._performing, None
        if task is None:
            raise ValueError("no action is under way")
        if sense is not None:
            self._finish(task, sense)
            return self._next()
        return self._go_on(task) or self._next()

    def ping(self) -> None:
        """Ask whether the initiator is there (NOP-In), unless the last such question is still open."""
        if self._ping is None:
            self._ping = self._new_tag()
            self._send(iscsi.NopIn(target_transfer_tag=self._ping, **self._numbers(advance=False)))

    def resize(self, lun: int, blocks: int) -> None:
        """Let a unit have that many blocks from the next command on, which is told of it."""
        self._units.resize(lun, blocks)

    def end(self, why: str, refused: Pdu | Octets) -> None:
        """Refuse a PDU, or its header, for good: Reject, and the connection ends."""
        self.reject(PROTOCOL_ERROR, refused)
        self.closing = why

    def reject(self, reason: int, refused: Pdu | Octets) -> None:
        """Refuse one PDU, given as a value or by its header."""
        octets = iscsi.encode(refused) if isinstance(refused, Pdu) else bytes(refused)
        self._send(iscsi.Reject(reason=reason, data=octets[: iscsi.HEADER_OCTETS], **self._numbers()))

    # -- order ---------------------------------------------------------------------------------------------------

    def _order(self, pdu: _Numbered) -> None:
        """Put a PDU, and those that waited for it, into the inbox (section 4.2.2.1)."""
        if pdu.immediate:
            self._inbox.append(pdu)
            return
        ahead = (pdu.cmd_sn - self.exp_cmd_sn) & 0xFFFFFFFF
        if ahead > (self.max_cmd_sn - self.exp_cmd_sn) & 0xFFFFFFFF or pdu.cmd_sn in self._held:
            return  # outside the window, or there already: to be ignored without a word
        if ahead:
            self._hold(pdu)
            return
        self._held[pdu.cmd_sn] = pdu
        while self.exp_cmd_sn in self._held:
            self._inbox.append(self._held.pop(self.exp_cmd_sn))
            self.exp_cmd_sn = (self.exp_cmd_sn + 1) & 0xFFFFFFFF
        if not self._held:
            self._held_octets = 0

    def _hold(self, pdu: _Numbered) -> None:
        """Keep a PDU until its turn; one connection over TCP brings this about only for odd initiators."""
        kept = pdu
        if isinstance(pdu, ScsiCommand | NopOut | TextRequest):
            self._held_octets += len(pdu.data)
            kept = msgspec.structs.replace(pdu, data=bytes(pdu.data))  # the caller's buffer will be used again
        if self._held_octets > MAX_HELD_OCTETS or (isinstance(pdu, ScsiCommand) and not pdu.flags & iscsi.FINAL):
            self.end("a command before its turn with too much data", pdu)
            return
        self._held[pdu.cmd_sn] = kept

    def _next(self) -> Action | None:
        """Carry out what is in the inbox, up to the next action."""
        while self._inbox and self.closing is None:
            pdu = self._inbox.popleft()
            match pdu:
                case ScsiCommand():
                    action = self._command(pdu)
                    if action:
                        return action
                case NopOut():
                    self._nop_out(pdu)
                case TaskManagementRequest():
                    self._manage(pdu)
                case TextRequest():
                    self._text_request(pdu)
                case LogoutRequest():
                    self._logout(pdu)
        return None

    # -- SCSI commands -------------------------------------------------------------------------------------------

    def _command(self, command: ScsiCommand) -> Action | None:
        tag = command.initiator_task_tag
        if self._discovers:
            self.end("a SCSI command in a discovery session", command)
        elif tag in self._tasks or tag == NO_TAG:
            self.reject(TASK_IN_PROGRESS if tag in self._tasks else INVALID_FIELD, command)
        elif len(self._tasks) >= MAX_TASKS:
            self.reject(TOO_MANY_IMMEDIATE, command)
        else:
            lun = lun_number(command.lun)
            task = Task(command, lun)
            self._tasks[tag] = task
            wrong = self._wrong_data(command)
            return self._follow(task, wrong or self._units.interpret(lun, command.cdb), command)
        return None

    def _wrong_data(self, command: ScsiCommand) -> Sense | None:
        """Return what is wrong with the extent or the data of a command."""
        if command.ahs:  # a longer CDB, or a bidirectional command: no such command is supported
            return scsi_sense.INVALID_FIELD_IN_CDB
        parameters, octets = self.parameters, len(command.data)
        unsolicited = not command.flags & iscsi.FINAL and command.flags & iscsi.WRITE
        if (octets and not parameters.immediate_data) or (unsolicited and parameters.initial_r2t):
            return scsi_sense.UNEXPECTED_UNSOLICITED_DATA
        if octets > min(parameters.first_burst_length, command.expected_data_transfer_length):
            return scsi_sense.INCORRECT_AMOUNT_OF_DATA
        return None

    def _follow(self, task: Task, verdict: Verdict, command: ScsiCommand | None = None) -> Action | None:
        """Do what a verdict says; ``command`` as long as data may come with it."""
        match verdict:
            case Sense():
                self._finish(task, verdict)
                return None
            case Data(octets):
                self._data_in(task, octets)
                return None
            case Read(offset, octets, flush):
                return self._perform(task, Read(offset, task.transfers(octets, task.expected_in), flush))
            case Store() | Wants() if command is not None:
                task.begin(verdict, command, first_burst=self.parameters.first_burst_length)
                if (short := task.too_short(BLOCK_OCTETS)) is not None:
                    self._finish(task, short)
                    return None
                write = task.take(command.data, BLOCK_OCTETS)
                return self._perform(task, write) if write else self._go_on(task)
            case Store() | Wants():
                raise ValueError("a command asks for data twice")
            case _:
                if command is not None:
                    # With both flags and no AHS one length stands for both directions.
                    task.transfers(0, max(task.expected_in, task.expected_out))
                return self._perform(task, verdict)

    def _perform(self, task: Task, deed: Deed) -> Action:
        self._performing = task
        return Action(task.lun, deed, task)

    def _data_out(self, pdu: DataOut) -> Action | None:
        task = self._tasks.get(pdu.initiator_task_tag)
        if task is None:
            return None  # of a task that was aborted or has failed: its data may still be under way
        wrong = task.check(pdu)
        if wrong is not None:
            self._finish(task, wrong)
            return None
        write = task.take(pdu.data, BLOCK_OCTETS)
        return self._perform(task, write) if write else self._go_on(task)

    def _go_on(self, task: Task) -> Action | None:
        """Decide what a task needs now that its last action is done."""
        sink = task.sink
        if sink is None or (task.complete and task.flushed):
            self._good(task)
            return None
        if not task.complete:
            if task.phase is Phase.COLLECTED:
                self._ready_to_transfer(task)
            return None
        if isinstance(sink, Wants):
            task.sink = None
            return self._follow(task, sink.then(task.parameters))
        task.flushed = True
        if sink.flush:
            return self._perform(task, scsi_disk.Flush())
        self._good(task)
        return None

    def _ready_to_transfer(self, task: Task) -> None:
        tag = self._new_tag()
        offset, octets = task.solicit(tag, max_burst=self.parameters.max_burst_length)
        self._send(
            iscsi.ReadyToTransfer(
                lun=task.lun_field,
                initiator_task_tag=task.initiator_task_tag,
                target_transfer_tag=tag,
                r2t_sn=task.r2t_sn,
                buffer_offset=offset,
                desired_data_transfer_length=octets,
                **self._numbers(advance=False),
            )
        )
        task.r2t_sn += 1

    # -- answers to SCSI commands --------------------------------------------------------------------------------

    def _data_in(self, task: Task, octets: bytes) -> None:
        """Send data and GOOD."""
        octets = octets[: task.transfers(len(octets), task.expected_in)]
        if not octets:
            self._good(task)
            return
        self._tasks.pop(task.initiator_task_tag, None)
        limit = min(self.parameters.max_recv_data_segment_length, self.parameters.max_burst_length)
        for offset in range(0, len(octets), limit):
            piece = octets[offset : offset + limit]
            last = offset + limit >= len(octets)
            self._send(
                iscsi.DataIn(
                    flags=iscsi.FINAL | ((iscsi.DATA_IN_STATUS | task.residual_flags) if last else 0),
                    initiator_task_tag=task.initiator_task_tag,
                    data_sn=offset // limit,
                    buffer_offset=offset,
                    residual_count=task.residual_count if last else 0,
                    data=piece,
                    **self._numbers(advance=last),
                )
            )

    def _good(self, task: Task) -> None:
        """Send GOOD, unless it went out with the data: then the task is simply over."""
        self._tasks.pop(task.initiator_task_tag, None)
        if task.data_in_pdus:
            return
        self._send(
            iscsi.ScsiResponse(
                flags=iscsi.FINAL | task.residual_flags,
                initiator_task_tag=task.initiator_task_tag,
                exp_data_sn=task.r2t_sn,
                residual_count=task.residual_count,
                **self._numbers(),
            )
        )

    def _finish(self, task: Task, sense: Sense) -> None:
        self._tasks.pop(task.initiator_task_tag, None)
        pdus, residual = task.data_in_pdus or task.r2t_sn, (task.residual_flags, task.residual_count)
        self.fail(task.initiator_task_tag, sense, exp_data_sn=pdus, residual=residual)

    def fail(
        self, initiator_task_tag: int, sense: Sense, *, exp_data_sn: int = 0, residual: tuple[int, int] = (0, 0)
    ) -> None:
        """Send CHECK CONDITION; data of the task that is still under way will be ignored.

        ``exp_data_sn`` is how many Data-In or R2T PDUs the task has had, ``residual`` its flag and count.
        """
        data = scsi_sense.encode(sense)
        self._send(
            iscsi.ScsiResponse(
                flags=iscsi.FINAL | residual[0],
                status=CHECK_CONDITION,
                initiator_task_tag=initiator_task_tag,
                exp_data_sn=exp_data_sn,
                residual_count=residual[1],
                data=len(data).to_bytes(2, "big") + data,
                **self._numbers(),
            )
        )

    # -- everything else -----------------------------------------------------------------------------------------

    def _nop_out(self, nop: NopOut) -> None:
        if nop.initiator_task_tag != NO_TAG:
            echo = bytes(nop.data[: self.parameters.max_recv_data_segment_length])
            self._send(
                iscsi.NopIn(lun=nop.lun, initiator_task_tag=nop.initiator_task_tag, data=echo, **self._numbers())
            )
        elif self._ping is not None and nop.target_transfer_tag == self._ping:
            self._ping = None
            self.pings_answered += 1

    def _manage(self, request: TaskManagementRequest) -> None:
        self._send(
            iscsi.TaskManagementResponse(
                response=self._managed(request),
                initiator_task_tag=request.initiator_task_tag,
                **self._numbers(),
            )
        )

    def _managed(self, request: TaskManagementRequest) -> int:
        function, lun = request.flags & 0x7F, lun_number(request.lun)
        if function == TASK_REASSIGN:
            return NO_REASSIGNMENT
        if function == ABORT_TASK:
            return NO_SUCH_TASK if self._tasks.pop(request.referenced_task_tag, None) is None else FUNCTION_COMPLETE
        if function == TARGET_WARM_RESET:
            self._tasks.clear()
            for each in self._units.disks:
                self._units.raise_attention(each, scsi_sense.UNIT_RESET)
            return FUNCTION_COMPLETE
        if function not in (ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET):
            return FUNCTION_NOT_SUPPORTED
        if lun is None or lun not in self._units.disks:
            return NO_SUCH_LUN
        self._tasks = {tag: task for tag, task in self._tasks.items() if task.lun != lun}
        if function == LOGICAL_UNIT_RESET:
            self._units.raise_attention(lun, scsi_sense.UNIT_RESET)
        return FUNCTION_COMPLETE

    def _text_request(self, request: TextRequest) -> None:
        if request.target_transfer_tag != NO_TAG:
            if request.target_transfer_tag != self._text_tag:
                self.reject(INVALID_FIELD, request)
                return
        elif request.flags & iscsi.CONTINUE:
            self.reject(NOT_SUPPORTED, request)  # no key that is understood here is that long
            return
        else:
            try:
                self._text = encode_text(answers(decode_text(request.data), self._targets, discovery=self._discovers))
            except MalformedError:
                self.reject(PROTOCOL_ERROR, request)
                return
        limit = self.parameters.max_recv_data_segment_length
        piece, self._text = self._text[:limit], self._text[limit:]
        self._text_tag = self._new_tag() if self._text else NO_TAG
        self._send(
            iscsi.TextResponse(
                flags=iscsi.CONTINUE if self._text else iscsi.FINAL,
                initiator_task_tag=request.initiator_task_tag,
                target_transfer_tag=self._text_tag,
                data=piece,
                **self._numbers(),
            )
        )

    def _logout(self, request: LogoutRequest) -> None:
        reason = request.flags & 0x7F
        if reason == CLOSE_SESSION or (reason == CLOSE_CONNECTION and request.cid == self._cid):
            response = CLOSED
            closing = "logout"
        else:
            response = NO_SUCH_CONNECTION if reason == CLOSE_CONNECTION else NO_RECOVERY
            closing = None
        self._send(
            iscsi.LogoutResponse(
                response=response,
                initiator_task_tag=request.initiator_task_tag,
                **self._numbers(),
            )
        )
        self.closing = closing

    # -- numbers -------------------------------------------------------------------------------------------------

    def _numbers(self, *, advance: bool = True) -> _Numbers:
        """Return the next answer's numbers; without ``advance`` it carries StatSN but does not use it up."""
        stat_sn = self.stat_sn
        if advance:
            self.stat_sn = (stat_sn + 1) & 0xFFFFFFFF
        return {"stat_sn": stat_sn, "exp_cmd_sn": self.exp_cmd_sn, "max_cmd_sn": self.max_cmd_sn}

    def _new_tag(self) -> int:
        self._last_tag = (self._last_tag + 1) % NO_TAG
        return self._last_tag

    def _send(self, pdu: Pdu) -> None:
        self.output.append(iscsi.encode(pdu))
