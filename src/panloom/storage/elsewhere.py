"""Threads for what a connection's own must not wait for: slow media, and frames that a limit holds back.

    Workers    of one device: as many threads as it needs, up to WORKERS, so a device that hangs takes none of another's
    Delays     of all: one thread that hands each deed to its device's Workers when its time has come

All are daemons: what hangs for ever in a call of the kernel does not keep the process from ending.
"""

import heapq
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, monotonic_ns

WORKERS = 16  # of one device: what initiators have under way, about
IDLE_SECONDS = 5.0
NEVER = 1 << 62  # nanoseconds; fits in 64 bits, and so does its distance to any time

Deed = Callable[[], None]

log = logging.getLogger(__name__)


class Workers:
    """The threads of one device; each begins when there is something to do, and ends when there is nothing.

    ``busy_since_ns``: when the oldest deed under way was begun (CLOCK_MONOTONIC), NEVER while there is none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Deed] = deque()
        self._begun: dict[object, int] = {}  # thread → when it began what it does, the oldest first
        self._idle = self._threads = 0
        self.busy_since_ns = NEVER

    def put(self, deed: Deed) -> None:
        """Have a deed done soon, after those that were put before it have begun."""
        with self._changed:
            self._waiting.append(deed)
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._threads < WORKERS:
                self._threads += 1
                threading.Thread(target=self._work, name=f"device-{self._name}", daemon=True).start()

    def _work(self) -> None:
        thread = object()
        while (deed := self._next(thread)) is not None:
            try:
                deed()
            except Exception:  # the thread's top guard: the other deeds of the device go on
                log.exception("device=%s", self._name)

    def _next(self, thread: object) -> Deed | None:
        with self._changed:
            self._begun.pop(thread, None)
            self.busy_since_ns = next(iter(self._begun.values()), NEVER)
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS)
            self._idle -= 1
            if not self._waiting:
                self._threads -= 1
                return None
            self._begun[thread] = monotonic_ns()
            self.busy_since_ns = next(iter(self._begun.values()))
            return self._waiting.popleft()


class Delays:
    """What is to be done later, by whom, and for which owner."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, object, Workers, Deed]] = []
        self._running = False

    def add(self, seconds: float, owner: object, workers: Workers, deed: Deed) -> None:
        """Have a deed done by these workers in so many seconds."""
        with self._changed:
            heapq.heappush(self._heap, (self._clock() + seconds, next(self._numbers), owner, workers, deed))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="delays", daemon=True).start()
            self._changed.notify()

    def hasten(self, owner: object) -> None:
        """Have all that one owner waits for done now."""
        with self._changed:
            now = [entry for entry in self._heap if entry[2] is owner]
            self._heap = [entry for entry in self._heap if entry[2] is not owner]
            heapq.heapify(self._heap)
        for _, _, _, workers, deed in sorted(now, key=lambda entry: entry[:2]):
            workers.put(deed)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > self._clock():
                    woken = self._changed.wait(self._heap[0][0] - self._clock() if self._heap else IDLE_SECONDS)
                    if not woken and not self._heap:
                        self._running = False
                        return
                _, _, _, workers, deed = heapq.heappop(self._heap)
            workers.put(deed)
