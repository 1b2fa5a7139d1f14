"""The event log: what happened, to whom, when; kept in the store, streamed to whoever asks.

    report ──▶ number ──▶ write, in one commit with what else has gathered ──▶ /record/event/NUMBER, the last KEEP
                  └──────▶ after: tells those up to the promise, written or not    /record/event-promise

No number is ever told twice for different events.  A number is told only once the promise, the highest number that
may have been told, is durable; it runs up to ``BLOCK`` ahead, so that events are told even while the store refuses
writes.  ``report`` never waits.  An event that was not yet written when the power went is lost, and the numbers go on
after the promise; after an orderly end they go on without a gap.  No decision is made from events.
"""

import asyncio
import logging
import time
from collections import deque
from itertools import takewhile
from typing import Any

import msgspec

from panloom.errors import UnavailableError
from panloom.state.contract import Store

KEEP = 10_000
BLOCK = 100
PREFIX = "/record/event/"
PROMISE = "/record/event-promise"
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
        self._promise = 0
        self._unwritten: list[Event] = []
        self._outdated: list[int] = []  # still in the store
        self._writing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read what an earlier process wrote; call it once, before anything is reported."""
        snapshot = await self._store.range(PREFIX)
        for entry in snapshot.entries:
            self._keep(msgspec.json.decode(entry.value, type=Event))
        promise = await self._store.get(PROMISE)
        self._promise = int(promise.value) if promise else 0
        self._next = max(self._promise, self._events[-1].number if self._events else 0) + 1

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
        self._keep(event)
        self._unwritten.append(event)
        self._wake.set()
        _log.info("event=%s server=%s node=%s epoch=%s text=%r", kind, server, node, epoch, text)

    async def after(self, number: int, *, wait_seconds: float = 0.0) -> tuple[Event, ...]:
        """Return the events after ``number``; wait up to ``wait_seconds`` for one if there are none yet."""
        if self._told < self._next - 1:
            await self._write()
        if self._told <= number and wait_seconds > 0:
            try:
                async with asyncio.timeout(wait_seconds), self._changed:
                    await self._changed.wait_for(lambda: self._told > number)
            except TimeoutError:
                return ()
        told = self._told
        return tuple(event for event in self._events if number < event.number <= told)

    def about(self, node: str, *, since: float) -> list[Event]:
        """Return a node's events since a wall-clock time, oldest first; no decision is made from them."""
        found = [
            event for event in takewhile(lambda event: event.at >= since, reversed(self._events)) if event.node == node
        ]
        return found[::-1]

    async def write(self) -> None:
        """Write events as they are reported, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._tell()
            await self._write()
            await self._tell()

    async def close(self) -> None:
        """Write what has gathered, and take back the numbers that were promised and not used."""
        await self._write(ahead=0)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @property
    def _told(self) -> int:
        """The highest number that may be told."""
        return min(self._promise, self._next - 1)

    def _keep(self, event: Event) -> None:
        if len(self._events) == KEEP:
            self._outdated.append(self._events[0].number)
        self._events.append(event)

    async def _write(self, *, ahead: int = BLOCK) -> None:
        """Write what has gathered; what the store refuses now is tried again with the next."""
        async with self._writing:
            batch, outdated = tuple(self._unwritten), frozenset(self._outdated)
            last = self._next - 1
            promise = last + ahead if ahead == 0 or self._promise < last + ahead // 2 else self._promise
            put = {_key(event.number): msgspec.json.encode(event) for event in batch if event.number not in outdated}
            if promise != self._promise:
                put[PROMISE] = str(promise).encode()
            try:
                await self._store.commit(put=put, delete=[_key(number) for number in outdated])
            except UnavailableError as error:
                _log.warning("events=%d unwritten=yes why=%r", len(batch), str(error))
                return
            self._promise = promise
            del self._unwritten[: len(batch)]
            del self._outdated[: len(outdated)]


def _key(number: int) -> str:
    return f"{PREFIX}{number:012d}"
