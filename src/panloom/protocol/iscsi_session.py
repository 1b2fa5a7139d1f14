"""A session in full feature phase, the target's side: one connection, error recovery level 0 (RFC 7143 sections 4, 11).

    receive(pdu)  ──▶ ``output``    the answers, octets
                  ──▶ ``actions``   what is to be done on the medium: take each, do it, then
    performed(action, sense or None)  ──▶ more of both; several may be under way, and end in any order

    WRITE whose data does not all come at once:

      command ──▶ immediate data ──▶ unsolicited Data-Out … F ──▶ R2T, R2T, … ──▶ Data-Out … F, … ──▶ status
                  (ImmediateData)    (InitialR2T=No)              at most MaxBurstLength each, MaxOutstandingR2T at once

The oldest action is the first in ``actions``, and whoever does them one after the other does them in the order of the
commands.  Commands that must not overtake each other wait in ``protocol.iscsi_task_set``.

An aborted task is forgotten with the actions that nobody has taken yet; if one is under way, the answer to the task
management function waits until it has been performed.  So no octet of the task is written after that answer.

The caller may answer READ and WRITE commands by itself, for speed, as long as it keeps ``exp_cmd_sn`` and ``stat_sn``
and leaves to the session whatever ``must_see`` claims; one that it has begun and cannot end at once it gives to
``adopt``.
"""

from collections import deque
from typing import TypedDict

import msgspec

from panloom.errors import MalformedError
from panloom.protocol import scsi_disk
from panloom.protocol.iscsi_command_order import CommandOrder, Numbered
from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_login import COMMAND_WINDOW
from panloom.protocol.iscsi_task import Action, Deed, Task, extent_of
from panloom.protocol.iscsi_task_set import TaskSet
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
MAX_WAITING_OCTETS = 8 << 20  # of tasks that wait for others
BLOCK_OCTETS = 512
GOOD, CHECK_CONDITION, TASK_SET_FULL = 0x00, 0x02, 0x28  # status, SAM-5 5.3.1

# Reasons of Reject (section 11.17.1)
SNACK_REJECT, PROTOCOL_ERROR, NOT_SUPPORTED, TOO_MANY_IMMEDIATE = 0x03, 0x04, 0x05, 0x06
TASK_IN_PROGRESS, INVALID_FIELD = 0x07, 0x09

# Task management: functions (section 11.5.1) and responses (section 11.6.1)
ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TASK_REASSIGN = 1, 2, 4, 5, 6, 8
FUNCTION_COMPLETE, NO_SUCH_TASK, NO_SUCH_LUN, NO_REASSIGNMENT, FUNCTION_NOT_SUPPORTED = 0, 1, 2, 4, 5

