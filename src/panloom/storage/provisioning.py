"""Which octets of a device take space."""

from collections.abc import Iterable


def first_run(extents: Iterable[tuple[int, int]], start: int, end: int) -> tuple[int, bool]:
    """Return how many octets from ``start`` on are alike, and whether they are in one of the extents with space."""
    for begin, stop in extents:
        return (min(begin, end) - start, False) if begin > start else (min(stop, end) - start, True)
    return end - start, False
