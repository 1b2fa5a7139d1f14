"""What is: the eyes and ears of the control node.

    storage process ── status, polled ──▶ sessions, when each was last heard ───┐
                    ── watch ──────────▶ login, first read, refused …  ────────┤
    power drivers   ── watch, polled ──▶ on, off ──────────────────────────────┼──▶ Observer ──▶ wakes the reconciler
    nodes           ── beacons (UDP) ──▶ signs of life under the epoch's key ──┤
    boot services   ── BootEvent ──────▶ dhcp, script, discovered, refused ────┘

Nothing here decides; ``decide.liveness`` judges silence, ``decide.server_plan`` acts on it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.power import PowerDriver, SocketDriver, watch_power
from panloom.control.power_poll import PowerPoll
from panloom.control.power_program import IpmiDriver, ScriptDriver
from panloom.control.world import World
from panloom.decide.boot_answer import BootEvent
from panloom.decide.boot_signs import stage_of
from panloom.decide.hardware import Hardware
from panloom.decide.inventory import System, hardware_of_inventory, system_of_report
from panloom.decide.liveness import Liveness, Verdict
from panloom.decide.records import (
    Discovered,
    Phase,
    personality_target_of,
    target_of,
    volume_of,
)
from panloom.errors import MalformedError, UnavailableError
from panloom.model.resources import IpmiPower, Node, ScriptPower, SocketPower
from panloom.storage import calls
from panloom.storage.client import StorageClient
from panloom.values import MacAddress
from panloom.wire.beacon import Beacon

RECONNECT_SECONDS = 15.0  # what Linux's initiator needs at most to log in again once its target is back
REWATCH_SECONDS = 2.0
ADOPTION_SECONDS = 5.0  # a new system hands its sessions from iscsistart to iscsid, which logs in anew
TELL_AGAIN_SECONDS = 60.0
HARDWARE_SECONDS = 50.0  # an agent reports each 60 s; who does oftener writes no more records
MAX_TOLD = 256
MAX_DISCOVERED = 256  # machines that no document names; a real one asks again within seconds
STORAGE_SECONDS = 3.0  # a status that takes longer is none
Answer = TypeVar("Answer")
_log = logging.getLogger("panloom.observer")


class Observer:
    """Observed state, kept fresh by tasks.

    ``changed`` is called whenever something of interest happened; who joins the parts sets it, and ``logged_in``.
    """

    def __init__(self, storage: StorageClient, boots: Boots, events: EventLog) -> None:
        self.storage = storage
        self.boots = boots
        self.events = events
        self.changed: Callable[[], None] = lambda: None
        self.liveness = Liveness(interval_seconds=0.5, timeout_seconds=3.0, max_simultaneous=2)
        self.power: dict[str, bool | None] = {}
        self.alive: dict[str, int] = {}
        """Server → epoch under which a sign of life was seen."""
        self.dead: dict[str, str] = {}
        """Server → why it counts as dead, until it is fenced."""
        self.waiting: dict[str, float] = {}
        """Node → monotonic seconds when it last asked to boot and was told to wait."""
        self.discovered: dict[str, Discovered] = {}
        """Hardware MAC → a machine that asks to boot and is named by no document; who asked last comes last."""
        self.hardware: dict[MacAddress, Hardware] = {}
        """A node's hardware MAC → what its firmware or the inventory said of it while it waited."""
        self.reported: dict[MacAddress, Hardware] = {}
        """A node's hardware MAC → what its server's agent says of it: a tenant's words, which only fill in."""
        self.systems: dict[str, System] = {}
        """Server → what its agent said last of its system."""
        self.logged_in: Callable[[str, int], None] = lambda initiator, epoch: None  # noqa: ARG005
        """Called with a node's initiator name and its server's epoch when it has logged in."""
        self._dead_at: dict[str, float] = {}
        self._supervisors: dict[str, asyncio.Task[None]] = {}
        self._power_at: dict[str, float] = {}
        self._power_poll = PowerPoll(self._ask_power, self._lack_power)
        self._counters: dict[tuple[str, int], int] = {}
        self._stale_at: dict[str, float] = {}
        self._units_told: dict[str, tuple[int, tuple[str, ...]]] = {}
        """Server → epoch and failed units that an event told of last."""
        self._reported_at: dict[MacAddress, float] = {}
        self._world: World | None = None
        self._storage_lost = False
        self._storage_lost_at = 0.0
        self._asked_storage_at: float | None = None
        """When the storage process was asked for what it has not answered yet."""
        self._told: dict[str, dict[tuple[str | None, ...], float]] = {}
        """Kind of event → what was told of whom → when: who floods us with one kind silences no other."""

    def driver(self, node: Node) -> PowerDriver | None:
        """Return how a node is switched, None when only a person can."""
        match node.power:
            case SocketPower():
                return SocketDriver(node.power.path, node.power.name)
            case ScriptPower():
                return ScriptDriver(node.power)
            case IpmiPower():
                return IpmiDriver(node.power)
        return None

    def use(self, world: World) -> None:
        """Look at this world from now on, at its nodes' power and its servers' silence, unless a newer one is known."""
        if self._world is not None and world.revision < self._world.revision:
            return
        self._world = world
        platform = world.platform
        if platform is not None:
            self.liveness.interval_seconds = platform.liveness.interval_seconds
            self.liveness.timeout_seconds = platform.liveness.timeout_seconds
            self.liveness.max_simultaneous = platform.liveness.max_simultaneous
        now = time.monotonic()
        up = {name for name, record in world.server_records.items() if record.phase is Phase.UP}
        for server in up:
            self.liveness.watch(server, now, grace_seconds=ADOPTION_SECONDS)
        for server in set(self.liveness.watched) - up:
            self.liveness.forget(server)
            self.dead.pop(server, None)
        for node in world.all(Node).values():
            self.discovered.pop(str(node.mac), None)
            path = node.power.path if isinstance(node.power, SocketPower) else None
            if path is not None and path not in self._supervisors:
                self._supervisors[path] = asyncio.create_task(self._watch_supervisor(path), name=f"power {path}")
        self._power_poll.use(world.all(Node).values())

    async def run(self) -> None:
        """Poll, watch and judge until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll_storage(), name="storage poll")
                group.create_task(self._watch_storage(), name="storage watch")
                group.create_task(self._judge(), name="liveness")
                group.create_task(self._power_poll.run(), name="power poll")
        finally:
            for task in self._supervisors.values():
                task.cancel()

    # ── signs of life ────────────────────────────────────────────────────────────────────────────────────────────────

    def sign(self, server: str, epoch: int, at: float) -> None:
        """Note a sign of life of a server under an epoch; those of an epoch that is over mean nothing."""
        record = self._world.server_records.get(server) if self._world else None
        if record is None or record.epoch != epoch or record.fence is not None:
            return
        self.liveness.heard(server, at)
        if at > self._dead_at.get(server, at):
            self.dead.pop(server, None)
        if self.alive.get(server) != epoch:
            self.alive[server] = epoch
            self.changed()

    def beacon(self, octets: bytes, at: float) -> str | None:
        """Note a datagram that should be a beacon, and return whose it is; None where it is wrong or was heard."""
        try:
            beacon = Beacon.decode(octets)
        except MalformedError as error:
            _log.info("beacon=dropped why=%r", str(error))
            return None
        record = self._world.server_records.get(beacon.server) if self._world else None
        key = (beacon.server, beacon.epoch)
        if record is None or record.epoch != beacon.epoch or not beacon.is_under(record.beacon_key):
            _log.info(
                "beacon=dropped server=%s epoch=%d why=%r", beacon.server, beacon.epoch, "not under its epoch's key"
            )
            return None
        if beacon.counter <= self._counters.get(key, -1):
            if at - self._stale_at.get(beacon.server, float("-inf")) >= TELL_AGAIN_SECONDS:
                self._stale_at[beacon.server] = at
                _log.info(
                    "beacon=dropped server=%s epoch=%d why=%r", *key, f"counter {beacon.counter} was heard before"
                )
            return None
        self._counters[key] = beacon.counter
        if record.node is not None:
            self.stage(record.node, "userland", at, server=beacon.server, epoch=beacon.epoch)
        if record.fence is None:
            self.liveness.settled(beacon.server, at)  # whoever runs the beacon has an initiator that stays
        self.sign(beacon.server, beacon.epoch, at)
        if beacon.report is not None and record.fence is None:
            self._take_report(beacon.report.decode("ascii", errors="replace"), beacon, record.node, at)
        return beacon.server

    def _take_report(self, report: str, beacon: Beacon, node: str | None, at: float) -> None:
        told = self.systems[beacon.server] = system_of_report(report, epoch=beacon.epoch, at=at)
        epoch, before = self._units_told.get(beacon.server, (beacon.epoch, ()))
        if told.failed_units != (before if epoch == beacon.epoch else ()):
            text = f"failed: {', '.join(told.failed_units)}" if told.failed_units else "all have mended"
            if self._tell_seldom("units", text, server=beacon.server, node=node):
                self._units_told[beacon.server] = (beacon.epoch, told.failed_units)
        document = self._world.all(Node).get(node or "") if self._world else None
        if document is not None and at - self._reported_at.get(document.mac, float("-inf")) >= HARDWARE_SECONDS:
            self._reported_at[document.mac] = at
            earlier = self.reported.get(document.mac, Hardware())
            hardware = hardware_of_inventory(report).over(earlier)
            if hardware != earlier:
                self.reported[document.mac] = hardware
                self.changed()

    def _judge_dead(self, server: str, why: str) -> None:
        if server not in self.dead:
            self.dead[server] = why
            self._dead_at[server] = time.monotonic()
            self.changed()

    def boot_event(self, event: BootEvent) -> None:
        """Note what the boot services met."""
        if event.kind in ("dhcp", "discovered") and event.why:
            self._tell_seldom("no loader", event.why, server=event.server, node=event.node, mac=str(event.mac))
        match event.kind:
            case "dhcp" | "script" if event.node is not None:
                self.stage(event.node, event.kind, event.at, server=event.server, epoch=event.epoch or 0)
            case "waiting" if event.node is not None:
                if event.node not in self.waiting:
                    self.events.report("waiting", "asks to boot; it is a spare and is told to wait", node=event.node)
                self.waiting[event.node] = event.at
                self.changed()
            case "discovered" | "waiting" | "hardware" | "chosen":
                if event.node is None:
                    self._discover(event)
                elif event.mac and event.hardware and self.hardware.get(event.mac) != event.hardware:
                    self.hardware[event.mac] = event.hardware
                    self.changed()
            case "dhcp" if event.server is not None:
                self.events.report("dhcp", f"{event.mac} has {event.address}", server=event.server)
                self.changed()
            case kind:
                self._tell_seldom(kind, event.why, server=event.server, node=event.node, mac=str(event.mac))

    def _tell_seldom(
        self,
        kind: str,
        why: str,
        *,
        server: str | None,
        node: str | None,
        mac: str = "",
        peer: str | None = None,
        known: Hardware | None = None,
    ) -> bool:
        """Report the same about the same machine once a minute, against floods; return whether that was now."""
        key = (why, server, node, mac or (peer or "").partition(":")[0])
        now = time.monotonic()
        told = {known: at for known, at in self._told.get(kind, {}).items() if now - at < TELL_AGAIN_SECONDS}
        self._told[kind] = told
        if key in told or len(told) >= MAX_TOLD:
            return False
        told[key] = now
        about: dict[str, Any] = {"mac": mac} if mac else {"peer": peer}
        if known is not None:
            about["known"] = msgspec.to_builtins(known)
        self.events.report(kind, why, node=node, server=server, **about)
        return True

    def _discover(self, event: BootEvent) -> None:
        mac = str(event.mac)
        known = self.discovered.pop(mac, None)
        found = known or Discovered(mac=mac, address="", first_seen=time.time(), known_at=event.at)
        reported = found.reported_at or (time.time() if event.kind == "hardware" else None)
        hardware = event.hardware.over(found.hardware) if event.hardware else found.hardware
        choice = event.choice or found.choice
        self.discovered[mac] = msgspec.structs.replace(
            found,
            address=str(event.address),
            asked_at=found.asked_at if event.kind == "discovered" else event.at,  # an address alone asks for no boot
            hardware=hardware,
            reported_at=reported,
            choice=choice,
        )
        if known is not None:
            if (known.hardware, known.reported_at, known.choice) != (hardware, reported, choice):
                self.changed()
            return
        if len(self.discovered) > MAX_DISCOVERED:
            del self.discovered[next(iter(self.discovered))]  # who asks no more; who does comes back
        why = f"{mac} asks to boot and no document names it: panloom node approve {mac}"
        self._tell_seldom("discovered", why, server=None, node=None, mac=mac, known=hardware)
        self.changed()

    def stage(self, node: str, stage: str, at: float, *, server: str | None = None, epoch: int = 0) -> None:
        """Note that a machine's boot reached a stage; the first time it is an event."""
        if self.boots.reached(node, stage, at, server=server, epoch=epoch):
            self.events.report("boot", stage, node=node, server=server, epoch=epoch or None, reached=at)

    def heard(self, node: str, line: str, at: float) -> None:
        """Note what a machine's console says of its boot."""
        stage = stage_of(line)
        if stage is not None and self.boots.reached_by_console(node, stage, at):
            boot = self.boots.under_way(node)
            server, epoch = (boot.server, boot.epoch or None) if boot else (None, None)
            self.events.report("boot", stage, node=node, server=server, epoch=epoch, reached=at)

    # ── storage ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_storage(self) -> bool:
        """Whether the storage process answered when it was last asked."""
        return not self._storage_lost

    async def status(self) -> calls.Status:
        """Return what the storage process says of itself now; UnavailableError when it takes too long."""
        return await _in_time(self.storage.status())

    async def volumes(self) -> calls.Volumes:
        """Return what the storage process keeps now; UnavailableError when it takes too long."""
        return await _in_time(self.storage.volumes())

    async def imported(self) -> frozenset[str]:
        """Return the images that the storage process keeps now; UnavailableError when it takes too long."""
        return frozenset(image.name for image in (await self.volumes()).images)

    async def known_epoch(self, server: str) -> int:
        """Return the highest epoch that the storage process knows of a server, 0 if none; ours may be lower."""
        disk = self._world.disk(server) if self._world else None
        name = disk.storage_name if disk else volume_of(server)
        targets = {str(target_of(server)), str(personality_target_of(server))}
        status, stored = await self.status(), await self.volumes()
        known = [export.epoch for export in status.exports if export.target in targets]
        known += [volume.epoch for volume in stored.volumes if volume.name == name]
        return max(known, default=0)

    async def _poll_storage(self) -> None:
        while True:
            began = self._asked_storage_at = time.monotonic()
            try:
                status = await self.status()
            except UnavailableError as error:
                self._lose_storage(str(error))
            else:
                self._asked_storage_at = None
                took = time.monotonic() - began
                if self._storage_lost or took > 2 * self.liveness.interval_seconds:
                    # Nobody was there to hear: silence counts from when an initiator has had time to come back.
                    self.liveness.hold(time.monotonic() + (RECONNECT_SECONDS if self._storage_lost else 0.0))
                    self._regain_storage()
                self._hear(status)
            await asyncio.sleep(self.liveness.interval_seconds / 2)

    def _lose_storage(self, why: str) -> None:
        self.liveness.hold(time.monotonic())
        if not self._storage_lost:
            self._storage_lost = True
            self._storage_lost_at = time.monotonic()
            self.events.report("storage lost", f"{why}; servers keep waiting for their disks, nothing is fenced")

    def _regain_storage(self) -> None:
        if self._storage_lost:
            self._storage_lost = False
            self.boots.progress.excuse(time.monotonic() - self._storage_lost_at + RECONNECT_SECONDS)
            self.events.report("storage back", "the storage process answers again")
            self.changed()

    def _hear(self, status: calls.Status) -> None:
        world = self._world
        if world is None:
            return
        by_target = {str(target_of(name)): (name, record) for name, record in world.server_records.items()}
        for session in status.sessions:
            name, record = by_target.get(session.target, (None, None))
            if name is None or record is None or record.node is None or session.epoch != record.epoch:
                continue
            if session.initiator == str(world.initiator(record.node)) and session.answers_nop:
                self.sign(name, record.epoch, session.last_heard_at)

    async def _watch_storage(self) -> None:
        while True:
            try:
                async for event in self.storage.watch():
                    self._storage_event(event)
            except UnavailableError:
                await asyncio.sleep(self.liveness.interval_seconds)

    def _storage_event(self, event: calls.Event) -> None:
        world = self._world
        if world is None:
            return
        server = next((name for name in world.server_records if str(target_of(name)) == event.target), None)
        node = next((name for name in world.all(Node) if str(world.initiator(name)) == event.initiator), None)
        record = world.server_records.get(server) if server else None
        if event.event == "refused":
            self._tell_seldom("login refused", event.why, server=server, node=node, peer=event.peer)
            return
        if server is None or node is None or record is None or record.node != node:
            return
        kind, at = event.event, event.at
        if kind == "login":
            # Firmware logs in and reads its boot blocks; the next login is the operating system's own.
            stage = "kernel" if self.boots.passed(node, "first read") else "login"
            self.stage(node, stage, at, server=server, epoch=record.epoch)
            self.logged_in(str(event.initiator), record.epoch)
            self.liveness.excuse(server, at)
        elif kind == "logout":
            # Only a living kernel closes a connection: it is about to log in anew, as iscsid does when it takes over.
            self.liveness.excuse(server, at + RECONNECT_SECONDS)
        elif kind == "first_read":
            self.stage(node, "first read", at, server=server, epoch=record.epoch)

    # ── power ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch_supervisor(self, path: str) -> None:
        while True:
            try:
                await watch_power(path, lambda name, on, at: self._powered(path, name, on, at))
            except UnavailableError as error:
                _log.info("power=unwatched path=%s why=%r", path, str(error))
                await asyncio.sleep(REWATCH_SECONDS)

    def _powered(self, path: str, name: str, on: bool, at: float) -> None:
        if self._world is None:
            return
        for node in self._world.all(Node).values():
            if isinstance(node.power, SocketPower) and (node.power.path, node.power.name) == (path, name):
                self.set_power(node.name, on, at)

    def set_power(self, node: str, on: bool | None, at: float) -> None:
        """Note a node's power state as of ``at``; a node seen to go off takes its server's life with it."""
        at = min(at, time.monotonic())  # a clock that runs ahead overtakes no later answer
        if at < self._power_at.get(node, at):
            return  # an answer that was overtaken
        self._power_at[node] = at
        before = self.power.get(node)
        self.power[node] = on
        if on is None or before is on:
            return
        if before is not None and on:
            self.stage(node, "power", at)
        elif before is not None:
            self.events.report("power", "off", node=node)
        record = self._world.node_records.get(node) if self._world else None
        server = record.server if record else None
        if not on and server is not None and server in self.liveness.watched:
            self._judge_dead(server, f"{node} is off")
        self.changed()

    async def refresh_power(self, node: Node) -> bool | None:
        """Ask a node's driver now; None when it cannot say."""
        driver = self.driver(node)
        if driver is None:
            return None
        asked = time.monotonic()
        try:
            on: bool | None = await driver.status()
        except UnavailableError:
            on = None
        self.set_power(node.name, on, asked)
        return self.power[node.name]

    async def _ask_power(self, node: Node) -> None:
        await self.refresh_power(node)
        record = self._world.node_records.get(node.name) if self._world else None
        server = record.server if record else None
        if self.power.get(node.name) is False and server in self.liveness.watched:
            self._judge_dead(str(server), f"{node.name} is off")

    def _lack_power(self, node: Node) -> None:
        """Count a node whose driver was never heard as one whose power is not known; it may answer yet."""
        if node.name not in self.power:
            self.power[node.name] = None
            self.changed()

    # ── judgement ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _judge(self) -> None:
        due = time.monotonic()
        while True:
            now, asked = time.monotonic(), self._asked_storage_at
            self.boots.progress.excuse(max(0.0, now - due))  # we were not there to see anybody get on
            if asked is not None and now - asked > 2 * self.liveness.interval_seconds:
                self.liveness.hold(now)  # it hangs: nobody may be there to hear
            for finding in self.liveness.verdicts(now):
                if finding.verdict is Verdict.HELD:
                    if finding.servers:
                        names = ", ".join(finding.servers)
                        self.events.report("held", f"{finding.why}: {names} keep their nodes", servers=finding.servers)
                    continue
                for server in finding.servers:
                    self._judge_dead(server, finding.why)
            due = time.monotonic() + self.liveness.interval_seconds
            await asyncio.sleep(self.liveness.interval_seconds)


async def _in_time(call: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        async with asyncio.timeout(STORAGE_SECONDS):
            return await call
    except TimeoutError as error:
        raise UnavailableError(f"the storage process did not answer within {STORAGE_SECONDS:g} s") from error
