"""New machines: those that no document names are met, taken in and followed until they have booted.

    Observer.discovered ──meet──▶ take in: node, server, disk and BladeRecord in one commit
    BladeRecord         ──next_step──▶ installed, booted, or a spare
                          (both of ``decide.provisioning``)

What lies between is the reconciler's: the disk is made, the machine placed and admitted, as for any server.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from panloom.control import failpoint
from panloom.control.documents import Documents
from panloom.control.events import EventLog
from panloom.control.free_addresses import FreeAddresses
from panloom.control.image_imports import Say, pause_after
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.world import BLADES, SERVERS, World
from panloom.decide.boot_menu import Menu
from panloom.decide.hardware import Hardware
from panloom.decide.port_filter import is_filterable
from panloom.decide.provisioning import (
    Advance,
    BecomeSpare,
    BladeRecord,
    BladeState,
    Candidate,
    TakeIn,
    is_held,
    meet,
    next_step,
    node_name,
    prompt_for,
    server_of,
)
from panloom.decide.records import BASE_IQN, Discovered, NodeRecord, Phase
from panloom.errors import ConfigError, ConfigErrors, ConflictError
from panloom.model.resources import WANT, Image, Node, Rule, Server
from panloom.state.contract import Store
from panloom.values import Iqn, MacAddress


class Blades:
    """Takes machines in and follows them; ``wake`` is called when there is something new for the reconciler."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        ports: Ports,
        events: EventLog,
        wake: Callable[[], None],
        *,
        addresses: FreeAddresses | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._documents = Documents(store)
        self._observer = observer
        self._ports = ports
        self._events = events
        self._wake = wake
        self._clock = clock
        self._addresses = addresses or FreeAddresses()
        self._one_by_one = asyncio.Lock()
        """Whoever holds it takes a machine in: two at a time would be given the same address."""
        self._refused: dict[tuple[str, str], tuple[int, float]] = {}
        """MAC and choice → how often taking it in failed, and the clock's seconds of the next try."""

    async def meet(self, world: World, say: Say) -> None:
        """Take in who may come; ``say`` what keeps one from it, and try that one again ever less often."""
        for mac, choice in [known for known in self._refused if known[0] not in self._observer.discovered]:
            del self._refused[mac, choice]
            say(mac, None)
        for mac in tuple(self._observer.discovered):
            found = self._observer.discovered.get(mac)  # taken in by somebody else meanwhile, if it is not there
            if found is None or step_of(found, world) is None:
                continue
            tries, next_try = self._refused.get((mac, found.choice), (0, float("-inf")))
            if self._clock() < next_try:
                continue
            try:
                async with self._one_by_one:
                    latest = await World.read(self._store)  # rules may have changed while others were taken in
                    step = step_of(found, latest)
                    if step is not None:
                        await self._take_in(found, step.rule, latest, "panloom")
                self._refused.pop((mac, found.choice), None)
                say(mac, None)
            except (ConflictError, ConfigError, ConfigErrors) as error:  # it keeps no other waiting
                self._refused[mac, found.choice] = tries + 1, self._clock() + pause_after(tries)
                say(mac, f"{mac} is not taken in: {error}")
                if not isinstance(error, ConflictError):
                    self._ask_again(found)

    async def take_in(self, found: Discovered, rule: Rule | None, *, who: str) -> Node:
        """Make a discovered machine a node, and the server that the rule says, as if documents named them.

        ``ConflictError``, ``ConfigError`` or ``ConfigErrors`` when that cannot be.
        """
        async with self._one_by_one:
            return await self._take_in(found, rule, await World.read(self._store), who)

    async def _take_in(self, found: Discovered, rule: Rule | None, world: World, who: str) -> Node:
        if rule is not None and rule.name not in world.all(Rule):
            raise ConflictError(f"rule {rule.name} is deleted by now")
        mac, port = MacAddress.parse(found.mac), await self._ports.port_of(found.mac) or ""
        if port and not is_filterable(port):
            raise ConflictError(f"its frames come in at {port}, which no filter can name: rename the interface")
        node = Node(
            name=node_name(mac),
            mac=mac,
            address=await self._addresses.choose(world),
            port=port,
            memory_octets=found.hardware.memory_octets,
            initiator=own_initiator(found, world),
        )
        server = server_of(rule, node) if rule is not None else None
        other = world.all(Server).get(server.label) if server is not None else None
        if other is not None and other.node != node.name:
            why = f"there is a server {other.label} already, which is not its own"
            raise ConflictError(f"{why}; first: panloom delete server {other.label}")
        state = BladeState.INSTALLING if server is not None else BladeState.DISCOVERED
        record = BladeRecord(
            state=state,
            hardware=found.hardware,
            rule=rule.name if rule is not None else "",
            server=server.label if server is not None else "",
            since=_history(found, state),
        )
        failpoint.reached("take in")
        records = {BLADES + node.name: msgspec.json.encode(record)}
        rests_on = world.revisions([f"{WANT}platform", *([rule.key] if rule is not None else ())])
        await self._documents.take_in(node, server, who=who, also=records, rests_on=rests_on)
        failpoint.reached("taken in")
        self._observer.discovered.pop(found.mac, None)
        if found.asked_at:
            self._observer.waiting[node.name] = found.asked_at  # it still does, under the name that it has now
        becomes = f" and becomes {server.label} by rule {record.rule}" if server is not None else ""
        self._events.report("approved", f"{found.mac} is node {node.name}{becomes}", node=node.name, who=who)
        self._wake()
        return node

    def _ask_again(self, found: Discovered) -> None:
        """Forget what was chosen at a console, which cannot be: it shows its menu again."""
        now = self._observer.discovered.get(found.mac)
        if now is not None and now.choice == found.choice:
            self._observer.discovered[found.mac] = msgspec.structs.replace(now, choice="")

    async def follow(self, world: World) -> None:
        """Note how far those have come that were taken in."""
        gone = [name for name in world.blades if name not in world.all(Node)]
        if gone:  # unless the node came while this world was read: its record was read after its document
            documents = [f"{WANT}node/{name}" for name in gone]
            await world.edit(blades=dict.fromkeys(gone), rests_on=documents)
        underway = {name: record for name, record in world.blades.items() if record.server}
        if not underway:
            return
        made = {volume.name for volume in (await self._observer.volumes()).volumes}
        for name, record in underway.items():
            carried, disk = world.server_records.get(record.server), world.disk(record.server)
            step = next_step(
                record,
                wanted=record.server in world.all(Server),
                volume_ready=disk is not None and disk.storage_name in made and disk.label not in world.doomed,
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
        before = world.blades[name].server
        rests_on = [f"{WANT}server/{before}", SERVERS + before]  # read before the record: it may have come since
        failpoint.reached(f"note {state.value}")
        await world.edit(blades={name: changed}, rests_on=() if record.server else rests_on)
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
        choice=found.choice,
    )


