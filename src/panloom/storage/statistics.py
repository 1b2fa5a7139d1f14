"""What a device has done: operations, octets, time in progress, and how long each took.

    session and device  ──▶ Counters ─┐
    device's own threads ─▶ Counters ─┼─ summed when asked ──▶ Totals
    sessions that ended ──▶ Counters ─┘

What is done at once is counted in Counters of its session, so nothing in the way of a READ takes a lock.  What is read
while operations are under way may miss the last of them; once they are answered it is exact, unless two threads served
the session at the same moment.

An operation of ``t`` nanoseconds counts in bucket ``t.bit_length()`` of the histogram: bucket 17 is 65.5 to 131 µs.
"""

import threading
from array import array
from enum import IntEnum

import msgspec

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython

if cython.compiled:
    from cython.cimports.panloom.storage.linux import bit_length
else:
    bit_length = int.bit_length

BUCKETS = 40  # up to nine minutes; what takes longer counts in the last
_BUCKETS = BUCKETS  # C's, where there is C


class Kind(IntEnum):
    """What is counted apart."""

    READ = 0
    WRITE = 1
    FLUSH = 2
    UNMAP = 3


class Totals(msgspec.Struct, frozen=True):
    """What a device has done since the process began to serve it; what failed is not in it, but for ``failed``."""

    operations: int = 0  # reads, writes, flushes and unmaps
    octets: int = 0  # read and written
    reads: int = 0
    writes: int = 0
    flushes: int = 0
    unmaps: int = 0
    read_octets: int = 0
    written_octets: int = 0
    unmapped_octets: int = 0
    failed: int = 0
    in_progress_seconds: float = 0.0  # of each session by itself: two that wait at the same time count twice
    read_latency: tuple[int, ...] = ()  # how many reads took so long, by bucket
    write_latency: tuple[int, ...] = ()


class Counters:
    """Counts the operations of one session, or of a device's own threads."""

    __slots__ = ("failed", "latencies", "nanoseconds", "octets")

    def __init__(self) -> None:
        self.latencies = array("q", bytes(8 * BUCKETS * len(Kind)))  # one histogram behind the other
        self.octets = array("q", bytes(8 * len(Kind)))
        self.nanoseconds = 0
        self.failed = 0

    def count(self, kind: Kind, octets: int, nanoseconds: int) -> None:
        """Count an operation that was done."""
        bucket = bit_length(nanoseconds)
        self.latencies[kind * _BUCKETS + (bucket if bucket < _BUCKETS else _BUCKETS - 1)] += 1
        self.octets[kind] += octets
        self.nanoseconds += nanoseconds

    def count_failed(self, nanoseconds: int) -> None:
        """Count an operation that failed."""
        self.failed += 1
        self.nanoseconds += nanoseconds

    def histogram(self, kind: Kind) -> tuple[int, ...]:
        """Return how many operations of a kind took so long, by bucket."""
        return tuple(self.latencies[kind * BUCKETS : (kind + 1) * BUCKETS])

    def add(self, other: "Counters") -> None:
        """Add what another has counted."""
        for mine, theirs in ((self.latencies, other.latencies), (self.octets, other.octets)):
            for at, count in enumerate(theirs):
                mine[at] += count
        self.nanoseconds += other.nanoseconds
        self.failed += other.failed


class Statistics:
    """The Counters of one device; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = Counters()
        self._live: list[Counters] = []

    def begin(self) -> Counters:
        """Return Counters for one session."""
        counters = Counters()
        with self._lock:
            self._live.append(counters)
        return counters

    def end(self, counters: Counters) -> None:
        """Keep what was counted by then.  Nothing happens the second time."""
        with self._lock:
            if any(counters is each for each in self._live):
                self._live.remove(counters)
                self._ended.add(counters)

    def totals(self) -> Totals:
        """Return the sums."""
        total = Counters()
        with self._lock:
            for each in (self._ended, *self._live):
                total.add(each)
        reads, writes, flushes, unmaps = (sum(total.histogram(kind)) for kind in Kind)
        return Totals(
            operations=reads + writes + flushes + unmaps,
            octets=total.octets[Kind.READ] + total.octets[Kind.WRITE],
            reads=reads,
            writes=writes,
            flushes=flushes,
            unmaps=unmaps,
            read_octets=total.octets[Kind.READ],
            written_octets=total.octets[Kind.WRITE],
            unmapped_octets=total.octets[Kind.UNMAP],
            failed=total.failed,
            in_progress_seconds=total.nanoseconds / 1e9,
            read_latency=total.histogram(Kind.READ),
            write_latency=total.histogram(Kind.WRITE),
        )


def quantile_seconds(histogram: tuple[int, ...], share: float) -> float | None:
    """Return what this share of the operations (0 … 1) took at most, by the upper end of its bucket; None without any.

    The buckets double, so the truth is between half of it and it.
    """
    wanted = share * sum(histogram)
    if not wanted:
        return None
    seen = 0
    for bucket, operations in enumerate(histogram):
        seen += operations
        if seen >= wanted:
            return (1 << bucket) / 1e9
    raise ValueError(f"{share} is no share")
