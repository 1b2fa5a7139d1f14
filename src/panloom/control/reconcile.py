"""The one write path: read want and have, ask the pure functions what to do, do it, look again.

    wake (a document, an observation, a second gone by)
      └─ pass:  read World ─▶ fences ─▶ images, volumes ─▶ new servers' records ─▶ boot table ─▶ ports ─▶ placement
                  └─▶ one worker for each server:  view ─▶ next_act ─▶ act ─▶ view ─▶ …

A fence goes on by its record alone and asks nobody for anything, so that what is down holds up its own step only.  Each
image and volume has a worker too, and the taking in of new machines one, so that no pass, and with it no new fence,
waits for a slow disk or for many of them.  A part of a pass that fails does not keep the others from their work.
Workers of several servers run side by side, one server has never more than one, and a worker that fails leaves its
server to the next pass.  Nothing is kept between passes but what the observer sees, so that a restart continues where
the records stand.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from panloom.control import failpoint
from panloom.control.acts import Acts
from panloom.control.admission import Admission
from panloom.control.blades import Blades, hardware_of, menus_of
from panloom.control.boot_table import boot_table
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.image_imports import ImageImports
from panloom.control.image_sources import ImageSources
from panloom.control.image_updates import ImageUpdates
from panloom.control.lans import Lans
from panloom.control.lateness import Lateness
from panloom.control.mac_counter import MacCounter
from panloom.control.machines import WAITING_SEEN_SECONDS, Machines, wish_of
from panloom.control.observer import STORAGE_SECONDS, Observer
from panloom.control.personalities import booted_with
from panloom.control.ports import Ports
from panloom.control.sequence import next_vni
from panloom.control.volumes import Volumes, can_be_made
from panloom.control.world import BLADES, DOOMED, World
from panloom.decide.hardware import Hardware
from panloom.decide.image_update import is_on_trial, is_shut_out, shut_out_for
from panloom.decide.placement import place, why_none, why_not
from panloom.decide.plan import Preview
from panloom.decide.records import (
    LanRecord,
    NodeRecord,
    Phase,
    ServerRecord,
    VirtualNic,
    volume_of,
)
from panloom.decide.server_plan import (
    Act,
    Admit,
    BeginFence,
    Finish,
    MakeVolume,
    MarkUp,
    ServerView,
    fence_act,
    next_act,
)
from panloom.errors import ConflictError, PanloomError, UnavailableError
from panloom.model import resources
from panloom.model.resources import Node, Server, VirtualLan, Volume
from panloom.state.contract import Store
from panloom.storage import calls
from panloom.storage.client import StorageClient

PASS_SECONDS = 1.0
MAX_CONFLICTS = 5
_log = logging.getLogger("panloom.reconcile")


class _Have(NamedTuple):
    """What is, as far as it is the same for all servers; ``ports_applied``: the port filter is what the world wants."""

    exports: Mapping[str, calls.ExportFacts]
    stored: calls.Volumes
    ports_applied: bool


class Reconciler:
    """Makes what is be what should be."""

    def __init__(
        self,
        store: Store,
        storage: StorageClient,
        edge: Edge,
        observer: Observer,
        events: EventLog,
        sources: ImageSources,
    ) -> None:
        self._store = store
        self._storage = storage
        self._edge = edge
        self._observer = observer
        self._events = events
        self._ports = Ports()
        self.lans = Lans()
        self._machines = Machines(self._ports, observer)
        self._acts = Acts(storage, self._ports, observer, events, self._replace_boot_table)
        self._images = ImageImports(storage, observer, events, self.wake, sources)
        self._volumes = Volumes(storage, observer, events, self.wake)
        self.updates = ImageUpdates(store, observer, events, self.why, self.wake)
        self._macs = MacCounter(store)
        self._admission = Admission()
        self.blades = Blades(store, observer, self._ports, events, self.wake)
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._said: dict[str, str] = {}
        self._lateness = Lateness(events)
        self._table_revision = 0

    def why(self, subject: str) -> str | None:
        """Return what holds a server up just now, None if nothing does."""
        return "; ".join(filter(None, (self._said.get(subject), self._lateness.of(subject)))) or None

    def wake(self) -> None:
        """Ask for a pass soon."""
        self._wake.set()

    async def run(self) -> None:
        """Pass after pass until cancelled; one that fails is told of and followed by the next."""
        try:
            while True:
                await self._part("reading", self._pass())
                try:
                    async with asyncio.timeout(PASS_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            self.updates.close()
            for worker in self._workers.values():
                worker.cancel()

    async def _pass(self) -> None:
        world = await World.read(self._store)
        self._observer.use(world)
        for label in world.doomed:
            self._start(f"destroy {label}", partial(self._destroy, label))
        if world.platform is None:
            return
        self._go_on_fencing(world)
        self._lateness.see_moves(world)
        await self._part("images", self._images.tend(world, self._start, self._say))
        await self._part("volumes", self._volumes.tend(world, self._start, self._say))
        await self._part("image updates", self.updates.tend(world))
        await self._part("new LANs", self._meet_lans(world))
        await self._part("new servers", self._meet_servers(world))
        await self._part("nodes", self._clear_doubts(world))
        await self._part("hardware", self._note_hardware(world))
        await self._part("cables", self._follow_cables(world))
        self._start("discovered machines", partial(self._meet_machines, world))
        await self._part("new machines", self.blades.follow(world))
        self._replace_boot_table(world)
        await self._part("ports", self._ports.apply(world))
        await self._part("virtual LANs", self.lans.apply(world))
        await self._part("placement", self._place(world))
        await self._part("servers", self._start_workers())
        await self._part("boots", self._observer.boots.write())

    async def _part(self, what: str, work: Awaitable[None]) -> None:
        """Do a part of a pass; what keeps it from being done is said, and the other parts go on."""
        try:
            await work
            self._say(what, None)
        except ConflictError as error:
            _log.info("pass=%r conflict=%r", what, str(error))
        except PanloomError as error:
            self._say(what, f"{what}: {error}")

    def _go_on_fencing(self, world: World) -> None:
        """Set a worker to each server whose node is being fenced."""
        for name, record in world.server_records.items():
            if record.phase is Phase.FENCING:
                self._start(name, partial(self._work, name))

    async def _start_workers(self) -> None:
        """Set a worker to each server for which there is something to do."""
        world = await World.read(self._store)
        have, due = await self._have(world), dict[str, bool]()
        self._admission.keep(world.server_records)
        for name, record in world.server_records.items():
            try:
                view = self._view(name, world, have)
            except PanloomError as error:
                self._say(name, str(error))
                continue
            act = next_act(view)
            self._lateness.see_boot(view)
            if act is not None:
                is_granted = self._admission.is_granted(name, record, have.exports, world)
                due[name] = isinstance(act, Admit) and record.phase is Phase.UP and is_granted
            elif record.phase is not Phase.WAITING:  # placement says why it waits
                self._say(name, self._admission.why_untold(name, record, world))
        for name in self._admission.in_turn(due, self._at_work()):
            self._start(name, partial(self._work, name))

    def _at_work(self) -> frozenset[str]:
        return frozenset(name for name, worker in self._workers.items() if not worker.done())

    def _start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a worker unless the one of that name is still at work."""
        worker = self._workers.get(name)
        if worker is None or worker.done():
            self._workers[name] = asyncio.create_task(work(), name=name)

    def _say(self, subject: str, why: str | None, *, node: str | None = None) -> None:
        """Report a trouble when it begins or changes, not each time it is met."""
        if why is None:
            self._said.pop(subject, None)
        elif self._said.get(subject) != why:
            self._said[subject] = why
            is_server = "/" in subject and " " not in subject
            self._events.report("held up", why, server=subject if is_server else None, node=node)

    async def preview(self) -> Preview:
        """Return what says, for documents not yet applied, where their servers would boot."""
        world = await World.read(self._store)
        await self._ports.look()
        return partial(self._machines.where, world)

    async def preflight(self, wanted: Mapping[str, resources.Resource]) -> Sequence[str]:
        """Return what would go wrong with these documents once a machine fails: servers that no spare could carry."""
        return await self._machines.lacking_spares(wanted, await World.read(self._store))

    async def move(self, server: str, cause: str) -> None:
        """Fence a server's node now, so that the server moves; ConflictError while another act changes its record."""
        world = await World.read(self._store)
        record = world.server_records[server]
        if record.node is None or record.phase is Phase.FENCING:
            raise ConflictError(f"{server} is {record.phase.value}: nothing is left to fence")
        await self._acts.perform(BeginFence(cause), server, world)
        self.wake()

    async def destroy(self, label: str) -> None:
        """Destroy a doomed volume's data now; return when they are gone, or it is known why they are not yet."""
        self._start(f"destroy {label}", partial(self._destroy, label))
        await asyncio.wait([self._workers[f"destroy {label}"]], timeout=STORAGE_SECONDS)

    async def _destroy(self, label: str) -> None:
        """Destroy a doomed volume's data, then forget that it was doomed; nobody else does either."""
        key, what = DOOMED + label, f"volume {label}"
        if what in self._workers:
            await asyncio.wait([self._workers[what]])  # else what is being made might come after its end
        try:
            doomed = await self._store.get(key)
            if doomed is None:
                return
            failpoint.reached("destroy data")
            await self._storage.delete_volume(volume_of(label))
            failpoint.reached("forget volume")
            await self._store.commit(expect={key: doomed.revision}, delete=[key])
        except PanloomError as error:
            self._say(what, f"{what} is not destroyed yet: {error}")
            return
        self._say(what, None)
        self._events.report("destroyed", f"{what} and its data are gone")
        self._wake.set()

    # ── the parts of a pass ──────────────────────────────────────────────────────────────────────────────────────────

    async def _meet_lans(self, world: World) -> None:
        """Give each new LAN its VNI."""
        for name in world.all(VirtualLan).keys() - world.lan_records.keys():
            await world.edit(lans={name: LanRecord((await next_vni(self._store)).number)})

    async def _meet_servers(self, world: World) -> None:
        """Give each new server a record, and each new NIC its virtual MAC and its VNI."""
        for name, server in world.all(Server).items():
            record = world.server_records.get(name)
            nics = await self._nics(record.nics if record else (), [nic.lan for nic in server.nics], world)
            if record is None:
                record = ServerRecord(
                    phase=Phase.WAITING,
                    epoch=await self._observer.known_epoch(name) + 1,
                    since=time.time(),
                    secret=secrets.token_hex(16),
                    beacon_key=secrets.token_hex(16),
                )
            elif nics == record.nics:
                continue
            await world.edit(servers={name: msgspec.structs.replace(record, nics=nics)})

    async def _nics(self, known: Sequence[VirtualNic], lans: Sequence[str], world: World) -> tuple[VirtualNic, ...]:
        """Return the NICs that are known, and new ones in those of the LANs that have none."""
        serial = world.platform.control.serial if world.platform else 0
        found = {nic.lan: nic for nic in known}
        for lan in lans:
            if lan not in found:
                found[lan] = VirtualNic(lan=lan, mac=str(await self._macs.allocate(serial)))
        for nic in found.values():
            if nic.vni is None:
                found[nic.lan] = msgspec.structs.replace(nic, vni=(await next_vni(self._store)).number)
        return tuple(found.values())

    async def _meet_machines(self, world: World) -> None:
        """Take new machines in; in a worker of its own, since each costs a commit and no fence may wait for them."""
        await self._part("discovered machines", self.blades.meet(world, self._say))

    async def _clear_doubts(self, world: World) -> None:
        """A node fenced without a confirmed power-off is free again once it is seen off, or asks to boot afresh."""
        for name, record in list(world.node_records.items()):
            asked = self._observer.waiting.get(name)
            fresh = asked is not None and time.monotonic() - asked < WAITING_SEEN_SECONDS
            if record.power_unknown and (self._observer.power.get(name) is False or fresh):
                await world.edit(nodes={name: msgspec.structs.replace(record, power_unknown=False)})

    async def _note_hardware(self, world: World) -> None:
        """Keep what nodes say of themselves, so that placement knows it of machines that are off.

        Whoever is root of a server can say what its agent does: that fills in what nobody else has said.
        """
        for name, node in world.all(Node).items():
            told, reported = self._observer.hardware.get(node.mac), self._observer.reported.get(node.mac)
            if told is None and reported is None:
                continue
            record = world.node_records.get(name, NodeRecord())
            known = hardware_of(node, world)
            whole = (told.over(known) if told is not None else known).over(reported or Hardware())
            changed = msgspec.structs.replace(record, hardware=whole, hardware_mac=str(node.mac))
            if changed != record:
                await world.edit(nodes={name: changed})

    async def _follow_cables(self, world: World) -> None:
        """Say which nodes could not be fenced; remember where those in use are seen, which no bridge knows for long."""
        await self._ports.look()
        for name, node in world.all(Node).items():
            record = world.node_records.get(name, NodeRecord())
            seen = self._ports.seen_at(node)
            if record.server is not None and seen is not None and seen != record.seen_at:
                await world.edit(nodes={name: msgspec.structs.replace(record, seen_at=seen)})
            is_free = record.server is None
            why = self._ports.why_not_placed(node, world) if is_free else self._ports.why_not_fenced(name, world)
            self._say(f"node {name}", why, node=name)

    def _replace_boot_table(self, world: World) -> None:
        """Hand out what this world says, unless a newer one has been handed out."""
        table = boot_table(world, menus_of(world, self._observer.discovered.values()))
        if table is not None and world.revision >= self._table_revision:
            self._table_revision = world.revision
            self._edge.replace(table)

    async def _place(self, world: World) -> None:
        """Give free machines to the servers that wait and have their disk."""
        powered = [node.name for node in world.all(Node).values() if node.power is not None]
        if world.platform is None or not all(node in self._observer.power for node in powered):
            return  # we have just begun: a better machine may be there than those that were asked already
        made = {volume.name for volume in (await self._observer.volumes()).volumes} - world.doomed_volumes
        waiting = {
            name: record
            for name, record in world.server_records.items()
            if record.phase is Phase.WAITING
            and name in world.all(Server)
            and _is_among(world.disk(name), made)
            and _is_prepared(record, world.disk(name))
        }
        waiting = {name: one for name, one in waiting.items() if not is_shut_out(name, world.updates.values())}
        wishes = [wish_of(world.all(Server)[name], record) for name, record in waiting.items()]
        machines = self._machines.of(world.all(Node).values(), world)
        portals, network = (await self._observer.status()).portals, world.platform.storage
        nowhere = why_none(portals, network.address, network.iscsi_port)
        placed = place(wishes, machines) if nowhere is None else {}
        for name, node in placed.items():
            record = waiting[name]
            personality = booted_with(name, record, world)
            on = self._observer.power.get(node) is not False
            changed = msgspec.structs.replace(
                record, phase=Phase.BOOTING, node=node, since=time.time(), personality=personality, started=on
            )
            known = world.node_records.get(node, NodeRecord())
            carries = msgspec.structs.replace(known, server=name, seen_at=None)
            # What either asks or has may be another by now, and the node be held for another server.
            rests_on = [world.all(Node)[node].key, world.all(Server)[name].key, BLADES + node]
            await world.edit(servers={name: changed}, nodes={node: carries}, rests_on=rests_on)
            self._observer.waiting.pop(node, None)
            self._events.report("placed", f"placed on {node}", server=name, node=node, epoch=record.epoch)
        if placed:
            self._wake.set()  # a machine that is on already asks for its boot script any moment
        for wish in wishes:
            self._say(wish.server, None if wish.server in placed else nowhere or why_not(wish, machines))

    # ── one server ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, name: str) -> None:
        """Do one act after the other for a server until there is none, or one fails."""
        conflicts = 0
        while True:
            try:
                world = await World.read(self._store)
                self._observer.use(world)
                record = world.server_records[name]
                if record.phase is Phase.FENCING:
                    act: Act | None = fence_act(record)
                else:
                    act = next_act(self._view(name, world, await self._have(world)))
                if act is None:
                    return
                await self._acts.perform(act, name, world)
                conflicts = 0
                if isinstance(act, MakeVolume | MarkUp | Finish):
                    self._wake.set()
            except ConflictError as error:
                conflicts += 1
                _log.info("server=%s conflict=%r", name, str(error))
                if conflicts > MAX_CONFLICTS:
                    self._say(name, str(error))
                    return
            except PanloomError as error:
                self._say(name, str(error))
                return
            except Exception as error:  # noqa: BLE001 - the top of this task: a fault of ours holds up one server
                _log.exception("server=%s", name)
                self._say(name, f"the control process failed ({type(error).__name__}: {error}); see its log")
                return

    async def _have(self, world: World) -> _Have:
        status, stored = await self._observer.status(), await self._observer.volumes()
        return _Have({one.target: one for one in status.exports}, stored, self._ports.is_applied(world))

    def _view(self, name: str, world: World, have: _Have) -> ServerView:
        record = world.server_records[name]
        server, platform = world.all(Server).get(name), world.platform
        if platform is None:
            raise UnavailableError("the platform document is gone")
        node = world.all(Node).get(record.node or "")
        if server is not None and {nic.lan for nic in server.nics} - {nic.lan for nic in record.nics}:
            raise UnavailableError(f"{name} has a NIC without a MAC yet")
        progress, carrier, now = self._observer.boots.progress, record.node or "", time.monotonic()
        served = not self._edge.trouble  # else nobody's firmware gets an answer, and it is not the machines' fault
        progress.expect(carrier, (name, record.since, served), now)
        volume = world.disk(name)
        made = {facts.name for facts in have.stored.volumes} - world.doomed_volumes
        return ServerView(
            name=name,
            wanted=server is not None,
            record=record,
            volume_ready=_is_among(volume, made),
            volume_prepared=_is_prepared(record, volume),
            volume_doomed=volume is not None and volume.label in world.doomed,
            image_ready=volume is not None and can_be_made(volume, have.stored, world),
            admitted=self._admission.is_there(name, record, have.exports, world),
            port_open=have.ports_applied and self._ports.why_not_fenced(record.node or "", world) is None,
            has_power=node is not None and node.power is not None,
            power=self._observer.power.get(carrier),
            alive=self._observer.alive.get(name) == record.epoch,
            dead=self._observer.dead.get(name),
            enabled=server.failover.enabled if server else True,
            personality=booted_with(name, record, world) if server else record.personality,
            stage=progress.stage(carrier),
            to_fence=shut_out_for(name, world.updates.values()),
            on_trial=is_on_trial(name, world.updates.values()),
            stalled_seconds=progress.stalled_seconds(carrier, now) if served else 0.0,
            boot_timeout_seconds=platform.boot_timeout_seconds,
            max_boot_attempts=platform.max_boot_attempts,
        )


def _is_prepared(record: ServerRecord, volume: Volume | None) -> bool:
    """Whether the clone that a server has is as it should be inside; one from before clones had names is."""
    clone = record.clone_of(volume.storage_name) if volume is not None else None
    return clone.prepared if clone is not None else not record.clones


def _is_among(volume: Volume | None, made: Container[str]) -> bool:
    return volume is not None and volume.storage_name in made
