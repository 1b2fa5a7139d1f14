"""Task management functions of one session (RFC 7143 sections 11.5, 11.6 and 4.2.3).

function                 aborts                                    what else
ABORT TASK (1)           one task of this session, come or not
ABORT TASK SET (2)       this session's tasks of a unit
CLEAR TASK SET (4)       all sessions' tasks of a unit
LOGICAL UNIT RESET (5)   all sessions' tasks of a unit             the unit is as after its start
TARGET WARM RESET (6)    all tasks of the target                   so are all units
TARGET COLD RESET (7)    all tasks of the target                   so are all units, and all connections end
TASK REASSIGN (8)        refused: error recovery level 0

    request ──▶ tasks aborted, actions taken back ──▶ none of theirs under way any more ──▶ response

A target should wait for the data that it has asked for (section 4.2.3.3).  This one does not: Linux by default sends no
more of it (node.session.iscsi.FastAbort), and would wait as long as we did.
"""

from collections import deque
from enum import IntEnum

import msgspec

from panloom.protocol.iscsi_command_order import CommandOrder, follows, window
from panloom.protocol.iscsi_task import Action, Task
from panloom.protocol.iscsi_task_answers import Numbers
from panloom.protocol.iscsi_task_set import TaskSet
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_verdicts import Quiesce
from panloom.wire.iscsi import (
    LogoutRequest,
    LogoutResponse,
    ScsiCommand,
    TaskManagementRequest,
    TaskManagementResponse,
    lun_number,
)

MAX_WAITING = 64  # functions; nothing bounds how many immediate ones an initiator sends
COLD_RESET = "cold reset"  # why a connection ends, and then all others of the target


class Function(IntEnum):
    """Section 11.5.1; CLEAR ACA (3) is not among them, for no unit here has an ACA."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class Response(IntEnum):
    """Section 11.6.1."""

    FUNCTION_COMPLETE = 0
    NO_SUCH_TASK = 1
    NO_SUCH_LUN = 2
    NO_REASSIGNMENT = 4
    NOT_SUPPORTED = 5


# Logout: reasons (section 11.14.1) and responses (section 11.15.1)
CLOSE_SESSION, CLOSE_CONNECTION = 0, 1
CLOSED, NO_SUCH_CONNECTION, NO_RECOVERY = 0, 1, 2


def logout_response(request: LogoutRequest, cid: int) -> int:
    """Return CLOSED for a logout from the session or its connection, which are one, else why there is none."""
    reason = request.flags & 0x7F
    if reason == CLOSE_SESSION or (reason == CLOSE_CONNECTION and request.cid == cid):
        return CLOSED
    return NO_SUCH_CONNECTION if reason == CLOSE_CONNECTION else NO_RECOVERY


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a function has come to, or a logout, which aborts what is left."""

    request: TaskManagementRequest | LogoutRequest
    response: int

    def pdu(self, numbers: Numbers) -> LogoutResponse | TaskManagementResponse:
        """Return the answer as it goes out."""
        kind = LogoutResponse if isinstance(self.request, LogoutRequest) else TaskManagementResponse
        return kind(response=self.response, initiator_task_tag=self.request.initiator_task_tag, **numbers)

    @property
    def ends(self) -> str | None:
        """Why the connection ends with it; None: it goes on."""
        if isinstance(self.request, LogoutRequest):
            return "logout"
        return COLD_RESET if self.request.flags & 0x7F == Function.TARGET_COLD_RESET else None


