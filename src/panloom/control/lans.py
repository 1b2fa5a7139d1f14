"""Virtual LANs over the fabrics: the control node's side of them, and what each node is told of its own.

World ─▶ fabric_of ─▶ fabric_plan.states ┬▶ the control node's: kept in this kernel
                                         └▶ a node's: told in answer to each beacon of its server (LanNews)
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from panloom.control.world import World
from panloom.decide.fabric_plan import Fabric, Host, Item, Lan, Member, changes, lan_device, states
from panloom.decide.lan_news import LanNews, LanNic
from panloom.decide.records import ServerRecord
from panloom.decide.rvi import Place
from panloom.errors import KernelError, UnavailableError
from panloom.fabric.virtual_lans import VirtualLans
from panloom.model.resources import Fabrics, Node, Server, StorageNetwork, VirtualLan
from panloom.values import MacAddress, Vni

NODE_INTERFACES: Final = ("fa", "fb")
"""What a node calls its interfaces on fabric A and B."""

_CABINET: Final = 0  # there is one set of control nodes
_log = logging.getLogger("panloom.lans")


class Lans:
    """Keeps the control node's kernel as the world wants it, and knows what nodes are to hold."""

    def __init__(self) -> None:
        self._kernel: VirtualLans | None = None
        self._lock = asyncio.Lock()
        self._world: World | None = None
        self._states: Mapping[Place, frozenset[Item]] = {}
        self._counter = 0

    async def apply(self, world: World) -> None:
        """Make the kernel what the world wants and read it back; KernelError if it is not so then.

        A host without fabrics is left alone, unless it had some.
        """
        fabric = fabric_of(world)
        async with self._lock:
            if self._world is not None and world.revision < self._world.revision:
                return  # a later pass knew more
            self._world, self._states = world, states(fabric) if fabric is not None else {}
            if fabric is None and self._kernel is None:
                return
            wanted = self._states[fabric.control.place] if fabric is not None else frozenset[Item]()
            await asyncio.to_thread(self._keep, wanted)

    def _keep(self, wanted: frozenset[Item]) -> None:
        if self._kernel is None:
            self._kernel = VirtualLans()
        difference = changes(self._kernel.observe(), wanted)
        if difference:
            self._kernel.apply(difference)
            if left := changes(self._kernel.observe(), wanted):
                raise KernelError(f"the virtual LANs are not what was asked for: {left[0]}")

    def news(self, server: str) -> bytes | None:
        """Return what a server's node is to be told, None if there is nothing or it is to be shut out."""
        world = self._world
        record = world.server_records.get(server) if world is not None else None
        if world is None or world.platform is None or record is None or not world.admits(server):
            return None
        fabrics, node = world.platform.fabrics, world.all(Node).get(record.node or "")
        if fabrics is None or node is None or node.address not in world.platform.storage.subnet:
            return None
        place = _place(node.address, world.platform.storage)
        self._counter = max(self._counter + 1, time.time_ns() // 1_000_000)
        news = LanNews(
            server=server,
            epoch=record.epoch,
            counter=self._counter,
            fabrics=tuple(
                zip(NODE_INTERFACES, _interfaces(node.address, fabrics, world.platform.storage), strict=True)
            ),
            items=tuple(sorted(self._states.get(place, ()), key=str)),
            nics=_nics(server, record, world),
        )
        try:
            return news.encode(record.beacon_key)
        except ValueError as error:
            _log.error("news=%s why=%r", server, str(error))
            return None


def fabric_of(world: World) -> Fabric | None:
    """Return hosts, LANs and members as documents and records say, None where the platform has no fabrics.

    A server that is being shut out has no place any more, as at its port.  UnavailableError while a VNI is missing.
    """
    platform = world.platform
    if platform is None or platform.fabrics is None:
        return None
    fabrics, storage = platform.fabrics, platform.storage
    nodes = {node.name: node for node in world.all(Node).values() if node.address in storage.subnet}
    return Fabric(
        control=_host(
            Place(_CABINET, 0), (fabrics.a.interface, fabrics.b.interface), storage.address, platform.fabrics, storage
        ),
        nodes=tuple(
            _host(_place(node.address, storage), NODE_INTERFACES, node.address, fabrics, storage)
            for node in nodes.values()
        ),
        lans=tuple(_lan(lan, world, nodes) for lan in world.all(VirtualLan).values() if lan.network == "fabrics"),
        mtu=fabrics.mtu,
    )


def _lan(lan: VirtualLan, world: World, nodes: Mapping[str, Node]) -> Lan:
    record = world.lan_records.get(lan.label)
    if record is None or world.platform is None:
        raise UnavailableError(f"LAN {lan.label} has no VNI yet")
    members = []
    for name, server in world.all(Server).items():
        known = world.server_records.get(name)
        if server.pan != lan.pan or known is None or not any(nic.lan == lan.name for nic in server.nics):
            continue
        node = nodes.get(known.node or "") if world.admits(name) else None
        place = _place(node.address, world.platform.storage) if node is not None else None
        given = next((nic for nic in known.nics if nic.lan == lan.name and nic.vni is not None), None)
        if given is not None and given.vni is not None:
            members.append(Member(MacAddress.parse(given.mac), Vni(given.vni), place))
    return Lan(Vni(record.vni), tuple(members))


def _nics(name: str, record: ServerRecord, world: World) -> tuple[LanNic, ...]:
    server = world.all(Server).get(name)
    found = []
    for nic in server.nics if server is not None else ():
        lan = world.all(VirtualLan).get(f"{server.pan}/{nic.lan}") if server is not None else None
        known = world.lan_records.get(lan.label) if lan is not None else None
        if lan is None or known is None or lan.network != "fabrics" or nic.lan not in {one.lan for one in record.nics}:
            continue
        address = IPv4Interface((nic.address, lan.subnet.prefixlen)) if nic.address is not None else None
        found.append(LanNic(lan_device(Vni(known.vni)), address, lan.router))
    return tuple(found)


def _place(address: IPv4Address, storage: StorageNetwork) -> Place:
    """Return where a node is: its number is the part of its storage address that is its own."""
    return Place.at(_CABINET, _own_part(address, storage))


def _own_part(address: IPv4Address, storage: StorageNetwork) -> int:
    return int(address) - int(storage.subnet.network_address)


def _host(
    place: Place, interfaces: tuple[str, str], address: IPv4Address, fabrics: Fabrics, storage: StorageNetwork
) -> Host:
    on_a, on_b = _interfaces(address, fabrics, storage)
    return Host(place, interfaces, (on_a.ip, on_b.ip))


def _interfaces(address: IPv4Address, fabrics: Fabrics, storage: StorageNetwork) -> tuple[IPv4Interface, IPv4Interface]:
    """Return a host's addresses on A and B, which end as its storage address does."""

    def beside(subnet: IPv4Network) -> IPv4Interface:
        return IPv4Interface((subnet.network_address + _own_part(address, storage), subnet.prefixlen))

    return beside(fabrics.a.subnet), beside(fabrics.b.subnet)
