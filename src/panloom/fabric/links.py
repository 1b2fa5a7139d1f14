"""Bridges, taps and addresses of one network namespace, as values.

    observe(names) ─► links ─► changes(observed, wanted) ─► apply ─► observe: the difference is empty

      Bridge("lab0")                     a bridge that is up; its MAC stays though ports come and go
        ├── Tap("lab0-n1", "lab0")       a persistent tap, up, a port of that bridge, without IPv6 of its own
        └── Tap("lab0-n2", "lab0")
      Address("lab0", 10.77.0.1/24)      an IPv4 address of a link

Only links with a name that the caller gives are looked at, so nothing else can be changed.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Collection, Iterable
from ipaddress import IPv4Interface
from typing import Any, Final

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from panloom.errors import KernelError, UnavailableError
from panloom.fabric.namespaces import within
from panloom.fabric.netlink import Netlink

_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFF_UP: Final = 1  # linux/if.h
_ADDR_GEN_NONE: Final = 1  # IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
_IPV4, _IPV6 = 2, 10  # address families, linux/socket.h


class Bridge(msgspec.Struct, frozen=True, gc=False):
    """A bridge that is up, without spanning tree and multicast snooping."""

    name: str
    whole: bool = True  # False: it is there, but not wholly as said here


class Tap(msgspec.Struct, frozen=True, gc=False):
    """A persistent tap device that is up and a port of ``bridge``, and sends nothing of its own into it."""

    name: str
    bridge: str
    whole: bool = True


class Address(msgspec.Struct, frozen=True, gc=False):
    """An IPv4 address, with its prefix, of the link ``link``."""

    link: str
    interface: IPv4Interface


Link = Bridge | Tap | Address


class Make(msgspec.Struct, frozen=True, gc=False):
    """Let this be so, whether it is missing or half there."""

    link: Link


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Let this be no more."""

    link: Link


Change = Make | Remove


def changes(observed: Collection[Link], wanted: Collection[Link]) -> tuple[Change, ...]:
    """Return what brings ``observed`` to ``wanted``: ports go before their bridge, and come after it."""
    stays = {_identity(link) for link in wanted}
    gone = {link for link in observed if _identity(link) not in stays}
    # Linux takes the later addresses of a network away with its first one (promote_secondaries = 0).
    lost_networks = {(link.link, link.interface.network) for link in gone if isinstance(link, Address)}
    lost = {
        link for link in wanted if isinstance(link, Address) and (link.link, link.interface.network) in lost_networks
    }
    new = set(wanted) - set(observed) | lost
    return (
        *(Remove(link) for link in sorted(gone, key=_order, reverse=True)),
        *(Make(link) for link in sorted(new, key=_order)),
    )


def _order(link: Link) -> tuple[int, str]:
    return (Bridge, Tap, Address).index(type(link)), str(link)


def _identity(link: Link) -> Link | tuple[type, str]:
    """Return what two versions of the same thing share."""
    return link if isinstance(link, Address) else (type(link), link.name)


class Links(Netlink):
    """The links of one namespace."""

    async def observe(self, names: Collection[str]) -> frozenset[Link]:
        """Return the bridges, taps and IPv4 addresses among the links with these names."""
        links = [link async for link in await self._route.link("dump") if link.get("ifname")]
        name_of = {link["index"]: str(link.get("ifname")) for link in links}
        found: set[Link] = {
            known
            for link in links
            if link.get("ifname") in names and (known := _known(link, name_of.get(link.get("master"), "")))
        }
        async for address in await self._route.addr("dump", family=_IPV4):
            if name_of.get(address["index"]) in names:
                interface = IPv4Interface(f"{address.get('local') or address.get('address')}/{address['prefixlen']}")
                found.add(Address(name_of[address["index"]], interface))
        return frozenset(found)

    async def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes in order; ``KernelError`` names the first that the kernel refuses, in its own words."""
        for change in changes:
            try:
                match change:
                    case Make(Bridge() as bridge):
                        await self._make_bridge(bridge)
                    case Make(Tap() as tap):
                        await self._make_tap(tap)
                    case Make(Address() as address):
                        await self._change_address("replace", address)
                    case Remove(Address() as address):
                        await self._remove_address(address)
                    case Remove(Bridge(name=name) | Tap(name=name)):
                        await self._route.link("del", index=await self._index(name))
            except (NetlinkError, OSError) as error:
                raise KernelError(f"{change}: {error}") from error

    async def _make_bridge(self, bridge: Bridge) -> None:
        if await self._find(bridge.name) is None:
            await self._route.link("add", ifname=bridge.name, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
        link = await self._require(bridge.name, "bridge")
        # A bridge whose MAC was never set takes the lowest of its ports', and its peers' ARP entries go stale.
        await self._route.link("set", index=link["index"], address=link.get("address"), state="up")

    async def _make_tap(self, tap: Tap) -> None:
        bridge = await self._require(tap.bridge, "bridge")
        if await self._find(tap.name) is None:
            with within(self._namespace):
                _make_persistent_tap(tap.name)
        link = await self._require(tap.name, "tun")
        quiet = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_NONE)]})]}
        await self._route.link("set", index=link["index"], IFLA_AF_SPEC=quiet)
        await self._route.link("set", index=link["index"], master=bridge["index"], state="up")
        await self._route.flush_addr(index=link["index"], family=_IPV6)

    async def _change_address(self, command: str, address: Address) -> None:
        index = await self._index(address.link)
        interface = address.interface
        await self._route.addr(command, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)

    async def _remove_address(self, address: Address) -> None:
        try:
            await self._change_address("del", address)
        except NetlinkError as error:
            if error.code != errno.EADDRNOTAVAIL:
                raise

    async def _index(self, name: str) -> int:
        link = await self._find(name)
        if link is None:
            raise KernelError(f"there is no link {name}")
        return int(link["index"])

    async def _require(self, name: str, kind: str) -> Any:  # noqa: ANN401 - pyroute2's message
        link = await self._find(name)
        if link is None or link.get(("linkinfo", "kind")) != kind:
            raise KernelError(f"{name} should be a {kind} link and is not; remove it or choose another name")
        return link

    async def _find(self, name: str) -> Any:  # noqa: ANN401 - pyroute2's message, or None
        try:
            (link,) = await self._route.link("get", ifname=name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise
        return link


def _known(link: Any, master: str) -> Bridge | Tap | None:  # noqa: ANN401 - pyroute2's message
    """Return what this netlink message describes; None if it is no kind of ours."""
    up = bool(link["flags"] & _IFF_UP)
    match link.get(("linkinfo", "kind")):
        case "bridge":
            return Bridge(link.get("ifname"), whole=up)
        case "tun":
            # a kernel without IPv6 does not tell the mode
            mode = link.get(("af_spec", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE"), _ADDR_GEN_NONE)
            return Tap(link.get("ifname"), master, whole=up and mode == _ADDR_GEN_NONE)
        case _:
            return None


def _make_persistent_tap(name: str) -> None:
    """Make a tap device that outlives this process and that QEMU can open by name."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"/dev/net/tun cannot be opened: {error.strerror}; modprobe tun") from error
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(device, _TUNSETIFF, request)
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    finally:
        os.close(device)
