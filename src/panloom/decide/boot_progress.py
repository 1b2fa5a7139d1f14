"""Does a machine's boot get on?  Only a stage beyond all those before it is progress.

A machine whose boot fails late begins again by itself and passes the same stages in every round.  However busy it
looks, it is as stuck as one that is silent:

    power ─▶ dhcp ─▶ script ─▶ login ─┐        stalled since the first login: each round ends where the last one did
               ▲                      │
               └──────────────────────┘

    expect(node, what, now)  reached(node, stage, at)  excuse(seconds)  ->  stalled_seconds(node, now)  stage(node)

It is counted anew from each power-on, and from when something else is expected of the machine: what it reached as
another server, or while nobody saw it, is nothing to what is asked of it now.
"""

from collections.abc import Hashable, Sequence


class BootProgress:
    """How far each machine has come, and since when no further; all times are monotonic seconds."""

    def __init__(self, stages: Sequence[str]) -> None:
        """``stages``: in the order in which a boot passes them; the first is the power-on."""
        self._stages = stages
        self._expected: dict[str, Hashable] = {}
        self._furthest: dict[str, tuple[int, float]] = {}
        """Node → position of the furthest stage, -1 for none, and when it was reached first."""

    def expect(self, node: str, what: Hashable, now: float) -> None:
        """Begin to expect a boot; nothing changes while the same ``what`` is expected."""
        if node not in self._expected or self._expected[node] != what:
            self._expected[node] = what
            self._furthest[node] = -1, now

    def reached(self, node: str, stage: str, at: float) -> None:
        """Note a stage; one that was reached before changes nothing, but for the power-on, which begins anew."""
        position = self._stages.index(stage)
        if position == 0 or position > self._furthest.get(node, (-1, at))[0]:
            self._furthest[node] = position, at

    def excuse(self, seconds: float) -> None:
        """Leave so much time out of every boot: no machine could get on, or we could not see it."""
        self._furthest = {node: (position, at + seconds) for node, (position, at) in self._furthest.items()}

    def stalled_seconds(self, node: str, now: float) -> float:
        """Return for how long a machine has come no further; 0 if no boot of it is known."""
        return max(0.0, now - self._furthest.get(node, (-1, now))[1])

    def stage(self, node: str) -> str | None:
        """Return the furthest stage, None if none was reached."""
        position = self._furthest.get(node, (-1, 0.0))[0]
        return self._stages[position] if position >= 0 else None
