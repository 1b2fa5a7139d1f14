"""The virtual LANs' part of one host's kernel: VXLAN devices, bridges, FDB entries, RVIs, and the filter before them.

    observe() ─▶ items ─▶ fabric_plan.changes(observed, wanted) ─▶ apply ─▶ observe: the difference is empty

Devices whose names begin as ours do, what hangs on these, nexthops with numbers of RVIs and the filter's tables are
ours; all else is left alone.
"""

import errno
import re
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self, get_args

from panloom.decide.fabric_plan import (
    VXLAN_PORT,
    Bridge,
    Change,
    Default,
    Item,
    Leg,
    Make,
    Peer,
    Rvi,
    Station,
    Vxlan,
)
from panloom.decide.rvi import is_rvi
from panloom.errors import KernelError
from panloom.fabric import rtnetlink
from panloom.fabric.nftables import Nftables
from panloom.fabric.rtnetlink import RouteSocket, attribute, attributes, nested
from panloom.fabric.vxlan_guard import Guarded, VxlanGuard
from panloom.values import MacAddress, Vni

_OURS = re.compile(r"(lan|mem)-[0-9a-f]{6}\Z")
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18  # linux/rtnetlink.h
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30
_NEW_NEXTHOP, _DELETE_NEXTHOP, _GET_NEXTHOP = 104, 105, 106
_AF_BRIDGE: Final = 7  # linux/socket.h

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which of them
_UP, _NO_ARP = 0x1, 0x80  # linux/if.h
_ADDRESS, _NAME, _MTU, _MASTER, _LINK_INFO, _AF_SPEC = 1, 3, 4, 10, 18, 26  # linux/if_link.h
_KIND, _DATA, _PORT_KIND, _PORT_DATA = 1, 2, 4, 5
_ADDRESS_MODE, _NO_ADDRESS = 8, 1  # IFLA_INET6_ADDR_GEN_MODE
_QUIET: Final = nested(_AF_SPEC, nested(socket.AF_INET6, attribute(_ADDRESS_MODE, bytes([_NO_ADDRESS]))))
_STP, _SNOOPING = 5, 23  # IFLA_BR_…
_LEARNS, _FLOODS = 8, 9  # IFLA_BRPORT_…
_VXLAN_ID, _VXLAN_LEARNS, _VXLAN_PORT = 1, 7, 15
_PORT_OCTETS: Final = struct.pack("!H", VXLAN_PORT)

_NEIGHBOUR = struct.Struct("=B3xiHBB")  # struct ndmsg: family, index, state, flags, type
_NO_ARP_STATE, _PERMANENT = 0x40, 0x80  # linux/neighbour.h
_SELF, _OF_MASTER = 2, 4
_DESTINATION, _MAC, _VNI, _BRIDGE, _NEXTHOP_ID = 1, 2, 7, 9, 13  # NDA_…
_ANY: Final = MacAddress(0)

_NEXTHOP = struct.Struct("=BBBxI")  # struct nhmsg: family, scope, protocol, flags; linux/nexthop.h
_ID, _GROUP, _GATEWAY, _FDB = 1, 2, 6, 11
_GROUP_MEMBER = struct.Struct("=IBBH")  # struct nexthop_grp: number, weight - 1


