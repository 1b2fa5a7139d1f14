"""How each act of ``decide.server_plan`` is carried out: the world is changed first, then the record says so.

An act that is cut off between the two is done again after a restart, so every act may happen twice.  The one
exception in order is ``BeginFence``: there the record *is* the act, and it is durable before anything else begins.
"""

import secrets
import time
from collections.abc import Callable
from uuid import uuid4

import msgspec

from panloom.control import failpoint
from panloom.control.disk_growth import grow_partitions
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.personalities import auth_of, identity_of
from panloom.control.ports import Ports
from panloom.control.volumes import limits_of, make, octets_of_origin, origin_of
from panloom.control.world import World
from panloom.decide import failover, server_plan
from panloom.decide.image_update import failed, is_on_trial
from panloom.decide.records import (
    Clone,
    NodeRecord,
    Phase,
    ServerRecord,
    Step,
    personality_target_of,
    target_of,
    user_of,
)
from panloom.errors import ConflictError, UnavailableError
from panloom.model.resources import Node, Server, Volume
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun


class Acts:
    """Carries out acts for one server at a time; several servers' acts may run side by side."""

    def __init__(
        self,
        storage: StorageClient,
        ports: Ports,
        observer: Observer,
        events: EventLog,
        boot_table: Callable[[World], None],
    ) -> None:
        self._storage = storage
        self._ports = ports
        self._observer = observer
        self._events = events
        self._boot_table = boot_table

    async def perform(self, act: server_plan.Act, name: str, world: World) -> None:
        """Carry out one act for server ``name``.  Any PanloomError means: not done, try again later."""
        record = world.server_records[name]
        match act:
            case server_plan.MakeVolume():
                await self._make_volume(name, record, world)
            case server_plan.Admit():
                await self._admit(name, record, world)
            case server_plan.OpenPort():
                await self._ports.confirm(str(record.node), world)
            case server_plan.PowerOn():
                await self._power_on(name, record, world)
            case server_plan.Reset(attempt, why):
                await self._reset(name, record, world, attempt, why)
            case server_plan.Quarantine(why):
                await self._begin(name, record, world, why, restart=False, quarantine=why)
            case server_plan.FailTrial(why):
                await self._fail_trial(name, world, why)
            case server_plan.MarkUp():
                await self._mark_up(name, record, world)
            case server_plan.BeginFence(cause, restart):
                await self._begin(name, record, world, cause, restart=restart)
            case server_plan.FenceStep(step):
                await self._fence_step(name, record, world, step)
            case server_plan.Finish():
                await self._finish(name, record, world)
            case server_plan.Forget():
                await self._forget(name, record, world)
            case server_plan.Revive():
                await world.edit(
                    servers={name: msgspec.structs.replace(record, phase=Phase.WAITING, since=time.time())}
                )

    # ── towards up ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _make_volume(self, name: str, record: ServerRecord, world: World) -> None:
        volume = _disk(world, name)
        stored = await self._storage.volumes()
        there = {facts.name for facts in stored.volumes}
        clone = record.clone_of(volume.storage_name)
        if clone is None or volume.storage_name not in there:
            # Which clone it is stands in the record before there is one, so that no other ever goes by its name.
            fits = volume.storage_name not in there and volume.size_octets <= octets_of_origin(volume, stored)
            clone = Clone(volume.storage_name, str(uuid4()), prepared=fits)
            record = record.with_clone(clone, there)
            await world.edit(servers={name: record})
            failpoint.reached("name clone")
        began = time.monotonic()
        if await make(volume, self._storage, stored, world):
            seconds = time.monotonic() - began
            text = f"cloned from {origin_of(volume)} in {seconds * 1000:.0f} ms"
            self._events.report("volume", text, server=name, seconds=seconds)
        if not clone.prepared:
            failpoint.reached("clone")
            grown = await grow_partitions(name, volume.storage_name, record.epoch, self._storage)
            failpoint.reached("grow")
            prepared = msgspec.structs.replace(clone, prepared=True)
            await world.edit(servers={name: record.with_clone(prepared, there)})
            if grown:
                self._events.report("partitioned", "its last partition ends where its disk does", server=name)

    async def _admit(self, name: str, record: ServerRecord, world: World) -> None:
        node, chap = _node(world, record), auth_of(name, world) == "chap"
        access = Access(
            initiator=str(world.initiator(node.name)),
            address=str(node.address),
            other_address=str(other) if (other := world.ipv6_address(node)) else None,
            user=user_of(name, record.epoch) if chap else None,
            secret=record.secret if chap else None,
        )
        identity = ExportedLun.packed(0, identity_of(name, record, world))
        beside = msgspec.structs.replace(identity, lun=1)  # for systems that know of no other target than their disk's
        volume = _disk(world, name)
        disk = ExportedLun(lun=0, volume=volume.storage_name, limits=limits_of(volume))
        try:
            await self._storage.export(str(personality_target_of(name)), [identity], record.epoch, access)
            await self._storage.export(str(target_of(name)), [disk, beside], record.epoch, access)
        except ConflictError:
            known = await self._observer.known_epoch(name)
            if known <= record.epoch:
                raise
            # Whoever has the disk, it is not the machine that this record names.
            cause = f"the storage process is at epoch {known} and the state, restored from a copy, at {record.epoch}"
            await self._begin(name, record, world, cause, restart=True)

    async def _power_on(self, name: str, record: ServerRecord, world: World) -> None:
        node = _node(world, record)
        driver = self._observer.driver(node)
        self._boot_table(world)
        if driver is not None:
            self._events.report("powering", f"power on {node.name}", server=name, node=node.name, epoch=record.epoch)
            await driver.on()
            self._observer.set_power(node.name, True, time.monotonic())
        await world.edit(servers={name: msgspec.structs.replace(record, started=True, since=time.time())})

    async def _reset(self, name: str, record: ServerRecord, world: World, attempt: int, why: str) -> None:
        node = _node(world, record)
        driver = self._observer.driver(node)
        self._boot_table(world)
        if driver is None:
            raise UnavailableError(f"{node.name} has no power driver: switch it off and on by hand")
        changed = msgspec.structs.replace(record, boot_attempts=attempt, started=True, since=time.time())
        await world.edit(servers={name: changed})
        self._events.report(
            "reset", f"reset {attempt}: {why}", server=name, node=node.name, epoch=record.epoch, attempt=attempt
        )
        await (driver.reset() if self._observer.power.get(node.name) else driver.on())
        self._observer.stage(node.name, "power", time.monotonic())

    async def _fail_trial(self, name: str, world: World, why: str) -> None:
        for image, update in world.updates.items():
            if is_on_trial(name, [update]):
                await world.edit(updates={image: failed(update, name, why, wall=time.time())})
                self._events.report("image update", f"is to go back to its old disk: {why}", server=name)

    async def _mark_up(self, name: str, record: ServerRecord, world: World) -> None:
        now, moved = time.time(), ""
        if record.moving_since is not None:
            moved = f", {now - record.moving_since:.1f} s after it began to move"
        changed = msgspec.structs.replace(record, phase=Phase.UP, since=now, boot_attempts=0, moving_since=None)
        await world.edit(servers={name: changed})
        self._observer.use(world)
        self._events.report("up", f"up on {record.node}{moved}", server=name, node=record.node, epoch=record.epoch)

    # ── fence ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(
        self, name: str, record: ServerRecord, world: World, cause: str, *, restart: bool, quarantine: str | None = None
    ) -> None:
        fenced = failover.begin(
            record,
            cause=cause,
            secret=secrets.token_hex(16),
            beacon_key=secrets.token_hex(16),
            wall=time.time(),
            restart=restart,
        )
        node = str(record.node)
        known = world.node_records.get(node, NodeRecord())
        nodes = {node: msgspec.structs.replace(known, quarantined=quarantine)} if quarantine else {}
        await world.edit(servers={name: fenced}, nodes=nodes)
        self._boot_table(world)
        self._observer.use(world)
        self._events.report(
            "fence", f"{node} is fenced: {cause}", server=name, node=node, epoch=fenced.epoch, cause=cause
        )
        if quarantine:
            self._events.report("quarantined", f"{quarantine}; mend it, then: panloom node release {node}", node=node)
        failpoint.reached(Step.EPOCH.value)

    async def _fence_step(self, name: str, record: ServerRecord, world: World, step: Step) -> None:
        fence = record.fence
        if fence is None:
            return
        targets = (str(target_of(name)), str(personality_target_of(name)))
        confirmed = False
        match step:
            case Step.EPOCH:
                pass
            case Step.REFUSE_LOGINS:
                try:
                    for target in targets:
                        await self._storage.revoke(target, record.epoch)
                except ConflictError:
                    await self._catch_up(name, record, world)
                    return
            case Step.DROP_SESSIONS:
                for target in targets:
                    await self._storage.drop(target)
            case Step.DRAIN_WRITES:
                for target in targets:
                    for trouble in await self._storage.drain(target):
                        self._events.report("not flushed", trouble, server=name, node=fence.node, epoch=record.epoch)
            case Step.FILTER_PORT:
                await self._ports.confirm(fence.node, world)
            case Step.POWER_OFF:
                confirmed = await self._power_off(name, fence.node, world)
        failpoint.reached(step.value)
        await world.edit(servers={name: failover.advance(record, step, power_confirmed=confirmed)})
        self._events.report("fenced", step.value, server=name, node=fence.node, epoch=record.epoch)

    async def _catch_up(self, name: str, record: ServerRecord, world: World) -> None:
        """Go above the epoch that the storage process knows: another than ours raised it, our state is an old copy.

        ConflictError if that is not what stands in the way.
        """
        known = await self._observer.known_epoch(name)
        if known < record.epoch:
            raise ConflictError(f"the storage process refuses {name} at epoch {record.epoch}, and knows {known}")
        await world.edit(servers={name: msgspec.structs.replace(record, epoch=known + 1)})
        self._events.report(
            "epoch", f"{record.epoch} was over; going on above {known}", server=name, node=record.node, epoch=known + 1
        )

    async def _power_off(self, name: str, node_name: str, world: World) -> bool:
        node, server = world.all(Node).get(node_name), world.all(Server).get(name)
        driver = self._observer.driver(node) if node else None
        try:
            if driver is None:
                raise UnavailableError(f"{node_name} has no power driver")
            await driver.off()
        except UnavailableError as error:
            if server is not None and server.failover.fence == "power":
                raise
            self._events.report(
                "power off failed", f"{error}; storage and port fence hold", server=name, node=node_name
            )
            return False
        self._observer.set_power(node_name, False, time.monotonic())
        return True

    async def _finish(self, name: str, record: ServerRecord, world: World) -> None:
        fence = record.fence
        if fence is None:
            return
        known = world.node_records.get(fence.node, NodeRecord())
        freed = msgspec.structs.replace(known, server=None, power_unknown=not fence.power_confirmed)
        await world.edit(servers={name: failover.finish(record, wall=time.time())}, nodes={fence.node: freed})
        self._observer.alive.pop(name, None)
        self._observer.dead.pop(name, None)
        self._observer.waiting.pop(fence.node, None)  # only what it asks from now on shows that it began afresh
        self._events.report(
            "fence complete", f"{fence.node} is shut out", server=name, node=fence.node, epoch=record.epoch
        )
        failpoint.reached("finish")

    async def _forget(self, name: str, record: ServerRecord, world: World) -> None:
        for target in (target_of(name), personality_target_of(name)):
            try:
                await self._storage.unexport(str(target), record.epoch)
            except ConflictError:
                await self._catch_up(name, record, world)
                return
        gone = msgspec.structs.replace(record, phase=Phase.GONE, since=time.time(), moving_since=None)
        await world.edit(servers={name: gone})
        self._events.report("removed", f"{name} is gone; its volume stays", server=name)


def _disk(world: World, server: str) -> Volume:
    volume = world.disk(server)
    if volume is None:
        raise UnavailableError(f"server {server} has no disk")
    return volume


def _node(world: World, record: ServerRecord) -> Node:
    node = world.all(Node).get(record.node or "")
    if node is None:
        raise UnavailableError(f"node {record.node} has no document")
    return node
