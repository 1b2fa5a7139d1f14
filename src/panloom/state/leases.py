"""Which leases run and until when: plain bookkeeping, with the time as an argument.

Times are seconds of a monotonic clock, so that setting the wall clock ends nothing and keeps nothing alive.
"""

from panloom.errors import ConflictError


class Leases:
    """The running leases of one store."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._ends: dict[int, float] = {}

    @property
    def deadline(self) -> float | None:
        """When the first lease ends; None when none runs."""
        return min(self._ends.values(), default=None)

    def start(self, lease: int, seconds: float, *, now: float) -> None:
        """Let ``lease`` run for ``seconds``."""
        self._seconds[lease] = seconds
        self._ends[lease] = now + seconds

    def keep(self, lease: int, *, now: float) -> None:
        """Count its seconds anew; ``ConflictError`` if it has ended."""
        self.check(lease, now=now)
        self._ends[lease] = now + self._seconds[lease]

    def check(self, lease: int, *, now: float) -> None:
        """Raise ``ConflictError`` if ``lease`` has ended."""
        if now >= self._ends.get(lease, now):
            raise ConflictError(f"lease {lease} has ended")

    def due(self, *, now: float) -> tuple[int, ...]:
        """Return the leases whose time is over and that are not yet forgotten."""
        return tuple(lease for lease, end in self._ends.items() if now >= end)

    def stop(self, lease: int) -> None:
        """Let ``lease`` be over from now on; it stays due until forgotten."""
        if lease in self._ends:
            self._ends[lease] = float("-inf")

    def forget(self, lease: int) -> None:
        """Drop a lease whose keys are gone for good."""
        self._ends.pop(lease, None)
        self._seconds.pop(lease, None)
