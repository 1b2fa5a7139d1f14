"""The tasks of one session that have no status yet, and which of them may go on (SAM-5 chapter 8, RFC 7143 4.2.2.1).

    add ──▶ DORMANT ── may_begin: task attributes ──▶ verdict ── may_touch: ranges ──▶ on the medium ──▶ remove
               ▲                                          │
               └───────── waits, its PDUs kept ◀──────────┘

An ORDERED task begins when every older one of its unit has ended, and no younger one but HEAD OF QUEUE begins before it
has.  Whatever its attribute, a task waits for older ones of its unit whose range overlaps its own, if either changes
the medium.  Units do not wait for each other.
"""

import enum
from collections import Counter

from panloom.protocol.iscsi_task import Extent, Task
from panloom.wire.iscsi import HEADER_OCTETS, DataOut, ScsiCommand, lun_field

MAX_IN_HAND_OCTETS = 32 << 20  # asked for, or not yet on the medium; one burst may go beyond


class Attribute(enum.IntEnum):
    """Task attributes (RFC 7143 section 11.3.1); all that is not one of these counts as SIMPLE."""

    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3


_BARRIERS = (Attribute.ORDERED, Attribute.HEAD_OF_QUEUE)


class TaskSet:
    """Tasks in the order of their arrival; ``by_tag`` has them by initiator task tag, and is changed here alone."""

    def __init__(self) -> None:
        self.by_tag: dict[int, Task] = {}
        self.immediate = 0  # how many came outside the order of CmdSN
        self._open = Counter[int]()  # how many, by LUN field
        self._ordering = Counter[int]()  # and how many of them a SIMPLE READ may have to wait for
        self._dormant = 0
        self._freed = False  # something may let a dormant task go on
        self.kept_octets = 0  # of the dormant ones

    def __len__(self) -> int:
        return len(self.by_tag)

    def __contains__(self, initiator_task_tag: int) -> bool:
        return initiator_task_tag in self.by_tag

    def get(self, initiator_task_tag: int) -> Task | None:
        """Return the task with this tag; None if there is none."""
        return self.by_tag.get(initiator_task_tag)

    def busy(self, field: int, *, reading: bool) -> bool:
        """Whether a unit, by the field of its LUN's shortest form, has tasks; ``reading``: that a READ may wait for."""
        return field in (self._ordering if reading else self._open)

    def add(self, task: Task) -> None:
        """Take a task in, as the youngest."""
        self.by_tag[task.initiator_task_tag] = task
        self.immediate += task.immediate
        for counter in self._counters(task):
            counter[_field(task)] += 1

    def remove(self, task: Task) -> None:
        """Let a task go, which has ended or been aborted."""
        if self.by_tag.get(task.initiator_task_tag) is task:
            del self.by_tag[task.initiator_task_tag]
            self.immediate -= task.immediate
            self._freed = True
            self._stir(task)
            field = _field(task)
            for counter in self._counters(task):
                counter[field] -= 1
                if not counter[field]:
                    del counter[field]

    def of(self, lun: int | None) -> tuple[Task, ...]:
        """Return the tasks of a unit, oldest first; None: of all units."""
        return tuple(task for task in self.by_tag.values() if lun is None or task.lun == lun)

    @property
    def has_room(self) -> bool:
        """Whether more data may be asked for: a slow medium, or many writes, must not fill our memory."""
        return sum(task.in_hand for task in self.by_tag.values()) < MAX_IN_HAND_OCTETS

    def may_begin(self, task: Task) -> bool:
        """Whether the attributes of older tasks, and its own, let a task begin."""
        if task.attribute == Attribute.HEAD_OF_QUEUE:
            return True
        for older in self.by_tag.values():
            if older is task:
                break
            if older.lun == task.lun and (task.attribute == Attribute.ORDERED or older.attribute in _BARRIERS):
                return False
        return True

    def may_touch(self, task: Task) -> bool:
        """Whether no older task has a range that overlaps the task's, where either writes."""
        ahead = task.attribute == Attribute.HEAD_OF_QUEUE
        for older in self.by_tag.values():
            if older is task:
                break
            if older.lun == task.lun and task.extent.disturbs(older.extent) and not (ahead and older.dormant):
                return False
        return True

    def narrow(self, task: Task, extent: Extent) -> None:
        """Take note that a task touches less than it might have."""
        task.extent = extent
        self._freed = True

    def sleep(self, task: Task, pdu: ScsiCommand | DataOut | None = None) -> None:
        """Let a task wait until it may go on, and keep what has come for it."""
        self._dormant += not task.dormant
        task.dormant = True
        if pdu is not None:
            task.waiting.append(pdu)
            self.kept_octets += HEADER_OCTETS + len(pdu.data)

    def awake(self) -> tuple[Task, list[ScsiCommand | DataOut]] | None:
        """Wake the oldest dormant task that may go on; return it and what was kept for it.  None if all must wait."""
        if not self._dormant or not self._freed:
            return None
        for task in self.by_tag.values():
            if task.dormant and self.may_begin(task) and (task.verdict is None or self.may_touch(task)):
                return task, self._stir(task)
        self._freed = False
        return None

    def _counters(self, task: Task) -> tuple[Counter[int], ...]:
        return (self._open,) if task.plain_read else (self._open, self._ordering)

    def _stir(self, task: Task) -> list[ScsiCommand | DataOut]:
        """End a task's sleep; return what was kept for it."""
        self._dormant -= task.dormant
        task.dormant = False
        kept, task.waiting = task.waiting, []
        self.kept_octets -= sum(HEADER_OCTETS + len(pdu.data) for pdu in kept)
        return kept


def _field(task: Task) -> int:
    return lun_field(task.lun) if task.lun >= 0 else -1
