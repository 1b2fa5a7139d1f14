"""Does this host have what the fabric needs?  Each need is tried in a network namespace that is gone afterwards.

/dev/net/tun                        the machines' taps
network namespaces                  the lab, and this probe
bridges, taps as their ports        the storage network
nftables with the bridge family     the fence at each port
"""

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

import msgspec

from panloom.decide.port_filter import PortFilter, PortRule, changes
from panloom.errors import PanloomError
from panloom.fabric import links
from panloom.fabric.nftables import Nftables, PortFilterTable
from panloom.values import MacAddress

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_TUN: Final = Path("/dev/net/tun")


class Lack(msgspec.Struct, frozen=True, gc=False):
    """Something that the host does not have."""

    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"


def probe() -> tuple[Lack, ...]:
    """Return what is missing; takes some ten milliseconds and leaves no trace."""
    found: list[Lack] = []
    thread = threading.Thread(target=_try_all, args=(found,), name="fabric-probe")  # it alone changes its namespace
    thread.start()
    thread.join()
    return tuple(found)


def _try_all(found: list[Lack]) -> None:
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        found.append(Lack(str(_TUN), str(error.strerror), "modprobe tun, or let the container have the device"))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        why = os.strerror(ctypes.get_errno())
        found.append(Lack("network namespaces", why, "run as root, with CAP_SYS_ADMIN in a container"))
        return
    attempts: tuple[tuple[str, Callable[[], None], str], ...] = (
        ("bridges and taps", _try_links, "modprobe bridge tun"),
        ("nftables of the bridge family", _try_nftables, "apt-get install libnftables1 and modprobe nf_tables"),
    )
    for what, attempt, remedy in attempts:
        try:
            attempt()
        except PanloomError as error:
            found.append(Lack(what, str(error), remedy))


def _try_links() -> None:
    async def make() -> None:
        async with links.Links() as connection:
            bridge = links.Bridge("probe0")
            address = links.Address("probe0", IPv4Interface("192.0.2.1/24"))
            ports = (links.Tap("probe1", "probe0"),) if _TUN.exists() else ()
            await connection.apply(links.changes((), (bridge, *ports, address)))

    asyncio.run(make())


def _try_nftables() -> None:
    nftables = Nftables()
    try:
        mac = MacAddress.parse("02:00:00:00:00:01")
        rule = PortRule("probe1", mac, IPv4Address("192.0.2.2"), discovers=True)
        PortFilterTable(nftables).apply(changes(None, PortFilter.of(["probe1"], [rule])))
    finally:
        nftables.close()
