"""The fence at the nodes' ports: what documents and records let pass, kept in the kernel's packet filter.

A filter holds off the node only if that is where its cable ends, which is looked up among the bridges' ports.
"""

import asyncio
import time
from ipaddress import IPv6Network

from panloom.control.world import World
from panloom.decide.cabling import Cabling
from panloom.decide.port_filter import PortFilter, PortRule, changes, is_filterable
from panloom.decide.records import NodeRecord
from panloom.errors import ConflictError, KernelError
from panloom.fabric import bridge_ports
from panloom.fabric.nftables import Nftables, PortFilterTable
from panloom.model.resources import Nic, Node, Server
from panloom.values import IpAddress, MacAddress, beside

LOOK_SECONDS = 0.5  # where cables end changes by hand, and reading it costs some milliseconds a hundred ports


class Ports:
    """Keeps the port filter as the world wants it; confirmed means read back from the kernel."""

    def __init__(self) -> None:
        self._table: PortFilterTable | None = None
        self._lock = asyncio.Lock()
        self._applied: PortFilter | None = None
        self._revision = 0
        self._cabling: Cabling | None = None
        self._looked_at = float("-inf")

    async def apply(self, world: World) -> None:
        """Make the filter what the world wants and read it back; KernelError if it is not so then.

        ConflictError if the world was read before the one applied last: it may not know of a fence that holds since.
        """
        wanted = wanted_filter(world)
        async with self._lock:
            if world.revision < self._revision:
                raise ConflictError(f"revision {world.revision} is older than the ports, which are at {self._revision}")
            self._revision = world.revision
            if self._table is None:
                self._table = PortFilterTable(await asyncio.to_thread(Nftables))
            observed = await asyncio.to_thread(self._table.observe)
            difference = changes(observed, wanted)
            if difference:
                self._applied = None  # and only now: what is there all the same may be relied on while it is looked at
                await asyncio.to_thread(self._table.apply, difference)
                if changes(await asyncio.to_thread(self._table.observe), wanted):
                    raise KernelError("the port filter is not what was asked for")
            self._applied = wanted

    async def look(self) -> None:
        """See where cables end, unless that was done just now; KernelError if the kernel does not say."""
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            await self._look()

    async def _look(self) -> Cabling:
        began = time.monotonic()
        self._cabling = cabling = await asyncio.to_thread(bridge_ports.observe)
        self._looked_at = began
        return cabling

    async def confirm(self, node: str, world: World) -> None:
        """Make the filter what the world wants and see that the node's frames meet it; KernelError if they may not."""
        await self.apply(world)
        await self.look()
        why = self.why_not_fenced(node, world)
        if why is not None:
            raise KernelError(f"{node}: {why}")

    async def port_of(self, mac: str) -> str | None:
        """Return the port where frames of a MAC came in lately, None if the bridge has not seen any."""
        return (await self._look()).seen_at(mac, "")

    def seen_at(self, node: Node) -> str | None:
        """Return the port where a node's frames came in at the last look, None if at none."""
        return self._cabling.seen_at(str(node.mac), node.port) if self._cabling else None

    def why_not_placed(self, node: Node, world: World) -> str | None:
        """Return why no server may be placed on a node as far as its port goes, None if one may."""
        if not node.port:
            return None  # placement knows
        if not is_filterable(node.port):
            return f"no filter can name its port {node.port}: rename the interface"
        others = [name for name in world.nodes_at(node.port) if name != node.name]
        if others:
            return (
                f"its port {node.port} is that of {', '.join(others)} too: a fence of one would not hold the other off"
            )
        if self._cabling is None:
            return "nobody has looked yet where its cable ends"
        return self._cabling.why_not_placed(str(node.mac), node.port)

    def why_not_fenced(self, name: str, world: World) -> str | None:
        """Return why a fence at a node's port would not hold, as of the last look; None if it would."""
        node = world.all(Node).get(name)
        if node is None or not node.port:
            return "its port is not known, so it cannot be fenced"
        if not is_filterable(node.port):
            return f"no filter can name its port {node.port}, so it cannot be fenced: rename the interface"
        if self._cabling is None:
            return "nobody has looked yet where its cable ends"
        last = world.node_records.get(name, NodeRecord()).seen_at
        return self._cabling.why_not_fenced(str(node.mac), node.port, last)

    def is_applied(self, world: World) -> bool:
        """Whether the filter last read back is what the world wants."""
        return self._applied == wanted_filter(world)


def wanted_filter(world: World) -> PortFilter:
    """Return who may send what from each port: the node itself, and the server it carries while that is admitted."""
    nodes = [node for node in world.all(Node).values() if is_filterable(node.port)]
    ports = {node.name: node.port for node in nodes}
    rules = [
        PortRule(node.port, node.mac, address, discovers=True)
        for node in nodes
        for address in (node.address, world.ipv6_address(node))
        if address is not None
    ]
    fixed: set[IpAddress] = set()
    for each in world.all(Server).values():
        for nic in each.nics:
            if world.is_over_fabrics(each, nic):
                continue
            fixed.update(_addresses(nic, world.prefix(each, nic)))
    for name, record in world.server_records.items():
        server = world.all(Server).get(name)
        port = ports.get(record.node or "")
        if server is None or port is None or not world.admits(name):
            continue
        macs = {nic.lan: MacAddress.parse(nic.mac) for nic in record.nics}
        for nic in server.nics:
            if nic.lan in macs and not world.is_over_fabrics(server, nic):
                mac, prefix = macs[nic.lan], world.prefix(server, nic)
                # A document may have given away what was lent before; whoever has the lease must ask for another.
                leased = (address for address in world.leased.get(mac, ()) if address not in fixed)
                lent = (each for each in leased if each.version == 4 or (prefix is not None and each in prefix))
                addresses = tuple(lent) if nic.address is None else _addresses(nic, prefix)
                rules += (PortRule(port, mac, each, discovers=prefix is not None) for each in addresses or (None,))
    return PortFilter.of(ports.values(), rules)


def _addresses(nic: Nic, prefix: IPv6Network | None) -> tuple[IpAddress, ...]:
    """Return the addresses that a document gives a NIC."""
    if nic.address is None:
        return ()
    return (nic.address,) if prefix is None else (nic.address, beside(prefix, nic.address))