# Logout: reasons (section 11.14.1) and responses (section 11.15.1)
CLOSE_SESSION, CLOSE_CONNECTION = 0, 1
CLOSED, NO_SUCH_CONNECTION, NO_RECOVERY = 0, 1, 2


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
        self.actions: deque[Action] = deque()
        self.closing: str | None = None  # why the connection ends once ``output`` is sent
        self.pings_answered = 0
        self._discovers = units is None
        self._units = units or LogicalUnits({})
        self._cid = cid
        self._targets = targets
        self._tasks = TaskSet()
        self._order = CommandOrder()
        self._waiting_octets = 0
        self._aborting: list[tuple[TaskManagementRequest, set[Task]]] = []  # whose tasks still have actions under way
        self._ping: int | None = None  # the tag of one that is not yet answered
        self._last_tag = 0
        self._text = b""  # the rest of an answer
        self._text_tag = NO_TAG

    # -- what the caller sees ------------------------------------------------------------------------------------

    @property
    def max_cmd_sn(self) -> int:
        """Return MaxCmdSN: tasks that wait for data narrow the window."""
        return (self.exp_cmd_sn + COMMAND_WINDOW - 1 - len(self._tasks)) & 0xFFFFFFFF

    def must_see(self, initiator_task_tag: int, field: int) -> bool:
        """Whether even a plain READ or WRITE, the next in order, has to go through ``receive``.

        ``field`` is the unit's LUN field in its shortest form.
        """
        unusual = bool(self._units.attentions) or bool(self._order) or self._tasks.busy(field)
        return unusual or initiator_task_tag == NO_TAG or initiator_task_tag in self._tasks

    def receive(self, pdu: Pdu) -> None:
        """Take a PDU.

        What the session keeps it copies, but ``actions`` may refer to the PDU's data: do them, or copy that, before
        the octets change.
        """
        if self.closing is not None:
            return
        match pdu:
            case DataOut():
                self._data_out(pdu)
            case NopOut() | ScsiCommand() | TaskManagementRequest() | TextRequest() | LogoutRequest():
                self._in_order(pdu)
            case Snack():
                self.reject(SNACK_REJECT, pdu)
            case _:
                self.end(f"{type(pdu).__name__} in full feature phase", pdu)
        self._wake()

    def performed(self, action: Action, sense: Sense | None) -> None:
        """Go on after an action: ``sense`` says why it failed, None that it is done."""
        task = action.task
        task.under_way -= 1
        if task.aborted:
            self._settle(task)
        else:
            task.sense = task.sense or sense
            self._go_on(task)
        self._wake()

    def adopt(self, lun: int, initiator_task_tag: int, deed: Deed) -> Action:
        """Take over a plain READ or WRITE that the caller has begun by itself and that goes on; end with ``performed``.

        Its deed is not in ``actions``: it is being done.  After a READ the caller has sent data and GOOD, as always.
        """
        command = ScsiCommand(
            lun=iscsi.lun_field(lun), initiator_task_tag=initiator_task_tag, cmd_sn=self.exp_cmd_sn, cdb=bytes(16)
        )
        task = Task(command, lun)
        task.extent = extent_of(deed)
        task.under_way = 1
        self._tasks.add(task)
        return Action(lun, deed, task)

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

    def _in_order(self, pdu: Numbered) -> None:
        """Carry out a PDU, and those that waited for it, when it is their turn."""
        if pdu.immediate:
            self._carry_out(pdu)
            return
        try:
            next_in_order = self._order.take(pdu, exp_cmd_sn=self.exp_cmd_sn, max_cmd_sn=self.max_cmd_sn)
        except MalformedError as error:
            self.end(str(error), pdu)
            return
        if not next_in_order:
            return
        behind = self._order.following((self.exp_cmd_sn + 1) & 0xFFFFFFFF) if self._order else ()
        turn = (pdu, *behind)
        self.exp_cmd_sn = (self.exp_cmd_sn + len(turn)) & 0xFFFFFFFF
        for each in turn:
            if each is not None and self.closing is None:
                self._carry_out(each)

    def _carry_out(self, pdu: Numbered) -> None:
        match pdu:
            case ScsiCommand():
                self._command(pdu)
            case NopOut():
                self._nop_out(pdu)
            case TaskManagementRequest():
                self._manage(pdu)
            case TextRequest():
                self._text_request(pdu)
            case LogoutRequest():
                self._logout(pdu)

    def _wake(self) -> None:
        """Go on with the tasks that have waited for one that is over."""
        while task := self._tasks.awake():
            waiting, task.waiting = task.waiting, []
            self._waiting_octets -= sum(map(_octets, waiting))
            if task.sink is not None and task.verdict is not None:
                task.sink = None
                self._follow(task, task.verdict)
            for each in waiting:
                if isinstance(each, DataOut):
                    self._data_out(each)
                else:
                    self._begin(task, each)

    def _wait(self, task: Task, pdu: ScsiCommand | DataOut) -> None:
        """Let a task wait, with a PDU of its."""
        self._tasks.sleep(task)
        self._waiting_octets += _octets(pdu)
        task.waiting.append(msgspec.structs.replace(pdu, data=bytes(pdu.data)))  # the buffer will be used again
        if self._waiting_octets > MAX_WAITING_OCTETS:
            self._respond(task, TASK_SET_FULL)

    def _forget(self, task: Task) -> None:
        """Let a task go that has ended or been aborted."""
        self._tasks.remove(task)
        self._waiting_octets -= sum(map(_octets, task.waiting))
        task.waiting = []

    # -- SCSI commands -------------------------------------------------------------------------------------------

    def _command(self, command: ScsiCommand) -> None:
        tag = command.initiator_task_tag
        if self._discovers:
            self.end("a SCSI command in a discovery session", command)
        elif tag in self._tasks or tag == NO_TAG:
            self.reject(TASK_IN_PROGRESS if tag in self._tasks else INVALID_FIELD, command)
        elif len(self._tasks) >= MAX_TASKS:
            self.reject(TOO_MANY_IMMEDIATE, command)
        else:
            task = Task(command, lun_number(command.lun))
            self._tasks.add(task)
            self._begin(task, command)

    def _begin(self, task: Task, command: ScsiCommand) -> None:
        """Begin a task, or go on with it after it has waited."""
        if task.verdict is None:
            if not self._tasks.may_begin(task):
                self._wait(task, command)
                return
            task.verdict = self._wrong_data(command) or self._units.interpret(lun_number(command.lun), command.cdb)
            task.extent = extent_of(task.verdict)
        if isinstance(task.verdict, Wants) or self._tasks.may_touch(task):
            self._follow(task, task.verdict, command)
        else:
            self._wait(task, command)

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

    def _follow(self, task: Task, verdict: Verdict, command: ScsiCommand | None = None) -> None:
        """Do what a verdict says; ``command`` as long as data may come with it."""
        match verdict:
            case Sense():
                self._fail(task, verdict)
            case Data(octets):
                self._data_in(task, octets)
            case Read(offset, octets, flush):
                self._act(task, Read(offset, task.transfers(octets, task.expected_in), flush))
            case Store() | Wants() if command is not None:
                task.begin(verdict, command, first_burst=self.parameters.first_burst_length)
                if (short := task.too_short(BLOCK_OCTETS)) is not None:
                    self._fail(task, short)
                else:
                    self._take(task, command.data)
            case Store() | Wants():
                raise ValueError("a command asks for data twice")
            case _:
                if command is not None:
                    # With both flags and no AHS one length stands for both directions.
                    task.transfers(0, max(task.expected_in, task.expected_out))
                self._act(task, verdict)

    def _act(self, task: Task, deed: Deed) -> None:
        task.under_way += 1
        self.actions.append(Action(task.lun, deed, task))

    def _take(self, task: Task, data: Octets) -> None:
        """Take data of a task, and what follows from it."""
        write = task.take(data, BLOCK_OCTETS)
        if write:
            self._act(task, write)
        self._solicit(task)
        if not task.under_way:
            self._go_on(task)

    def _data_out(self, pdu: DataOut) -> None:
        task = self._tasks.get(pdu.initiator_task_tag)
        if task is None or task.sense is not None or task.aborted:
            return  # of a task that was aborted or has failed: its data may still be under way
        if task.dormant:
            self._wait(task, pdu)
            return
        wrong = task.check(pdu)
        if wrong is not None:
            self._fail(task, wrong)
        else:
            self._take(task, pdu.data)

    def _go_on(self, task: Task) -> None:
        """Decide what a task needs now that an action of its has been performed, or data has come."""
        sink = task.sink
        if task.under_way:
            return
        if task.sense is not None:
            self._finish(task, task.sense)
        elif sink is None or (task.complete and task.flushed):
            self._good(task)
        elif not task.complete:
            return
        elif isinstance(sink, Wants):
            self._parameters_came(task, sink)
        else:
            task.flushed = True
            if sink.flush:
                self._act(task, scsi_disk.Flush())
            else:
                self._good(task)

    def _parameters_came(self, task: Task, wants: Wants) -> None:
        """Do what a command means now that its parameters are there, or wait for what it must not overtake."""
        task.verdict = wants.then(task.parameters)
        task.extent = extent_of(task.verdict)
        if self._tasks.may_touch(task):
            task.sink = None
            self._follow(task, task.verdict)
        else:
            self._tasks.sleep(task)

    def _solicit(self, task: Task) -> None:
        """Ask for as many bursts as may be outstanding."""
        while task.may_solicit(max_outstanding=self.parameters.max_outstanding_r2t):
            self._ready_to_transfer(task)

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
        self._forget(task)
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
        if task.data_in_pdus:
            self._forget(task)
        else:
            self._respond(task, GOOD)

    def _respond(self, task: Task, status: int) -> None:
        """End a task with a status that needs no sense data."""
        self._forget(task)
        self._send(
            iscsi.ScsiResponse(
                flags=iscsi.FINAL | task.residual_flags,
                status=status,
                initiator_task_tag=task.initiator_task_tag,
                exp_data_sn=task.r2t_sn,
                residual_count=task.residual_count,
                **self._numbers(),
            )
        )

    def _fail(self, task: Task, sense: Sense) -> None:
        """End a task that has failed once none of its actions is under way."""
        task.sense = sense
        if not task.under_way:
            self._finish(task, sense)

    def _finish(self, task: Task, sense: Sense) -> None:
        self._forget(task)
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
        """Carry out a task management function; its answer waits for what is under way of the tasks it aborts."""
        response, aborted = self._managed(request)
        for task in aborted:
            task.aborted = True
        if aborted:
            kept = [action for action in self.actions if not action.task.aborted]
            for action in self.actions:
                action.task.under_way -= action.task.aborted
            self.actions.clear()
            self.actions.extend(kept)
        under_way = {task for task in aborted if task.under_way}
        for task in aborted:
            if task not in under_way:  # the others keep their place: what overlaps them must not overtake them
                self._forget(task)
        if under_way:
            self._aborting.append((request, under_way))
        else:
            self._managed_response(request, response)

    def _settle(self, task: Task) -> None:
        """Take note that an action of an aborted task is over, and answer the functions that waited for it."""
        if task.under_way:
            return
        self._forget(task)
        for request, under_way in self._aborting:
            under_way.discard(task)
            if not under_way:
                self._managed_response(request, FUNCTION_COMPLETE)
        self._aborting = [(request, under_way) for request, under_way in self._aborting if under_way]

    def _managed_response(self, request: TaskManagementRequest, response: int) -> None:
        tag = request.initiator_task_tag
        self._send(iscsi.TaskManagementResponse(response=response, initiator_task_tag=tag, **self._numbers()))

    def _managed(self, request: TaskManagementRequest) -> tuple[int, tuple[Task, ...]]:
        """Return the answer to a function, and the tasks that it aborts."""
        function, lun = request.flags & 0x7F, lun_number(request.lun)
        if function == TASK_REASSIGN:
            return NO_REASSIGNMENT, ()
        if function == ABORT_TASK:
            task = self._tasks.get(request.referenced_task_tag)
            return (NO_SUCH_TASK, ()) if task is None else (FUNCTION_COMPLETE, (task,))
        if function == TARGET_WARM_RESET:
            for each in self._units.disks:
                self._units.raise_attention(each, scsi_sense.UNIT_RESET)
            return FUNCTION_COMPLETE, self._tasks.of(None)
        if function not in (ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET):
            return FUNCTION_NOT_SUPPORTED, ()
        if lun is None or lun not in self._units.disks:
            return NO_SUCH_LUN, ()
        if function == LOGICAL_UNIT_RESET:
            self._units.raise_attention(lun, scsi_sense.UNIT_RESET)
        return FUNCTION_COMPLETE, self._tasks.of(lun)

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


def _octets(pdu: ScsiCommand | DataOut) -> int:
    """Return what keeping a PDU costs."""
    return iscsi.HEADER_OCTETS + len(pdu.data)
