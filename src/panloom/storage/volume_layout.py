"""Where things stand in a volume file: two header copies, then groups of maps and data.

    ┌────────────┬────────────┬──────────────────────── group 0 ───────────────────────┬─ group 1 ─ …
    │ header A   │ header B   │ durable map │ volatile map │ data of 8 × map clusters  │
    │ 4096       │ 4096       │ map octets  │ map octets   │ 32768 × map octets        │
    └────────────┴────────────┴─────────────┴──────────────┴───────────────────────────┴──────────── …

With maps of one page a group holds 128 MiB of the disk.  The file ends with the last octet of the disk, so a disk that
grows needs more file and moves nothing.
"""

import msgspec

CLUSTER_OCTETS = 4096
PAGE_OCTETS = 4096
MAP_START = 8192  # behind the two headers


def map_octets(clusters: int) -> int:
    """Return the size of a map of that many clusters, in whole pages."""
    return -(-clusters // (8 * PAGE_OCTETS)) * PAGE_OCTETS


class VolumeLayout(msgspec.Struct, frozen=True, gc=False):
    """The layout of files whose groups have maps of ``map_octets``."""

    map_octets: int

    @property
    def group_octets(self) -> int:
        """How many octets of the disk a group holds."""
        return self.map_octets * 8 * CLUSTER_OCTETS

    def data_at(self, offset: int) -> int:
        """Return where an octet of the disk stands."""
        return MAP_START + (offset // self.group_octets + 1) * 2 * self.map_octets + offset

    def maps_at(self, octet: int) -> tuple[int, int]:
        """Return where an octet of the map stands: in the durable and in the volatile copy."""
        group, within = divmod(octet, self.map_octets)
        durable = MAP_START + group * (2 * self.map_octets + self.group_octets) + within
        return durable, durable + self.map_octets

    def group_end(self, offset: int) -> int:
        """Return where the group of an octet of the disk ends, as an offset of the disk."""
        return (offset // self.group_octets + 1) * self.group_octets

    def file_octets(self, octets: int) -> int:
        """Return the size of the file of a disk of so many octets, at least one."""
        return self.data_at(octets - 1) + 1
