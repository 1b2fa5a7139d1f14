"""Where cables end: the ports of this host's bridges, and at which of them each machine's frames came in.

RTM_GETLINK and RTM_GETNEIGH dumps of family AF_BRIDGE (rtnetlink(7)) ─▶ Cabling
"""

from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from panloom.decide.cabling import Cabling
from panloom.errors import KernelError

_AF_BRIDGE: Final = 7  # linux/socket.h
_NUD_PERMANENT: Final = 0x80  # linux/neighbour.h: an address of the bridge's own, at which no frame came in


def observe() -> Cabling:
    """Return what the kernel knows now, in the namespace of this thread, which runs no event loop: it takes a while."""
    try:
        with IPRoute() as route:
            links = route.link("dump", family=_AF_BRIDGE)
            names = {int(link["index"]): str(link.get("ifname")) for link in links if link.get("master")}
            learnt: dict[str, set[str]] = {}
            for entry in route.fdb("dump"):
                if entry["ifindex"] in names and entry.get("master") and not entry["state"] & _NUD_PERMANENT:
                    learnt.setdefault(str(entry.get("lladdr")), set()).add(names[entry["ifindex"]])
    except (NetlinkError, OSError) as error:
        raise KernelError(f"the bridges' ports cannot be read: {error}") from error
    return Cabling(frozenset(names.values()), {mac: frozenset(ports) for mac, ports in learnt.items()})