def step_of(found: Discovered, world: World) -> TakeIn | None:
    """Return what to do with a discovered machine that nobody has approved, None while it must wait."""
    if world.platform is None:
        return None
    return meet(candidate(found), world.all(Rule).values(), world.platform.approve)


def menus_of(world: World, machines: Iterable[Discovered]) -> Mapping[MacAddress, Menu]:
    """Return what the consoles of discovered machines are to ask."""
    rules, images = world.all(Rule).values(), world.all(Image).values()
    menus = {MacAddress.parse(found.mac): prompt_for(candidate(found), rules, images) for found in machines}
    return {mac: menu for mac, menu in menus.items() if menu is not None}


def held_for(node: str, world: World) -> str | None:
    """Return the server that a machine is being installed as, None if it is not."""
    record = world.blades.get(node)
    return record.server if record is not None and is_held(record) and record.server in world.all(Server) else None


def hardware_of(node: Node, world: World) -> Hardware:
    """Return what a node has said of itself, when it was taken in and since; under another MAC it was another one."""
    record, blade = world.node_records.get(node.name, NodeRecord()), world.blades.get(node.name)
    told = record.hardware if record.hardware_mac in ("", str(node.mac)) else Hardware()
    return told.over(blade.hardware) if blade is not None and node.name == node_name(node.mac) else told


def own_initiator(found: Discovered, world: World) -> str | None:
    """Return the iSCSI name that a machine's firmware was set to; None for none, and for one that is another's.

    Machines of one maker may all be set to the same; and by a name of ours one would pass for another.
    """
    name = found.hardware.initiator
    taken = {world.initiator(node) for node in world.all(Node)}
    return None if not name or Iqn(name) in taken or name.startswith(BASE_IQN) else name
