"""How much a device may do in a second.

    request of n octets ──▶ Limiter.begin(n, now) ──▶ seconds until it may begin; 0: at once
                              ├─ bucket of operations
                              └─ bucket of octets

A bucket fills at its rate up to its burst.  A request begins when the bucket is not in debt, and takes all that it
needs, into debt if need be: so one larger than the burst gets through, and what follows pays for it.  Requests begin in
the order in which they came.

Pure: who calls has the clock, waits, and holds a lock where several threads call.
"""

from typing import Annotated

import msgspec

BURST_SECONDS = 0.1  # what may come at once after a pause, as the seconds it would take at the rate

Rate = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device may do in a second; None: as much as it can."""

    operations: Rate | None = None
    octets: Rate | None = None


NO_LIMITS = Limits()


class TokenBucket:
    """See above; ``rate`` and ``burst`` are positive, times are seconds; before the last one it was further in debt."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst  # negative: a debt
        self._at = now

    def wait_seconds(self, now: float) -> float:
        """Return how long from now until the next request may begin."""
        self._fill(now)
        return max(0.0, -self._tokens / self.rate)

    def take(self, tokens: float, now: float) -> None:
        """Take what a request needs."""
        self._fill(now)
        self._tokens -= tokens

    def change(self, rate: float, burst: float, now: float) -> None:
        """Go on at another rate; a debt is paid at the new one, that of requests which begin later included."""
        self._fill(now)
        self.rate, self.burst = rate, burst
        self._tokens = min(self._tokens, burst)

    def _fill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now


class Limiter:
    """The limits of one device; they can be changed at any time."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = NO_LIMITS
        self._operations: TokenBucket | None = None
        self._octets: TokenBucket | None = None
        self._last = now  # when the request that came last begins
        self.change(limits, now)

    def change(self, limits: Limits, now: float) -> None:
        """Hold to other limits from now on; requests that were told to wait are not called back."""
        self.limits, self._last = limits, now
        self._operations = _changed(self._operations, limits.operations, now)
        self._octets = _changed(self._octets, limits.octets, now)

    def begin(self, octets: int, now: float) -> float:
        """Return how many seconds a request has to wait that comes now; it is counted as begun then."""
        wanted = [(bucket, n) for bucket, n in ((self._operations, 1), (self._octets, octets)) if bucket is not None]
        start = max(now, self._last)
        start += max((bucket.wait_seconds(start) for bucket, _ in wanted), default=0.0)
        for (
            bucket,
            tokens,
        ) in wanted:  # then, and not now: while one lets it wait, the other saves no more than its burst
            bucket.take(tokens, start)
        self._last = start
        return start - now


def _changed(bucket: TokenBucket | None, rate: int | None, now: float) -> TokenBucket | None:
    if rate is None:
        return None
    burst = max(1.0, rate * BURST_SECONDS)
    if bucket is None:
        return TokenBucket(rate, burst, now)
    bucket.change(rate, burst, now)
    return bucket