class VirtualLans:
    """The virtual LANs of one namespace (None: this thread's); a context manager, for one thread at a time."""

    def __init__(self, namespace: Path | None = None) -> None:
        with ExitStack() as opened:
            self._kernel = opened.enter_context(RouteSocket(namespace))
            nftables = Nftables(namespace)
            opened.callback(nftables.close)
            self._guard = VxlanGuard(nftables)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    def observe(self) -> frozenset[Item]:
        """Return what is there of ours; KernelError if the kernel does not say."""
        try:
            links = [_Link(octets) for octets in self._kernel.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0))]
            entries = self._kernel.dump(_GET_NEIGHBOUR, _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0))
            nexthops = self._kernel.dump(_GET_NEXTHOP, _NEXTHOP.pack(0, 0, 0, 0))
        except OSError as error:
            raise KernelError(f"the virtual LANs cannot be read: {error.strerror}") from error
        names = {link.index: link.name for link in links}
        devices = {link.index: device for link in links if (device := link.item(names))}
        hanging = (_entry(octets, devices) for octets in entries)
        rvis = map(_nexthop, nexthops)
        return frozenset(item for item in (*devices.values(), *hanging, *rvis) if item) | self._guard.observe()

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes in order; KernelError names the first that is refused.

        What is to be removed may be gone already, and what is made may be there: who was cut off half-way goes on.
        """
        for is_guarded, group in groupby(changes, lambda change: isinstance(change.item, get_args(Guarded))):
            if is_guarded:
                self._guard.apply(group)
                continue
            for change in group:
                try:
                    if isinstance(change, Make):
                        self._make(change.item)
                    else:
                        self._remove(change.item)
                except OSError as error:
                    raise KernelError(f"{change}: {error.strerror}") from error

    def refused(self) -> dict[IPv4Address | None, int]:
        """Return how many packets of each known source were refused, and under None those of strangers."""
        return self._guard.refused()

    # ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _make(self, item: Item) -> None:
        match item:
            case Bridge(name=name):
                kind = nested(_DATA, attribute(_STP, 0), attribute(_SNOOPING, b"\0"))
                index = self._device(name, "bridge", kind)
                self._set_link(index, 0, _QUIET)
                self._set_link(index, _UP | _NO_ARP)
            case Vxlan():
                self._make_vxlan(item)
            case Station():
                self._kernel.request(_NEW_NEIGHBOUR, self._station(item), rtnetlink.CREATE | rtnetlink.REPLACE)
            case Peer(device, mac, rvi):
                entry = self._entry(device, mac, attribute(_NEXTHOP_ID, rvi))
                self._kernel.request(_NEW_NEIGHBOUR, entry, rtnetlink.CREATE | rtnetlink.REPLACE)
            case Default():
                with suppress(FileExistsError):
                    self._kernel.request(_NEW_NEIGHBOUR, self._default(item), rtnetlink.CREATE | rtnetlink.APPEND)
            case Leg(number, address):
                self._put_nexthop(number, socket.AF_INET, attribute(_GATEWAY, address.packed))
            case Rvi(number, legs):
                group = b"".join(_GROUP_MEMBER.pack(leg, 0, 0, 0) for leg in legs)
                self._put_nexthop(number, 0, attribute(_GROUP, group))

    def _make_vxlan(self, vxlan: Vxlan) -> None:
        data = (attribute(_VXLAN_ID, vxlan.vni.number), attribute(_VXLAN_LEARNS, b"\0"))
        index = self._device(vxlan.name, "vxlan", nested(_DATA, *data, attribute(_VXLAN_PORT, _PORT_OCTETS)))
        more = attribute(_MTU, vxlan.mtu)
        if vxlan.mac is not None:
            more += attribute(_ADDRESS, vxlan.mac.to_octets())
        if vxlan.bridge is not None:
            self._set_link(index, 0, _QUIET)
            self._set_link(index, 0, attribute(_MASTER, self._index(vxlan.bridge)))
            settings = nested(_PORT_DATA, attribute(_LEARNS, b"\0"), attribute(_FLOODS, b"\0"))
            self._set_link(index, 0, nested(_LINK_INFO, attribute(_PORT_KIND, "bridge"), settings))
        self._set_link(index, _UP, more)

    def _device(self, name: str, kind: str, data: bytes) -> int:
        """Return the index of a device that is so made, and may be down; one that is not makes room for it."""
        message = _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, name) + nested(_LINK_INFO, attribute(_KIND, kind), data)
        try:
            self._kernel.request(_NEW_LINK, message, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
        except FileExistsError:
            there = self._link(name)
            if not there.is_so_made(kind):
                self._kernel.request(_DELETE_LINK, _LINK.pack(0, 0, there.index, 0, 0))
                self._kernel.request(_NEW_LINK, message, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
        return self._index(name)

    def _set_link(self, index: int, flags: int, more: bytes = b"") -> None:
        self._kernel.request(_NEW_LINK, _LINK.pack(0, 0, index, flags, flags) + more)

    def _link(self, name: str) -> "_Link":
        return _Link(self._kernel.get(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, name)))

    def _index(self, name: str) -> int:
        return self._link(name).index

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _station(self, station: Station) -> bytes:
        head = _NEIGHBOUR.pack(_AF_BRIDGE, self._index(station.port), _NO_ARP_STATE, _OF_MASTER, 0)
        return head + attribute(_MAC, station.mac.to_octets())

    def _entry(self, device: str, mac: MacAddress, more: bytes) -> bytes:
        head = _NEIGHBOUR.pack(_AF_BRIDGE, self._index(device), _NO_ARP_STATE | _PERMANENT, _SELF, 0)
        return head + attribute(_MAC, mac.to_octets()) + more

    def _default(self, default: Default) -> bytes:
        to = attribute(_DESTINATION, default.address.packed) + attribute(_VNI, default.vni.number)
        return self._entry(default.device, _ANY, to)

    def _put_nexthop(self, number: int, family: int, more: bytes) -> None:
        message = _NEXTHOP.pack(family, 0, 0, 0) + attribute(_ID, number) + more + attribute(_FDB, b"")
        self._kernel.request(_NEW_NEXTHOP, message, rtnetlink.CREATE | rtnetlink.REPLACE)

    def _remove(self, item: Item) -> None:
        try:
            match item:
                case Bridge(name=name) | Vxlan(name=name):
                    self._kernel.request(_DELETE_LINK, _LINK.pack(0, 0, self._index(name), 0, 0))
                case Station():
                    self._kernel.request(_DELETE_NEIGHBOUR, self._station(item))
                case Peer(device, mac):
                    self._kernel.request(_DELETE_NEIGHBOUR, self._entry(device, mac, b""))
                case Default():
                    self._kernel.request(_DELETE_NEIGHBOUR, self._default(item))
                case Leg(number) | Rvi(number):
                    self._kernel.request(_DELETE_NEXTHOP, _NEXTHOP.pack(0, 0, 0, 0) + attribute(_ID, number))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT):
                raise


class _Link:
    """What a message of type RTM_NEWLINK says."""

    index: int
    name: str

    def __init__(self, octets: bytes) -> None:
        _, _, self.index, self._flags, _ = _LINK.unpack_from(octets)
        said = attributes(octets[_LINK.size :])
        info = attributes(said.get(_LINK_INFO, b""))
        self.name = said[_NAME].rstrip(b"\0").decode(errors="replace")
        self._mac = said.get(_ADDRESS, b"")
        self._mtu = _number(said.get(_MTU))
        self._master = _number(said.get(_MASTER))
        self._kind = info.get(_KIND, b"").rstrip(b"\0").decode(errors="replace")
        self._data = attributes(info.get(_DATA, b""))
        self._port = attributes(info.get(_PORT_DATA, b""))
        inet6 = attributes(attributes(said.get(_AF_SPEC, b"")).get(socket.AF_INET6, b""))
        self._is_quiet = inet6.get(_ADDRESS_MODE, bytes([_NO_ADDRESS])) == bytes([_NO_ADDRESS])

    def is_so_made(self, kind: str) -> bool:
        """Whether what cannot be changed later is as for this kind of device."""
        match kind, self._kind:
            case "bridge", "bridge":
                return _number(self._data.get(_STP)) == 0 and self._data.get(_SNOOPING) == b"\0"
            case "vxlan", "vxlan":
                learns_nothing = self._data.get(_VXLAN_LEARNS) == b"\0"
                at_port = self._data.get(_VXLAN_PORT) == _PORT_OCTETS
                return learns_nothing and at_port and _number(self._data.get(_VXLAN_ID)) == int(self.name[4:], 16)
        return False

    def item(self, names: Mapping[int, str]) -> Bridge | Vxlan | None:
        """Return the device as an item, None if it is not ours; ``names`` of devices by their index."""
        if not _OURS.match(self.name):
            return None
        is_whole = self.is_so_made(self._kind) and bool(self._flags & _UP)
        if self._kind == "bridge":
            return Bridge(self.name, whole=is_whole and self._is_quiet and bool(self._flags & _NO_ARP))
        if self._kind != "vxlan" or not (number := _number(self._data.get(_VXLAN_ID))):
            return None
        vni = Vni(number)
        if self.name.startswith("lan-") and not self._master:  # a server's NIC, whose system may well speak IPv6
            return Vxlan(self.name, vni, self._mtu, mac=MacAddress.from_octets(self._mac), whole=is_whole)
        is_whole &= self._is_quiet and self._port.get(_LEARNS) == self._port.get(_FLOODS) == b"\0"
        return Vxlan(self.name, vni, self._mtu, bridge=names.get(self._master), whole=is_whole)


def _number(octets: bytes | None) -> int:
    return int.from_bytes(octets or b"", sys.byteorder)


def _entry(octets: bytes, devices: Mapping[int, Bridge | Vxlan]) -> Station | Peer | Default | None:
    """Return what a message of type RTM_NEWNEIGH says; None if it is not about a device of ours, or made by nobody."""
    _, index, state, _, _ = _NEIGHBOUR.unpack_from(octets)
    said = attributes(octets[_NEIGHBOUR.size :])
    device = devices.get(index)
    if not isinstance(device, Vxlan) or _MAC not in said:
        return None
    mac = MacAddress.from_octets(said[_MAC])
    if _BRIDGE in said:
        return Station(device.name, mac) if state & _NO_ARP_STATE else None
    if _NEXTHOP_ID in said:
        return Peer(device.name, mac, _number(said[_NEXTHOP_ID]))
    if mac == _ANY and len(said.get(_DESTINATION, b"")) == 4:
        vni = Vni(_number(said[_VNI])) if _VNI in said else device.vni
        return Default(device.name, IPv4Address(said[_DESTINATION]), vni)
    return None


def _nexthop(octets: bytes) -> Leg | Rvi | None:
    """Return what a message of type RTM_NEWNEXTHOP says, None if it is not ours."""
    said = attributes(octets[_NEXTHOP.size :])
    number = _number(said.get(_ID))
    if not is_rvi(number):
        return None
    if _GROUP in said:
        return Rvi(number, tuple(leg for leg, *_ in _GROUP_MEMBER.iter_unpack(said[_GROUP])))
    return Leg(number, IPv4Address(said[_GATEWAY])) if _GATEWAY in said else None