class TaskManagement:
    """The functions that were asked for, and wait for the end of what is under way."""

    def __init__(self, tasks: TaskSet, actions: deque[Action], order: CommandOrder, units: LogicalUnits) -> None:
        self._tasks = tasks
        self._actions = actions
        self._order = order
        self._units = units
        self._waiting: list[tuple[Answer, set[Task]]] = []

    @property
    def is_full(self) -> bool:
        """Whether no function may be asked for until one that waits is answered."""
        return len(self._waiting) >= MAX_WAITING

    def carry_out(self, request: TaskManagementRequest, *, exp_cmd_sn: int, max_cmd_sn: int) -> Answer | None:
        """Carry out a function; return its answer, or None as long as that has to wait."""
        function, lun = request.flags & 0x7F, lun_number(request.lun)
        aborted: tuple[Task, ...] = ()
        shared: tuple[int, ...] = ()  # units whose tasks go, whosesoever they are
        match function:
            case Function.TASK_REASSIGN:
                response = Response.NO_REASSIGNMENT
            case Function.ABORT_TASK:
                response, aborted = self._abort_task(request, exp_cmd_sn, max_cmd_sn)
            case Function.TARGET_WARM_RESET | Function.TARGET_COLD_RESET:
                response, aborted, shared = Response.FUNCTION_COMPLETE, self._tasks.of(None), tuple(self._units.disks)
            case Function.ABORT_TASK_SET | Function.CLEAR_TASK_SET | Function.LOGICAL_UNIT_RESET:
                response, aborted = self._of_unit(lun)
                if function != Function.ABORT_TASK_SET and lun is not None and not response:
                    shared = (lun,)
            case _:
                response = Response.NOT_SUPPORTED
        if function != Function.CLEAR_TASK_SET:
            for each in shared:
                self._units.reset(each)
        return self.abort(aborted, Answer(request, response), shared)

    def abort(self, tasks: tuple[Task, ...], answer: Answer, shared: tuple[int, ...] = ()) -> Answer | None:
        """Abort tasks, and those that other sessions have at shared units.

        Return the answer to that, or None as long as something of theirs is under way on a medium.
        """
        under_way = self.drop(tasks) | {*filter(None, (self._quiesce(answer, lun) for lun in shared))}
        if under_way:
            self._waiting.append((answer, under_way))
        return None if under_way else answer

    def drop(self, tasks: tuple[Task, ...]) -> set[Task]:
        """Abort tasks, and take back their actions; return those of which something is under way on a medium."""
        victims = set(tasks)
        for task in victims:
            task.aborted = True
            self._units.aborted(task.lun)
        kept = [action for action in self._actions if action.task not in victims]
        if len(kept) < len(self._actions):
            for action in self._actions:
                if action.task in victims:
                    action.task.ended(action.deed)
            self._actions.clear()
            self._actions.extend(kept)
        for task in tasks:
            if not task.under_way:  # the others keep their place: what overlaps them must not overtake them
                self._tasks.remove(task)
        return {task for task in tasks if task.under_way}

    def _quiesce(self, answer: Answer, lun: int) -> Task | None:
        """Have the tasks of other sessions at a unit aborted; return what stands for that while it is under way."""
        others = self._units.others(lun)
        if not others:
            return None
        tag = answer.request.initiator_task_tag
        task = Task(
            ScsiCommand(initiator_task_tag=tag, cmd_sn=0, cdb=bytes(16)), lun
        )  # in no task set: it has no range
        task.aborted, deed = True, Quiesce(others)
        task.began(deed)
        self._actions.append(Action(lun, deed, task))
        return task

    def settled(self, task: Task) -> tuple[Answer, ...]:
        """Take note that nothing of an aborted task is under way any more; return the answers that waited for that."""
        for _, under_way in self._waiting:
            under_way.discard(task)
        answers = tuple(answer for answer, under_way in self._waiting if not under_way)
        self._waiting = [(answer, under_way) for answer, under_way in self._waiting if under_way]
        return answers

    def _of_unit(self, lun: int | None) -> tuple[Response, tuple[Task, ...]]:
        if lun is None or lun not in self._units.disks:
            return Response.NO_SUCH_LUN, ()
        return Response.FUNCTION_COMPLETE, self._tasks.of(lun)

    def _abort_task(
        self, request: TaskManagementRequest, exp_cmd_sn: int, max_cmd_sn: int
    ) -> tuple[Response, tuple[Task, ...]]:
        """Abort a task; one that has not come yet is counted as come (section 11.6.1, b and c)."""
        task = self._tasks.get(request.referenced_task_tag)
        if task is not None:
            return Response.FUNCTION_COMPLETE, (task,)
        earlier = 0 < follows(request.cmd_sn, request.ref_cmd_sn) <= max(1, window(exp_cmd_sn, max_cmd_sn))
        if earlier and self._order.abort(request.ref_cmd_sn, exp_cmd_sn=exp_cmd_sn, max_cmd_sn=max_cmd_sn):
            return Response.FUNCTION_COMPLETE, ()
        return Response.NO_SUCH_TASK, ()
