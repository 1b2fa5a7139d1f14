"""The event log: what happened, to whom, when; kept in the store, streamed to whoever asks.

Events are numbered from 1 without a gap and kept under ``/record/event/NUMBER``; the oldest go when there are more than
``KEEP``.  ``report`` never waits: a task writes what has gathered in one commit.  An event that was not yet written
when the power went is lost; no decision is made from events.
"""

import asyncio
import logging
import time
from collections import deque
from typing import Any

import msgspec

from panloom.errors import UnavailableError
from panloom.state.contract import Store

KEEP = 10_000
PREFIX = "/record/event/"
_log = logging.getLogger("panloom.event")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. ``at`` is the wall clock in seconds, ``monotonic`` the clock that never jumps."""

    number: int
    at: float
    monotonic: float
    kind: str
    text: str
    server: str | None = None
    node: str | None = None
    epoch: int | None = None
    data: dict[str, Any] = {}


class EventLog:
    """Numbers, keeps and streams events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._events: deque[Event] = deque(maxlen=KEEP)
        self._next = 1
        self._unwritten: list[Event] = []
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read what an earlier process wrote; call it once, before anything is reported."""
        snapshot = await self._store.range(PREFIX)
        for entry in snapshot.entries:
            self._events.append(msgspec.json.decode(entry.value, type=Event))
        if self._events:
            self._next = self._events[-1].number + 1

    def report(
        self,
        kind: str,
        text: str,
        *,
        server: str | None = None,
        node: str | None = None,
        epoch: int | None = None,
        **data: object,
    ) -> None:
        """Note that something happened; one log line, one event."""
        event = Event(
            number=self._next,
            at=time.time(),
            monotonic=time.monotonic(),
            kind=kind,
            text=text,
            server=server,
            node=node,
            epoch=epoch,
            data=data,
        )
        self._next += 1
        self._events.append(event)
        self._unwritten.append(event)
        self._wake.set()
        _log.info("event=%s server=%s node=%s epoch=%s text=%r", kind, server, node, epoch, text)

    async def after(self, number: int, *, wait_seconds: float = 0.0) -> tuple[Event, ...]:
        """Return the events after ``number``; wait up to ``wait_seconds`` for one if there are none yet."""
        if self._next - 1 <= number and wait_seconds > 0:
            try:
                async with asyncio.timeout(wait_seconds), self._changed:
                    await self._changed.wait_for(lambda: self._next - 1 > number)
            except TimeoutError:
                return ()
        return tuple(event for event in self._events if event.number > number)

    async def write(self) -> None:
        """Write events as they are reported, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._changed:
                self._changed.notify_all()
            await self.flush()

    async def flush(self) -> None:
        """Write what has gathered; what the store refuses now is tried again with the next."""
        batch, self._unwritten = self._unwritten, []
        if not batch:
            return
        first, oldest = batch[0].number, batch[-1].number - KEEP + 1
        put = {_key(event.number): msgspec.json.encode(event) for event in batch if event.number >= oldest}
        forgotten = [_key(number) for number in range(max(1, first - KEEP), min(first, oldest))]
        try:
            await self._store.commit(put=put, delete=forgotten)
        except UnavailableError as error:
            self._unwritten = batch + self._unwritten
            _log.warning("events=%d unwritten=yes why=%r", len(self._unwritten), str(error))


def _key(number: int) -> str:
    return f"{PREFIX}{number:012d}"
