"""A session in full feature phase, the target's side: one connection, error recovery level 0 (RFC 7143 sections 4, 11).

    receive(pdu)  ──▶ ``output``    the answers, octets
                  ──▶ ``actions``   what is to be done on the medium: take each, do it, then
    performed(action, sense or None)  ──▶ more of both; several may be under way, and end in any order

    WRITE whose data does not all come at once:

      command ──▶ immediate data ──▶ unsolicited Data-Out … F ──▶ R2T, R2T, … ──▶ Data-Out … F, … ──▶ status
                  (ImmediateData)    (InitialR2T=No)              at most MaxBurstLength each, MaxOutstandingR2T at once

The oldest action is the first in ``actions``.  Commands that must not overtake each other wait in
``protocol.iscsi_task_set``; what becomes of aborted ones is told in ``protocol.iscsi_task_management``.

The caller may answer READ and WRITE commands by itself, for speed, as long as it keeps ``exp_cmd_sn`` and ``stat_sn``
and leaves to the session whatever ``must_see`` claims; one that it has begun and cannot end at once it gives to
``adopt``.
"""

from collections import deque

import msgspec

from panloom.errors import MalformedError
from panloom.protocol import iscsi_task_answers as task_answers
from panloom.protocol.iscsi_command_order import CommandOrder, Numbered
from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_login import COMMAND_WINDOW
from panloom.protocol.iscsi_numbers import SequenceNumbers
from panloom.protocol.iscsi_task import NOWHERE, Action, Deed, Task, extent_of
from panloom.protocol.iscsi_task_answers import Numbers
from panloom.protocol.iscsi_task_management import CLOSED, Answer, TaskManagement, logout_response
from panloom.protocol.iscsi_task_set import TaskSet
from panloom.protocol.iscsi_text_exchange import TextExchange
from panloom.protocol.scsi_disk import Busy, Conflict, Data, Flush, LogicalUnits, Read, Store, Then, Verdict, Wants
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import (
    NO_TAG,
    DataOut,
    LogoutRequest,
    NopOut,
    Octets,
    Pdu,
    ScsiCommand,
    TaskManagementRequest,
    TextRequest,
    lun_number,
)
from panloom.wire.scsi_sense import Sense

MAX_IMMEDIATE = COMMAND_WINDOW  # tasks: they are outside the window, but not without end
MAX_WAITING_OCTETS = 8 << 20  # of tasks that wait for others
BLOCK_OCTETS = 512

