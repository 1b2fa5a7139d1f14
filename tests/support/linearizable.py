"""Is a history of concurrent calls one that a single unit could have made, one call after the other?

    client 1    ├── write 7 ──┤        ├─ read: 7 ─┤
    client 2         ├── compare 5, write 9: miscompare ──┤      some order of these has these results
    client 3              ├── write 8 … killed             may have been done before the kill, or never

The history is read once, in the order of time.  A configuration is a state of the unit and the calls under way that are
done already; at each answer only those stay in which the call is done with just this result.  (Lowe, "Testing for
linearizability", just-in-time linearization.)
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

MOST = 200_000  # configurations at one answer; no model here comes near


class Call(NamedTuple):
    """One call of a client; ``result`` None: nobody knows, it may have been done until ``end``, or never."""

    begin: float
    end: float
    what: Hashable
    result: Hashable | None


class Model(NamedTuple):
    """A unit: ``step`` returns its state after a call that had this result, none if it cannot have had that."""

    start: Hashable
    step: Callable[[Any, Any, Any], Iterable[Any]]


def first_wrong(calls: Sequence[Call], model: Model) -> Call | None:
    """Return the first call whose answer no order explains, None if the history is linearizable."""
    events = sorted(
        [(call.begin, 0, number) for number, call in enumerate(calls)]
        + [(call.end, 1, number) for number, call in enumerate(calls) if call.end < math.inf]
    )
    under_way: set[int] = set()
    configurations = {(model.start, frozenset[int]())}
    for _, is_end, number in events:
        if not is_end:
            under_way.add(number)
            continue
        configurations = _ended(configurations, number, under_way, calls, model)
        if not configurations:
            return calls[number]
        under_way.remove(number)
    return None


def _ended(configurations, number, under_way, calls, model):
    """Return the configurations in which a call is over: done with its result, or of an unknown one never done."""
    left, seen, todo = set(), set(configurations), list(configurations)
    while todo:
        state, done = todo.pop()
        if number in done:
            left.add((state, done - {number}))
            continue
        if calls[number].result is None:
            left.add((state, done))
        for other in under_way - done:
            for after in model.step(state, calls[other].what, calls[other].result):
                found = (after, done | {other})
                if found not in seen:
                    seen.add(found)
                    todo.append(found)
        if len(seen) > MOST:
            raise OverflowError(f"more than {MOST} configurations: too many calls at once for this model")
    return left
