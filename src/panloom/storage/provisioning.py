"""Which octets of a disk take space."""

from collections.abc import Iterable

from panloom.disk_io import data_extents
from panloom.storage.below import Below
from panloom.storage.volume_file import VolumeFile
from panloom.storage.volume_layout import CLUSTER_OCTETS

MOST_CLUSTERS = 4096  # looked at together


def first_run(extents: Iterable[tuple[int, int]], start: int, end: int) -> tuple[int, bool]:
    """Return how many octets from ``start`` on are alike, and whether they are in one of the extents with space."""
    for begin, stop in extents:
        return (min(begin, end) - start, False) if begin > start else (min(stop, end) - start, True)
    return end - start, False


def run_at(top: VolumeFile, below: Below, offset: int, end: int) -> tuple[int, bool]:
    """Return ``first_run`` of a volume: in its own file, or in what is below it."""
    first = offset // CLUSTER_OCTETS
    own, limit = top.own.run(first, min(-(-end // CLUSTER_OCTETS), first + MOST_CLUSTERS))
    end = min(end, limit * CLUSTER_OCTETS)
    if not own:
        return first_run(((each.start, each.end) for each in below.extents(offset, end)), offset, end)
    at, end = top.layout.data_at(offset), min(end, top.group_end(offset))
    return first_run(data_extents(top.fd, at, at + end - offset), at, at + end - offset)
