"""Machines and servers as placement sees them: what each has, what each asks for, and why one carries nothing now."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from panloom.control.blades import hardware_of, held_for
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.world import World
from panloom.decide.placement import Machine, Wish, place, why_not
from panloom.decide.preflight import warnings, without_spare
from panloom.decide.records import NodeRecord, ServerRecord
from panloom.model import resources
from panloom.model.resources import Node, Server

WAITING_SEEN_SECONDS = 60.0


class Machines:
    """See above."""

    def __init__(self, ports: Ports, observer: Observer) -> None:
        self._ports = ports
        self._observer = observer

    def of(self, nodes: Iterable[Node], world: World) -> list[Machine]:
        """Return what placement knows of these nodes."""
        return [self._machine(node, world) for node in nodes]

    def where(
        self, world: World, wanted: Mapping[str, resources.Resource], servers: tuple[Server, ...]
    ) -> Mapping[str, str]:
        """Tell where servers would boot if these documents were applied."""
        machines = self.of(_nodes_of(wanted), world)
        wishes = [wish_of(server, world.server_records.get(server.label)) for server in servers]
        placed = place(wishes, machines)
        return {
            wish.server: f"boots on {placed[wish.server]} (free, fits)"
            if wish.server in placed
            else f"waits: {why_not(wish, machines)}"
            for wish in wishes
        }

    async def lacking_spares(self, wanted: Mapping[str, resources.Resource], world: World) -> Sequence[str]:
        """Warn of the servers of these documents that no spare could carry once their machine fails."""
        servers = [server for server in wanted.values() if isinstance(server, Server) and server.failover.enabled]
        machines = []
        for node in _nodes_of(wanted):
            given_up = world.node_records.get(node.name, NodeRecord()).quarantined  # all else may be well by then
            unfit = f"is quarantined: {given_up}" if given_up is not None else None
            machines.append(msgspec.structs.replace(self._machine(node, world), unfit=unfit))
        wishes = [wish_of(server, world.server_records.get(server.label)) for server in servers]
        return warnings(await asyncio.to_thread(without_spare, wishes, machines))  # of thousands it takes seconds

    def _machine(self, node: Node, world: World) -> Machine:
        record = world.node_records.get(node.name, NodeRecord())
        told = hardware_of(node, world)
        return Machine(
            name=node.name,
            memory_octets=node.memory_octets or told.memory_octets,
            cores=node.cores or told.cores,
            architecture=node.architecture or told.architecture,
            nics=node.nics or len(told.nics),
            server=record.server,
            unfit=self.unfit(node, record, world),
            has_port=bool(node.port),
            has_power=node.power is not None,
            held_for=held_for(node.name, world),
        )

    def unfit(self, node: Node, record: NodeRecord, world: World) -> str | None:
        """Return why a node can carry no server now; None if it can."""
        if record.quarantined is not None:
            return f"quarantined: {record.quarantined}"
        if record.power_unknown:
            return "was fenced, but nobody has seen it go off"
        why = self._ports.why_not_placed(node, world)
        if why is not None:
            return why
        if node.power is not None:
            return "its power supervisor does not answer" if self._observer.power.get(node.name) is None else None
        asked = self._observer.waiting.get(node.name)
        if asked is None or time.monotonic() - asked > WAITING_SEEN_SECONDS:
            return "has no power driver and is not asking to boot"
        return None


def _nodes_of(wanted: Mapping[str, resources.Resource]) -> list[Node]:
    return [node for node in wanted.values() if isinstance(node, Node)]


def wish_of(server: Server, record: ServerRecord | None) -> Wish:
    """Return what a server asks of a machine: another than one that failed it, the same after a restart."""
    left = record.left if record else None
    avoid = left if record and record.left_for_good else None
    return Wish(
        server=server.label,
        memory_octets=server.needs.memory_octets,
        cores=server.needs.cores,
        architecture=server.needs.architecture or "",
        nics=server.needs.nics,
        prefer=server.node if server.node not in (None, avoid) else None if avoid else left,
        avoid=avoid,
        fence_needs_power=server.failover.fence == "power",
        waiting_since=record.since if record else 0.0,
    )
