"""What a lab's machines and its storage process say, held against its disks: lost writes and second writers."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from panloom.lab.disk_marks import Mark, faults

Acknowledged = Collection[tuple[int, int]]
"""(epoch, number) of each mark whose write was answered."""

_BOOTS = re.compile(r"Panloom: \S+ boots (\S+), epoch [0-9]+")
_WROTE = re.compile(r"PANLOOM wrote=([0-9]+):([0-9]+)")
_FACT = re.compile(r"(\S+?)=(\S+)")


def acknowledged_writes(consoles: Iterable[Sequence[str]]) -> Mapping[str, set[tuple[int, int]]]:
    """Return server → what its machines, one after the other, were told is written; from the machines' consoles."""
    found: dict[str, set[tuple[int, int]]] = {}
    for lines in consoles:
        server = ""
        for line in lines:
            if boots := _BOOTS.fullmatch(line):
                server = boots[1]
            elif wrote := _WROTE.fullmatch(line):
                found.setdefault(server, set()).add((int(wrote[1]), int(wrote[2])))
    return found


def lost_writes(server: str, acknowledged: Acknowledged, marks: Mapping[int, Mark]) -> tuple[str, ...]:
    """Return what shows that a write that was answered is not on the disk, or was overwritten by another's.

    A machine's last write may be on the disk though it died before the answer: the next one goes on after that.
    """
    in_order = sorted(acknowledged)
    found = list(faults(marks, server, acknowledged=max((number for _, number in in_order), default=-1)))
    found += [
        f"mark {after[1]} was acknowledged under epoch {after[0]}, after mark {before[1]} under epoch {before[0]}"
        for before, after in pairwise(in_order)
        if after[1] - before[1] not in ((1,) if after[0] == before[0] else (1, 2))
    ]
    found += [
        f"mark {number} was acknowledged under epoch {epoch} and is of epoch {marks[number].epoch}"
        for epoch, number in sorted(acknowledged)
        if number in marks and marks[number].epoch != epoch
    ]
    return tuple(found)


def second_writers(log: Iterable[str]) -> tuple[str, ...]:
    """Return what in the storage process's log shows a session of an epoch that was over, or beside one of another.

    Sessions are told by ``event=login``, ``dropped`` and ``end``, fences by ``access=none``.
    """
    there: dict[str, tuple[str, int]] = {}  # session → target, epoch
    current: dict[str, int] = {}  # target → the lowest epoch that may still log in
    found = []
    for line in log:
        facts = dict(_FACT.findall(line))
        session, target, epoch = facts.get("session", ""), facts.get("target", ""), int(facts.get("epoch", 0))
        match facts:
            case {"started": "yes"}:
                there.clear()
            case {"access": "none"}:
                current[target] = max(epoch, current.get(target, 0))
            case {"event": "dropped" | "end"}:
                there.pop(session, None)
            case {"event": "login"} if epoch:
                if epoch < current.get(target, 0):
                    found.append(f"{target}: a login under epoch {epoch} after the fence of epoch {current[target]}")
                others = {other for name, other in there.values() if name == target} - {epoch}
                found += [f"{target}: sessions of epochs {epoch} and {other} at once" for other in sorted(others)]
                there[session] = target, epoch
                current[target] = max(epoch, current.get(target, 0))
    return tuple(found)