# Reasons of Reject (section 11.17.1)
SNACK_REJECT, PROTOCOL_ERROR, NOT_SUPPORTED, TOO_MANY_IMMEDIATE = 0x03, 0x04, 0x05, 0x06
TASK_IN_PROGRESS, INVALID_FIELD = 0x07, 0x09


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
        self.numbers = SequenceNumbers(exp_cmd_sn, stat_sn)
        self.output: list[bytes] = []
        self.actions: deque[Action] = deque()
        self.closing: str | None = None  # why the connection ends once ``output`` is sent
        self.pings_answered = 0
        self._discovers = units is None
        self.units = units or LogicalUnits({})
        self._cid = cid
        self._leaving = False  # logged out, and waiting for what is under way
        self._starved = False  # a task would ask for data, but there is no room
        self._tasks = TaskSet()
        self._order = CommandOrder()
        self._by_tag, self._early = self._tasks.by_tag, self._order.held  # looked into for every command
        self._management = TaskManagement(self._tasks, self.actions, self._order, self.units)
        self._text = TextExchange(targets, discovery=self._discovers, new_tag=self._new_tag)
        self._ping: int | None = None  # the tag of one that is not yet answered
        self._last_tag = 0

    # -- what the caller sees ------------------------------------------------------------------------------------

    @property
    def max_cmd_sn(self) -> int:
        """Return MaxCmdSN: open tasks narrow the window, but immediate ones, for it never goes back."""
        return (self.numbers.exp_cmd_sn + COMMAND_WINDOW - 1 - len(self._by_tag) + self._tasks.immediate) & 0xFFFFFFFF

    def must_see(self, initiator_task_tag: int, field: int, *, reading: bool) -> bool:
        """Whether even a plain READ or WRITE, the next in order, has to go through ``receive``.

        ``field`` is the unit's LUN field in its shortest form; ``reading``: it is a READ, and not an ORDERED one.
        """
        if self._by_tag and (self._tasks.busy(field, reading=reading) or initiator_task_tag in self._by_tag):
            return True
        return field in self.units.unusual or bool(self._early) or initiator_task_tag == NO_TAG

    @property
    def quiet(self) -> bool:
        """Whether ``must_see`` claims no PDU of a usual unit that has come by now, until ``receive`` or ``adopt``.

        A unit may become unusual at any time; that, and a tag that none may have, is left to who asks.
        """
        return not (self._early or self._tasks)

    def receive(self, pdu: Pdu) -> None:
        """Take a PDU; ``actions`` may refer to its data: do them, or copy that, before the octets change."""
        if self._leaving or self.closing is not None:
            return
        match pdu:
            case DataOut():
                self._data_out(pdu)
            case NopOut() | ScsiCommand() | TaskManagementRequest() | TextRequest() | LogoutRequest():
                self._in_order(pdu)
            case iscsi.Snack():
                self.reject(SNACK_REJECT, pdu)
            case _:
                self.end(f"{type(pdu).__name__} in full feature phase", pdu)
        self._wake()

    def performed(self, action: Action, sense: Sense | None) -> None:
        """Go on after an action: ``sense`` says why it failed, None that it is done."""
        task = action.task
        task.ended(action.deed)
        if task.aborted:
            if not task.under_way:
                self._tasks.remove(task)
                for answer in self._management.settled(task):
                    self._managed(answer)
        else:
            task.sense = task.sense or sense
            self._go_on(task)
        self._wake()

    def adopt(self, lun: int, initiator_task_tag: int, deed: Deed) -> Action:
        """Take over a plain READ or WRITE that the caller has begun by itself and that goes on; end with ``performed``.

        Its deed is not in ``actions``: it is being done.  After a READ the caller has sent data and GOOD, as always.
        """
        task = Task(ScsiCommand(initiator_task_tag=initiator_task_tag, cmd_sn=0, cdb=bytes(16)), lun)
        task.extent, task.plain_read = extent_of(deed), isinstance(deed, Read)
        task.began(deed)
        self._tasks.add(task)
        return Action(lun, deed, task)

    def ping(self) -> None:
        """Ask whether the initiator is there (NOP-In), unless the last such question is still open."""
        if self._ping is None:
            self._ping = self._new_tag()
            self._send(iscsi.NopIn(target_transfer_tag=self._ping, **self._numbers(advance=False)))

    def abort_unit(self, lun: int) -> None:
        """Abort the tasks of a unit because of another session; their initiator hears of that by a unit attention."""
        tasks = self._tasks.of(lun)
        if tasks:
            self._management.drop(tasks)
            self.units.raise_attention(lun, scsi_sense.COMMANDS_CLEARED)

    def abandon(self) -> None:
        """Abort what is left when the connection is over: nothing that has not begun begins any more."""
        self._leaving = True
        self._management.drop(self._tasks.of(None))
        self.actions.clear()

    def is_quiet(self, lun: int) -> bool:
        """Whether nothing that was aborted is still under way on a unit's medium."""
        return not any(task.aborted and task.extent is not NOWHERE for task in self._tasks.of(lun))

    def announce(self, event: iscsi.AsyncEvent, seconds: int = 0) -> None:
        """Tell the initiator unasked that the session ends now, or should be ended by it within so many seconds."""
        self._send(iscsi.AsyncMessage(async_event=event, parameter3=seconds, **self._numbers()))
        if event is iscsi.AsyncEvent.SESSION_DROPPED:
            self.closing = "dropped"

    def remove_unit(self, lun: int) -> None:
        """Let a unit go: its tasks fail, but those whose last deed is under way on the medium."""
        self.units.remove(lun)
        for task in self._tasks.of(lun):
            if not task.under_way or (task.sink is not None and not task.complete):
                self._fail(task, scsi_sense.NO_SUCH_UNIT)
        self._wake()

    def has_tasks(self, lun: int) -> bool:
        """Whether any task of a unit is left."""
        return bool(self._tasks.of(lun))

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
            next_in_order = self._order.take(pdu, exp_cmd_sn=self.numbers.exp_cmd_sn, max_cmd_sn=self.max_cmd_sn)
        except MalformedError as error:
            self.end(str(error), pdu)
            return
        if next_in_order:
            self.numbers.take_command()
            self._carry_out(pdu)
            self._in_turn()

    def _in_turn(self) -> None:
        """Carry out the commands that waited for the one before them."""
        numbers = self.numbers
        while numbers.exp_cmd_sn in self._early and self.closing is None:
            pdu = self._order.pop(numbers.exp_cmd_sn)
            numbers.take_command()
            if pdu is not None:
                self._carry_out(pdu)

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
        while woken := self._tasks.awake():
            task, waiting = woken
            if task.sink is not None and task.verdict is not None:
                task.sink = None
                self._follow(task, task.verdict)
            for each in waiting:
                if isinstance(each, DataOut):
                    self._data_out(each)
                else:
                    self._begin(task, each)
        if self._starved:
            self._starved = False
            for task in tuple(self._by_tag.values()):
                self._solicit(task)

    def _wait(self, task: Task, pdu: ScsiCommand | DataOut) -> None:
        """Let a task wait, with a PDU of its."""
        self._tasks.sleep(task, msgspec.structs.replace(pdu, data=bytes(pdu.data)))  # the buffer will be used again
        if self._tasks.kept_octets > MAX_WAITING_OCTETS:
            self._respond(task, task_answers.TASK_SET_FULL)

    # -- SCSI commands -------------------------------------------------------------------------------------------

    def _command(self, command: ScsiCommand) -> None:
        tag = command.initiator_task_tag
        if self._discovers:
            self.end("a SCSI command in a discovery session", command)
        elif tag in self._tasks or tag == NO_TAG:
            self.reject(TASK_IN_PROGRESS if tag in self._tasks else INVALID_FIELD, command)
        elif command.immediate and self._tasks.immediate >= MAX_IMMEDIATE:
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
            wrong = task.wrong(command, self.parameters)
            task.verdict = wrong or self.units.interpret(lun_number(command.lun), command.cdb)
            task.extent = extent_of(task.verdict)
        if isinstance(task.verdict, Wants) or self._tasks.may_touch(task):
            self._follow(task, task.verdict, command)
        else:
            self._wait(task, command)

    def _follow(self, task: Task, verdict: Verdict, command: ScsiCommand | None = None) -> None:
        """Do what a verdict says; ``command`` as long as data may come with it."""
        match verdict:
            case Sense():
                self._fail(task, verdict)
            case Conflict() | Busy():
                self._respond(task, verdict.STATUS)
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
            case Then(deed, then):
                task.then = then
                self._act(task, deed)
            case _:
                if command is not None:
                    # With both flags and no AHS one length stands for both directions.
                    task.transfers(0, max(task.expected_in, task.expected_out))
                self._act(task, verdict)

    def _act(self, task: Task, deed: Deed) -> None:
        task.began(deed)
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
        elif task.then is not None:
            then, task.then = task.then, None
            self._follow(task, then())
        elif sink is None or (task.complete and task.flushed):
            self._good(task)
        elif not task.complete:
            return
        elif isinstance(sink, Wants):
            self._parameters_came(task, sink)
        else:
            task.flushed = True
            if sink.flush:
                self._act(task, Flush())
            else:
                self._good(task)

    def _parameters_came(self, task: Task, wants: Wants) -> None:
        """Do what a command means now that its parameters are there, or wait for what it must not overtake."""
        task.verdict = wants.then(task.parameters)
        self._tasks.narrow(task, extent_of(task.verdict))
        if self._tasks.may_touch(task):
            task.sink = None
            self._follow(task, task.verdict)
        else:
            self._tasks.sleep(task)

    def _solicit(self, task: Task) -> None:
        """Ask for as many bursts as may be outstanding, once there is room for them."""
        while task.may_solicit(max_outstanding=self.parameters.max_outstanding_r2t):
            if not self._tasks.has_room:
                self._starved = True
                return
            numbers, burst = self._numbers(advance=False), self.parameters.max_burst_length
            self._send(task_answers.ready_to_transfer(task, self._new_tag(), max_burst=burst, numbers=numbers))

    # -- answers to SCSI commands --------------------------------------------------------------------------------

    def _data_in(self, task: Task, octets: bytes) -> None:
        """Send data and GOOD."""
        octets = octets[: task.transfers(len(octets), task.expected_in)]
        if not octets:
            self._good(task)
            return
        self._tasks.remove(task)
        for piece in task_answers.data_in(task, octets, self.parameters, lambda last: self._numbers(advance=last)):
            self._send(piece)

    def _good(self, task: Task) -> None:
        """Send GOOD, unless it went out with the data: then the task is simply over."""
        if task.data_in_pdus:
            self._tasks.remove(task)
        else:
            self._respond(task, task_answers.GOOD)

    def _respond(self, task: Task, status: int) -> None:
        self._tasks.remove(task)
        self._send(task_answers.status(task, status, self._numbers()))

    def _fail(self, task: Task, sense: Sense) -> None:
        """End a task that has failed once none of its actions is under way."""
        task.sense = sense
        if not task.under_way:
            self._finish(task, sense)

    def _finish(self, task: Task, sense: Sense) -> None:
        self._tasks.remove(task)
        pdus, residual = task.data_in_pdus or task.r2t_sn, (task.residual_flags, task.residual_count)
        self.fail(task.initiator_task_tag, sense, exp_data_sn=pdus, residual=residual)

    def fail(
        self, initiator_task_tag: int, sense: Sense, *, exp_data_sn: int = 0, residual: tuple[int, int] = (0, 0)
    ) -> None:
        """Send CHECK CONDITION; data of the task that is still under way will be ignored.

        ``exp_data_sn`` is how many Data-In or R2T PDUs the task has had, ``residual`` its flag and count.
        """
        self._send(task_answers.check_condition(initiator_task_tag, sense, exp_data_sn, residual, self._numbers()))

    # -- everything else -----------------------------------------------------------------------------------------

    def _nop_out(self, nop: NopOut) -> None:
        if nop.initiator_task_tag != NO_TAG:
            tag, echo = nop.initiator_task_tag, bytes(nop.data[: self.parameters.max_recv_data_segment_length])
            self._send(iscsi.NopIn(lun=nop.lun, initiator_task_tag=tag, data=echo, **self._numbers()))
        elif self._ping is not None and nop.target_transfer_tag == self._ping:
            self._ping = None
            self.pings_answered += 1

    def _manage(self, request: TaskManagementRequest) -> None:
        if self._management.is_full:
            self.reject(TOO_MANY_IMMEDIATE, request)
            return
        answer = self._management.carry_out(request, exp_cmd_sn=self.numbers.exp_cmd_sn, max_cmd_sn=self.max_cmd_sn)
        if answer is not None:
            self._managed(answer)
        self._in_turn()  # a command that was aborted before it came may have been the one that was missing

    def _managed(self, answer: Answer) -> None:
        """Answer a task management function or a logout whose tasks are over."""
        if answer.ends:
            self.units.leave()  # before anybody is told: what others ask from then on meets no reservation
        self._send(answer.pdu(self._numbers()))
        self.closing = answer.ends or self.closing

    def _text_request(self, request: TextRequest) -> None:
        try:
            answer, self.parameters = self._text.answer(request, self.parameters)
        except MalformedError:
            self.reject(PROTOCOL_ERROR, request)
        except LookupError:
            self.reject(INVALID_FIELD, request)
        else:
            self._send(answer.response(request, self._numbers()))

    def _logout(self, request: LogoutRequest) -> None:
        """Close session or connection, which are one; no octet of a task is written after the answer."""
        answer = Answer(request, logout_response(request, self._cid))
        if answer.response != CLOSED:
            self._send(answer.pdu(self._numbers()))
            return
        self._leaving = True
        ended = self._management.abort(self._tasks.of(None), answer)
        if ended is not None:
            self._managed(ended)

    # -- numbers -------------------------------------------------------------------------------------------------

    def _numbers(self, *, advance: bool = True) -> Numbers:
        """Return the next answer's numbers; without ``advance`` it carries StatSN but does not use it up."""
        stat_sn = self.numbers.take_status() if advance else self.numbers.stat_sn
        return {"stat_sn": stat_sn, "exp_cmd_sn": self.numbers.exp_cmd_sn, "max_cmd_sn": self.max_cmd_sn}

    def _new_tag(self) -> int:
        self._last_tag = (self._last_tag + 1) % NO_TAG
        return self._last_tag

    def _send(self, pdu: Pdu) -> None:
        self.output.append(iscsi.encode(pdu))
