"""How long an answer may take before it is missed: RFC 6298, for protocols that repeat by themselves.

    sample(seconds)     what one exchange took that was not repeated (Karn's algorithm is the caller's)
    timeout(repeats)    how long to wait for an answer after so many repeats: doubled each time, between bounds

The bounds are not those of RFC 6298 section 2 (1 s and 60 s): a boot crosses a data centre, not the Internet, and a
machine that loses a packet of a hundred should not notice.
"""

FIRST_SECONDS = 0.5  # nothing is known yet
LONGEST_FIRST_SECONDS = 4.0
SHORTEST_SECONDS = 0.05  # more than what firmware's polling adds
LONGEST_SECONDS = 1.0
_ALPHA, _BETA = 1 / 8, 1 / 4  # RFC 6298 section 2.3


class RoundTrip:
    """The estimate for one peer."""

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._shortest = 0.0

    @property
    def shortest(self) -> float:
        """The shortest round trip seen, in seconds: nothing sent can have been answered sooner.  0.0 at first."""
        return self._shortest

    def sample(self, seconds: float) -> None:
        """Take in how long an answer took; section 2.2 and 2.3."""
        if self._smoothed is None:
            self._smoothed, self._variation, self._shortest = seconds, seconds / 2, seconds
            return
        self._variation += _BETA * (abs(self._smoothed - seconds) - self._variation)
        self._smoothed += _ALPHA * (seconds - self._smoothed)
        self._shortest = min(self._shortest, seconds)

    def timeout(self, repeats: int) -> float:
        """Return how many seconds to wait for an answer to what was repeated so often; section 2.4 and 5.5."""
        backed_off = 1 << min(repeats, 16)
        if self._smoothed is None:
            return min(FIRST_SECONDS * backed_off, LONGEST_FIRST_SECONDS)
        usual = max(self._smoothed + 4 * self._variation, SHORTEST_SECONDS)
        return min(usual * backed_off, max(LONGEST_SECONDS, usual))
