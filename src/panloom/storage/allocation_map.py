"""Which clusters of a volume hold data of their own: one bit each, the lowest bit of an octet first.

    cluster   0 1 2 3 4 5 6 7   8 9 …
    bit       1 1 1 0 0 0 0 1   1 0         run(0, 10) = (True, 3): clusters 0 … 2 are own
              └ octet 0 = 0x87  └ octet 1

Bits are only ever set.  The map is kept on disk twice (``volume_file``), in pages; ``changed_pages`` are those that
differ from the durable copy.  Reading needs no lock; whoever sets bits holds the volume's.
"""

from panloom.storage.volume_layout import PAGE_OCTETS, map_octets


class AllocationMap:
    """The bits of ``clusters`` clusters, none of them set."""

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self.octets = map_octets(clusters)
        self.changed_pages: set[int] = set()
        self._bits = bytearray(self.octets)

    def grow(self, clusters: int) -> None:
        """Have more clusters, not own."""
        self._bits += bytes(map_octets(clusters) - self.octets)
        self.clusters, self.octets = clusters, len(self._bits)

    def count(self) -> int:
        """Return how many clusters are own."""
        return int.from_bytes(self._bits, "little").bit_count()

    def run(self, first: int, limit: int) -> tuple[bool, int]:
        """Return whether cluster ``first`` is own, and where before ``limit`` that changes; ``limit`` if nowhere."""
        bits = int.from_bytes(self._bits[first >> 3 : (limit + 7) >> 3], "little") >> (first & 7)
        if bits & 1:
            return True, min(limit, first + (~bits & (bits + 1)).bit_length() - 1)
        if bits:
            return False, min(limit, first + (bits & -bits).bit_length() - 1)
        return False, limit

    def own(self, cluster: int) -> int:
        """Return 1 if a cluster holds data of its own, else 0."""
        return self._bits[cluster >> 3] >> (cluster & 7) & 1

    def with_run(self, first: int, limit: int) -> tuple[int, bytes]:
        """Return the part of the map, as octet offset and octets, in which ``first … limit`` are own; sets nothing."""
        start, end = first >> 3, (limit + 7) >> 3
        run = ((1 << (limit - first)) - 1) << (first & 7)
        return start, (int.from_bytes(self._bits[start:end], "little") | run).to_bytes(end - start, "little")

    def put(self, start: int, octets: bytes) -> None:
        """Replace a part of the map, as returned by ``with_run``; its pages are then changed."""
        self._bits[start : start + len(octets)] = octets
        self.changed_pages.update(range(start // PAGE_OCTETS, (start + len(octets) - 1) // PAGE_OCTETS + 1))

    def load(self, start: int, octets: bytes) -> None:
        """Replace a part of the map by what the disk holds; nothing counts as changed."""
        self._bits[start : start + len(octets)] = octets

    def page(self, number: int) -> bytes:
        """Return a copy of one page."""
        return bytes(self._bits[number * PAGE_OCTETS : (number + 1) * PAGE_OCTETS])
