"""The fence at the nodes' ports: what documents and records let pass, kept in the kernel's packet filter."""

import asyncio

from pyroute2 import IPRoute

from panloom.control.world import World
from panloom.decide.port_filter import PortFilter, PortRule, changes
from panloom.errors import ConflictError, KernelError
from panloom.fabric.nftables import Nftables, PortFilterTable
from panloom.model.resources import Node, Server
from panloom.values import MacAddress


class Ports:
    """Keeps the port filter as the world wants it; confirmed means read back from the kernel."""

    def __init__(self) -> None:
        self._table: PortFilterTable | None = None
        self._lock = asyncio.Lock()
        self._applied: PortFilter | None = None
        self._revision = 0

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

    async def port_of(self, mac: str) -> str | None:
        """Return the port where frames of a MAC came in lately, None if the bridge has not seen any."""
        return await asyncio.to_thread(_learnt_port, mac)

    def is_applied(self, world: World) -> bool:
        """Whether the filter last read back is what the world wants."""
        return self._applied == wanted_filter(world)


def _learnt_port(mac: str) -> str | None:
    with IPRoute() as route:
        for entry in route.fdb("dump"):
            if entry.get("lladdr") == mac and entry.get("master"):
                (link,) = route.link("get", index=entry["ifindex"])
                return str(link.get("ifname"))
    return None


def wanted_filter(world: World) -> PortFilter:
    """Return who may send what from each port: the node itself, and the server it carries while that is admitted."""
    nodes = [node for node in world.all(Node).values() if node.port]
    ports = {node.name: node.port for node in nodes}
    rules = [PortRule(node.port, node.mac, node.address, is_hardware=True) for node in nodes]
    fixed = {nic.address for server in world.all(Server).values() for nic in server.nics}
    for name, record in world.server_records.items():
        server = world.all(Server).get(name)
        port = ports.get(record.node or "")
        if server is None or port is None or not world.admits(name):
            continue
        macs = {nic.lan: MacAddress.parse(nic.mac) for nic in record.nics}
        for nic in server.nics:
            if nic.lan in macs:
                lent = world.leased.get(macs[nic.lan])
                # A document may have given away what was lent before; whoever has the lease must ask for another.
                rules.append(PortRule(port, macs[nic.lan], nic.address or (None if lent in fixed else lent)))
    return PortFilter.of(ports.values(), rules)
