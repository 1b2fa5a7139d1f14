"""Which servers are late, and since when: boots that come no further, moves that take longer than they may.

The first is said in the server's row only, as it changes from second to second; the second is an event as well, once
for each move.  ``failover: {within: …}`` moves nothing by itself: it is what a server's owner counts on.
"""

import time

from panloom.control.events import EventLog
from panloom.control.world import World
from panloom.decide.failover import overdue_seconds
from panloom.decide.server_plan import ServerView, why_slow
from panloom.model.resources import Server


class Lateness:
    """Remembers what was seen last of each server."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._boots: dict[str, str | None] = {}
        self._moves: dict[str, str] = {}
        self._told: dict[str, float | None] = {}
        """Server → beginning of the move that was last told of."""

    def of(self, server: str) -> str | None:
        """Return in what a server is late, None if in nothing."""
        return "; ".join(filter(None, (self._boots.get(server), self._moves.get(server)))) or None

    def see_boot(self, view: ServerView) -> None:
        """Look whether a server's machine gets on with its boot."""
        self._boots[view.name] = why_slow(view)

    def see_moves(self, world: World) -> None:
        """Look how long moves have taken."""
        self._moves.clear()
        for name, server in world.all(Server).items():
            record = world.server_records.get(name)
            seconds = overdue_seconds(record, server.failover.within_seconds, time.time()) if record else None
            if record is None or seconds is None:
                continue
            within = f"longer than its failover.within, {server.failover.within_seconds:g} s"
            self._moves[name] = f"moves for {seconds:.0f} s now, {within}"
            if self._told.get(name) != record.moving_since:
                self._told[name] = record.moving_since
                self._events.report("late", self._moves[name], server=name, epoch=record.epoch)
