"""RVIs: the link between two hosts, with a leg on each fabric.  All virtual LANs that the two share use the one RVI.

At each end its number follows from where the other end is, so a node knows the way to its control node before anybody
has told it anything, and the kernel's numbers of nexthops (rtnetlink, RTM_NEWNEXTHOP) are the same after any restart:

     31     28 27        18 17             2 1   0
    ┌─────────┬────────────┬────────────────┬─────┐     node 0 is the cabinet's control node
    │ 0 1 0 1 │  cabinet   │      node      │ leg │     leg 0 is the RVI itself, 1 and 2 are its legs on A and B
    └─────────┴────────────┴────────────────┴─────┘
"""

from typing import Final, Self

import msgspec

LAST_CABINET: Final = (1 << 10) - 1
LAST_NODE: Final = (1 << 16) - 1

_OURS: Final = 0b0101


class Place(msgspec.Struct, frozen=True, gc=False, order=True):
    """Where a host is; made by ``at``."""

    cabinet: int
    node: int  # 0: the control node

    @classmethod
    def at(cls, cabinet: int, node: int) -> Self:
        """Return the place; ValueError if a number is too large."""
        if not 0 <= cabinet <= LAST_CABINET:
            raise ValueError(f"a cabinet is 0 … {LAST_CABINET}, not {cabinet}")
        if not 0 <= node <= LAST_NODE:
            raise ValueError(f"a node's number is 1 … {LAST_NODE}, and 0 the control node's, not {node}")
        return cls(cabinet, node)

    @property
    def server(self) -> "Place":
        """The place of the control node that serves this one's virtual LANs."""
        return Place(self.cabinet, 0)

    @property
    def rvi(self) -> int:
        """The number of the RVI that leads here, the same at every other host."""
        return _OURS << 28 | self.cabinet << 18 | self.node << 2

    def leg(self, fabric: int) -> int:
        """Return the number of that RVI's leg on a fabric: 0 is A, 1 is B."""
        return self.rvi + 1 + fabric


def is_rvi(nexthop: int) -> bool:
    """Whether a nexthop of the kernel's is an RVI or a leg of one; others are not ours."""
    return nexthop >> 28 == _OURS
