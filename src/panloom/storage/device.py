"""One device as all its sessions share it: what it has done, how much it may do, whether it is slow, what was said.

It outlives the opening of a volume or a store: statistics, limits and names stay when that is closed and opened anew.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Literal

from panloom.storage.elsewhere import Workers
from panloom.storage.limits import NO_LIMITS, Limiter, Limits
from panloom.storage.statistics import Counters, Kind, Statistics

# An operation that takes longer, and longer than a busy machine keeps a thread waiting, is felt by others …
SLOW_NANOSECONDS = 25_000_000
SLOW_FOR_NANOSECONDS = 1_000_000_000  # … so for that long the device's operations are done on threads of their own,
OVERDUE_NANOSECONDS = 250_000_000  # where they wait for one another, too: one is slow there only if it takes longer
TELL_AGAIN_SECONDS = 60.0  # a disk that goes on failing is a line a minute

log = logging.getLogger(__name__)


class Device:
    """See above; every method may be called from any thread.

    ``kind`` and ``name`` are for the log.  ``report_lost`` gets a line, once each time that it is taken offline.
    """

    def __init__(self, kind: Literal["volume", "device"], name: str, report_lost: Callable[[str], None]) -> None:
        self.kind = kind
        self.name = name
        self.statistics = Statistics()
        self.limiter: Limiter | None = None
        self.workers = Workers(name)
        self.slow_until_ns = 0  # CLOCK_MONOTONIC
        self._report_lost = report_lost
        self._lock = threading.Lock()  # of what follows
        self._elsewhere = self.statistics.begin()  # what its workers count
        self._told: dict[tuple[str, int | None], float] = {}  # trouble → when it was last logged
        self._lost_told = False

    @property
    def limits(self) -> Limits:
        """What it may do in a second."""
        return self.limiter.limits if self.limiter else NO_LIMITS

    def limit(self, limits: Limits) -> None:
        """Hold it to these limits from now on."""
        with self._lock:
            if limits == NO_LIMITS:
                self.limiter = None
            elif self.limiter is None:
                self.limiter = Limiter(limits, time.monotonic())
            elif limits != self.limiter.limits:
                self.limiter.change(limits, time.monotonic())

    def wait_seconds(self, octets: int) -> float:
        """Return how long an operation has to wait that comes now; it is counted as begun then."""
        with self._lock:
            return self.limiter.begin(octets, time.monotonic()) if self.limiter else 0.0

    def count_elsewhere(self, kind: Kind, octets: int, nanoseconds: int, error: Exception | None) -> None:
        """Count an operation that one of the workers has done."""
        with self._lock:
            count(self._elsewhere, kind, octets, nanoseconds, error)

    def opened(self) -> None:
        """Take note that it was opened anew."""
        self._lost_told = False

    def tell(self, what: str, error: OSError, lost: str) -> None:
        """Log what the initiator is told as sense data, and report once that the device is ``lost``."""
        now, trouble = time.monotonic(), (what, error.errno)
        with self._lock:
            said = lost != "" or now - self._told.get(trouble, -math.inf) < TELL_AGAIN_SECONDS
            first_lost = lost != "" and not self._lost_told
            self._lost_told = self._lost_told or first_lost
            if not said:
                self._told[trouble] = now
        if not said:
            log.warning("%s=%s %s=failed why=%r", self.kind, self.name, what, error.strerror)
        if first_lost:
            self._report_lost(f"{self.kind} {self.name} is offline: {lost}")


def count(counters: Counters, kind: Kind, octets: int, nanoseconds: int, error: Exception | None) -> None:
    """Count an operation, whether it was done or failed."""
    if error is None:
        counters.count(kind, octets, nanoseconds)
    else:
        counters.count_failed(nanoseconds)
