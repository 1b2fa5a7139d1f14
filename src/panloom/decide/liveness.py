"""When is a machine dead?  Only when nothing has been heard of it, by anyone, while we ourselves were awake.

Signs of life are a NOP-In that the node's kernel answered (or any other PDU), a beacon under the epoch's key, and the
power state.  A server is watched from its first sign of life under its epoch; before that its boot has a deadline of
its own.

    watch(server, now)  heard(server, at)  excuse(server, until)  hold(until)  forget(server)  ->  verdicts(now)
    settled(server, at)

A server that has just come up may hand its sessions from one initiator to the next: its silence begins
``grace_seconds`` after it is watched, or at its first sign of having settled.  Until then its silence proves nothing
of itself, but it counts among those that fall at once.

Three things make silence worthless as evidence, and then everything is *held*: the silence of every server begins anew.

    our own loop came late by more than an interval      (we were paused, or the machine was)
    the storage process did not answer or has restarted  (nobody was there to hear)
    more servers fell silent at once than max_simultaneous (it is the network or ourselves, not they): probe again
"""

from enum import Enum

import msgspec

MAX_BEACON_SECONDS = 1.0


def beacon_seconds(timeout_seconds: float) -> float:
    """Return how often a node shall send a beacon: a quarter of the time-out, at most ``MAX_BEACON_SECONDS``.

    A living server is then never half-way to silence, where it would count among those that fall.
    """
    return min(MAX_BEACON_SECONDS, round(timeout_seconds / 4, 3))


class Verdict(Enum):
    """What silence means."""

    DEAD = "dead"
    HELD = "held"


class Finding(msgspec.Struct, frozen=True):
    """One verdict and the servers it is about."""

    verdict: Verdict
    servers: tuple[str, ...]
    why: str


class Liveness:
    """Watches servers for silence; all times are monotonic seconds."""

    def __init__(self, *, interval_seconds: float, timeout_seconds: float, max_simultaneous: int) -> None:
        self.interval_seconds = interval_seconds
        self.timeout_seconds = timeout_seconds
        self.max_simultaneous = max_simultaneous
        self._heard: dict[str, float] = {}  # when a server's silence begins
        self._young: dict[str, float] = {}  # not settled yet → when it was last heard
        self._last_tick: float | None = None
        self._held_until = float("-inf")
        self._held: frozenset[str] = frozenset()  # told of as held, and not heard since

    def watch(self, server: str, now: float, *, grace_seconds: float = 0.0) -> None:
        """Begin to expect signs of life of a server; nothing changes if it is watched already."""
        if server not in self._heard:
            self._heard[server] = now + grace_seconds
            if grace_seconds:
                self._young[server] = now

    def settled(self, server: str, at: float) -> None:
        """Note a sign of life of a server that owes us no hand-over any more: its grace is over."""
        young = self._young.pop(server, None)
        if young is not None and self._heard[server] > at:
            self._heard[server] = max(at, self._held_until)
        self.heard(server, at)

    def forget(self, server: str) -> None:
        """Expect nothing of a server any more."""
        self._heard.pop(server, None)
        self._young.pop(server, None)

    @property
    def watched(self) -> tuple[str, ...]:
        """The servers of which signs of life are expected."""
        return tuple(self._heard)

    def heard(self, server: str, at: float) -> None:
        """Note a sign of life at ``at``; older ones than known and those of servers not watched change nothing."""
        known = self._heard.get(server)
        if server in self._young:
            self._young[server] = max(self._young[server], at)
        if known is not None and at > known:
            self._heard[server] = at
            self._held -= {server}

    def excuse(self, server: str, until: float) -> None:
        """Let a server's silence begin at ``until``, whatever was heard before: it said when to expect it again."""
        if server in self._heard:
            self._heard[server] = until
            self._held -= {server}
            self._young.pop(server, None)

    def silence(self, server: str, now: float) -> float | None:
        """Return for how many seconds nothing was heard of a server, None if it is not watched."""
        at = self._heard.get(server)
        return None if at is None else max(0.0, now - at)

    def unheard(self, server: str, now: float) -> float:
        """Return for how many seconds nothing was heard of a server, grace or not; infinite if it is not watched."""
        at = self._young.get(server, self._heard.get(server, float("-inf")))
        return max(0.0, now - at)

    def hold(self, until: float) -> None:
        """Let every server's silence begin no earlier than ``until``: what went before proves nothing."""
        self._held_until = max(self._held_until, until)
        for server, at in self._heard.items():
            self._heard[server] = max(at, until)
        for server, at in self._young.items():
            self._young[server] = max(at, until)

    def verdicts(self, now: float) -> tuple[Finding, ...]:
        """Judge the silence of all watched servers; call it about once an interval."""
        late = self._last_tick is not None and now - self._last_tick > 2 * self.interval_seconds + 0.1
        paused = now - (self._last_tick if self._last_tick is not None else now)
        self._last_tick = now
        if late:
            self.hold(now)
            return (Finding(Verdict.HELD, self.watched, f"we were late ourselves by {paused:.1f} s"),)
        silent = tuple(sorted(server for server, at in self._heard.items() if now - at > self.timeout_seconds))
        if not silent:
            return ()
        if len(silent) > self.max_simultaneous:
            news = set(silent) - self._held
            self._held |= set(silent)
            self.hold(now)
            why = f"{len(silent)} servers fell silent at once (max_simultaneous is {self.max_simultaneous})"
            return (Finding(Verdict.HELD, silent, why),) if news else ()
        # Neighbours that are half-way to silence may be falling with them: wait until it is clear how many they are.
        heard = {**self._heard, **self._young}
        falling = [s for s, at in heard.items() if s not in silent and now - at > self.timeout_seconds / 2]
        if falling and len(silent) + len(falling) > self.max_simultaneous:
            return ()
        return (Finding(Verdict.DEAD, silent, f"nothing heard for {self.timeout_seconds:g} s"),)
