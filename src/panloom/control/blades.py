"""New machines: those that no document names are met, taken in and followed until they have booted.

    Observer.discovered ──meet──▶ take in: node, server, disk and BladeRecord in one commit
    BladeRecord         ──next_step──▶ installed, booted, or a spare
                          (both of ``decide.provisioning``)

What lies between is the reconciler's: the disk is made, the machine placed and admitted, as for any server.
"""

import time
from collections.abc import Callable
from ipaddress import IPv4Address

import msgspec

from panloom.control import failpoint
from panloom.control.documents import Documents
from panloom.control.events import EventLog
from panloom.control.image_imports import Say
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.world import BLADES, World
from panloom.decide.port_filter import is_filterable
from panloom.decide.provisioning import (
    Advance,
    BecomeSpare,
    BladeRecord,
    BladeState,
    Candidate,
    digits_of,
    is_held,
    meet,
    next_step,
    server_of,
)
from panloom.decide.records import BASE_IQN, Discovered, Phase, volume_of
from panloom.errors import ConfigError, ConfigErrors, ConflictError, UnavailableError
from panloom.model.resources import Node, Rule, Server
from panloom.state.contract import Store
from panloom.values import Iqn, MacAddress


class Blades:
    """Takes machines in and follows them; ``wake`` is called when there is something new for the reconciler."""

    def __init__(
        self, store: Store, observer: Observer, ports: Ports, events: EventLog, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._documents = Documents(store)
        self._observer = observer
        self._ports = ports
        self._events = events
        self._wake = wake

    async def meet(self, world: World, say: Say) -> None:
        """Take in who may come; ``say`` what keeps one from it."""
        platform = world.platform
        if platform is None:
            return
        for found in list(self._observer.discovered.values()):
            step = meet(candidate(found), world.all(Rule).values(), platform.approve)
            if step is None:
                continue
            try:
                await self.take_in(found, step.rule, await World.read(self._store), who="panloom")
                say(found.mac, None)
            except (ConflictError, ConfigError, ConfigErrors) as error:  # it keeps no other waiting
                say(found.mac, f"{found.mac} is not taken in: {error}")

    async def take_in(self, found: Discovered, rule: Rule | None, world: World, *, who: str) -> Node:
        """Make a discovered machine a node, and the server that the rule says, as if documents named them.

        ``ConflictError``, ``ConfigError`` or ``ConfigErrors`` when that cannot be.
        """
        mac, port = MacAddress.parse(found.mac), await self._ports.port_of(found.mac) or ""
        if port and not is_filterable(port):
            raise ConflictError(f"its frames come in at {port}, which no filter can name: rename the interface")
        short, whole = digits_of(mac)
        node = Node(
            name=f"n-{whole}" if f"n-{short}" in world.all(Node) else f"n-{short}",
            mac=mac,
            address=free_address(world),
            port=port,
            memory_octets=found.hardware.memory_octets,
            initiator=own_initiator(found, world),
        )
        others = {label for label, server in world.all(Server).items() if server.node != node.name}
        server = server_of(rule, node, others) if rule is not None else None
        state = BladeState.INSTALLING if server is not None else BladeState.DISCOVERED
        record = BladeRecord(
            state=state,
            hardware=found.hardware,
            rule=rule.name if rule is not None else "",
            server=server.label if server is not None else "",
            since=_history(found, state),
        )
        failpoint.reached("take in")
        await self._documents.take_in(node, server, who=who, also={BLADES + node.name: msgspec.json.encode(record)})
        failpoint.reached("taken in")
        self._observer.discovered.pop(found.mac, None)
        if found.asked_at:
            self._observer.waiting[node.name] = found.asked_at  # it still does, under the name that it has now
        becomes = f" and becomes {server.label} by rule {record.rule}" if server is not None else ""
        self._events.report("approved", f"{found.mac} is node {node.name}{becomes}", node=node.name, who=who)
        self._wake()
        return node

    async def follow(self, world: World) -> None:
        """Note how far those have come that were taken in."""
        gone = {name: None for name in world.blades if name not in world.all(Node)}
        if gone:
            await world.edit(blades=gone)
        underway = {name: record for name, record in world.blades.items() if record.server}
        if not underway:
            return
        made = {volume.name for volume in (await self._observer.volumes()).volumes}
        for name, record in underway.items():
            carried = world.server_records.get(record.server)
            step = next_step(
                record,
                wanted=record.server in world.all(Server),
                volume_ready=volume_of(record.server) in made and record.server not in world.doomed,
                booted=carried is not None and carried.phase is Phase.UP and carried.node == name,
                elsewhere=carried is not None and carried.node not in (None, name),
            )
            match step:
                case Advance(state):
                    await self._note(name, record, state, world)
                case BecomeSpare():
                    await self._note(name, msgspec.structs.replace(record, server=""), BladeState.DISCOVERED, world)

    async def _note(self, name: str, record: BladeRecord, state: BladeState, world: World) -> None:
        now = time.time()
        changed = msgspec.structs.replace(record, state=state, since=(*record.since, (state.value, now)))
        failpoint.reached(f"note {state.value}")
        await world.edit(blades={name: changed})
        failpoint.reached(f"noted {state.value}")
        seconds = now - record.since[0][1]
        text = f"{state.value}, {seconds:.1f} s after it was first seen"
        self._events.report("blade", text, node=name, server=record.server or None)


def _history(found: Discovered, state: BladeState) -> tuple[tuple[str, float], ...]:
    """Return when a machine came to each state so far, it being taken in now."""
    times = {BladeState.NEW: found.first_seen, BladeState.DISCOVERED: found.reported_at, state: time.time()}
    return tuple((reached.value, at) for reached, at in times.items() if at is not None)


def candidate(found: Discovered) -> Candidate:
    """Return what rules know of a discovered machine now."""
    return Candidate(
        mac=MacAddress.parse(found.mac),
        hardware=found.hardware if found.reported_at else None,
        known_seconds=time.monotonic() - found.known_at,
    )


def held_for(node: str, world: World) -> str | None:
    """Return the server that a machine is being installed as, None if it is not."""
    record = world.blades.get(node)
    return record.server if record is not None and is_held(record) and record.server in world.all(Server) else None


def own_initiator(found: Discovered, world: World) -> str | None:
    """Return the iSCSI name that a machine's firmware was set to; None for none, and for one that is another's.

    Machines of one maker may all be set to the same; and by a name of ours one would pass for another.
    """
    name = found.hardware.initiator
    taken = {world.initiator(node) for node in world.all(Node)}
    return None if not name or Iqn(name) in taken or name.startswith(BASE_IQN) else name


def free_address(world: World) -> IPv4Address:
    """Return a storage address that no node has and discovery does not lend; ConflictError when there is none."""
    platform = world.platform
    if platform is None:
        raise UnavailableError("no platform document is applied; write one and: panloom apply platform.yaml")
    storage = platform.storage
    taken = {node.address for node in world.all(Node).values()} | {storage.address}
    for address in storage.subnet.hosts():
        lent = storage.discovery is not None and storage.discovery[0] <= address <= storage.discovery[1]
        if address not in taken and not lent:
            return address
    raise ConflictError(f"no address of {storage.subnet} is free for another node")
