"""The control node as the API sees it: documents, what is observed of them, and the acts a person may ask for."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from panloom.control.api import Row
from panloom.control.blades import candidate
from panloom.control.boot_story import BootStory
from panloom.control.consoles import Consoles, Viewer
from panloom.control.documents import Documents, Edit, Outcome, Return
from panloom.control.events import EventLog
from panloom.control.image_updates import update_row
from panloom.control.observer import Observer
from panloom.control.personalities import personality_of
from panloom.control.power import SocketDriver
from panloom.control.reconcile import Reconciler
from panloom.control.rows import Rows
from panloom.control.site_check import SiteCheck, state_of
from panloom.control.volumes import why_read
from panloom.control.world import DOOMED_IMAGES, World
from panloom.decide import boot_menu
from panloom.decide.console_access import Access
from panloom.decide.history import Revision
from panloom.decide.images import prune, tagged, untagged
from panloom.decide.plan import Plan, newest
from panloom.decide.provisioning import rule_for
from panloom.decide.records import NodeRecord, Phase, target_of, volume_of
from panloom.errors import ConfigError, ConflictError, RefusedError, UnavailableError
from panloom.model import resources
from panloom.model.export import Exported
from panloom.model.image_signatures import Statement, key_id, verify
from panloom.model.load import File
from panloom.model.sources import did_you_mean
from panloom.state.contract import Store
from panloom.storage.client import StorageClient

_ATTEMPTS = 5


class ControlNode:
    """Answers the API; every change goes through the store and the reconciler, none around them."""

    def __init__(
        self,
        store: Store,
        storage: StorageClient,
        documents: Documents,
        observer: Observer,
        reconciler: Reconciler,
        events: EventLog,
        consoles: Consoles,
        story: BootStory,
        site: SiteCheck,
    ) -> None:
        self._store = store
        self._storage = storage
        self._documents = documents
        self._observer = observer
        self._reconciler = reconciler
        self._events = events
        self._consoles = consoles
        self._site = site
        self._rows = Rows(storage, observer, reconciler.why, story)

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def plan(self, files: Sequence[File]) -> Plan:
        """Return what applying the files would do."""
        return await self._documents.plan(files)

    async def apply(self, files: Sequence[File], *, prune: bool, who: str) -> Outcome:
        """Make the files what is wanted, and begin to make it so."""
        outcome = await self._documents.apply(files, prune=prune, who=who)
        if outcome.revision:
            names = ", ".join(file.name for file in files)
            self._events.report("applied", f"revision {outcome.revision} from {names}", who=who)
        self._reconciler.wake()
        return outcome

    async def delete(self, kind: str, name: str, *, yes: bool, who: str) -> Outcome:
        """Take one resource out of what is wanted; the data of a volume or an image go with it, and only with ``yes``.

        Where the storage process does not answer, the data go as soon as it does and nothing uses them: it refuses by
        itself what is said here before.
        """
        if kind == "snapshot":
            return await self._delete_snapshot(name, yes=yes, who=who)
        if kind == "image" and not yes and await self._may_have_data(name):
            raise ConfigError(f"image {name}", "its data would be gone for ever; say so with --yes")
        with contextlib.suppress(UnavailableError):
            if kind == "volume" and yes:
                await self._volume_is_free(name)
            if kind == "image":
                await self._image_is_free(name)
        outcome = await self._documents.delete(kind, name, yes=yes, who=who)
        self._events.report("deleted", f"{kind} {name}", who=who)
        if kind == "volume":
            await self._reconciler.destroy(name)
        self._reconciler.wake()
        return outcome

    async def revisions(self) -> Sequence[Revision]:
        """Return the revisions that are remembered, oldest first."""
        return await self._documents.history.revisions()

    async def revision(self, number: int) -> tuple[Revision, Plan | None]:
        """Return one and what it changed, None where that is forgotten."""
        found = await self._documents.history.revision(number)
        try:
            return found, await self._documents.between(number - 1, number)
        except ConfigError:
            return found, None

    async def between(self, first: int, second: int | None) -> Plan:
        """Return what changed from after one revision to after another; None is now."""
        return await self._documents.between(first, second)

    async def export(self, kind: str, label: str, revision: int | None) -> Exported:
        """Return documents: of everything, of a kind, or of one of it; as wanted now, or after a revision."""
        return await self._documents.export(kind, label, revision)

    async def plan_rollback(self, revision: int | None) -> Return:
        """Return what going back would do; None is to before the last revision."""
        return await self._documents.plan_rollback(revision)

    async def rollback(self, revision: int | None, *, last: int | None, who: str) -> Outcome:
        """Bring back the documents after a revision, as a new one; placements, epochs and disks stay."""
        planned = await self._documents.plan_rollback(revision)
        outcome = await self._documents.rollback(revision, last=planned.last if last is None else last, who=who)
        if outcome.revision:
            text = f"revision {outcome.revision} brings back revision {planned.revision}"
            self._events.report("rolled back", text, who=who)
        self._reconciler.wake()
        return outcome

    async def _volume_is_free(self, name: str) -> None:
        status = await self._observer.status()
        exported = {lun.volume for export in status.exports for lun in export.luns}
        if volume_of(name) in exported:
            world = await World.read(self._store)
            found = world.all(resources.Volume).get(name)
            if found is not None and found.serves in world.all(resources.Server):
                return  # documents say so, and how to go on
            raise ConflictError(f"volume {name} is still exported: its server is being taken down; try again soon")
        taken = [row["name"] for row in await self.rows("snapshot") if row["volume"] == name]
        if taken:
            raise ConflictError(
                f"volume {name} has snapshots ({', '.join(taken)}); first: panloom delete snapshot {taken[0]} --yes"
            )

    async def _may_have_data(self, label: str) -> bool:
        try:
            return label in await self._observer.imported()
        except UnavailableError:
            return True

    async def _image_is_free(self, label: str) -> None:
        """ConflictError where something reads it that no document names: what documents name is told by their check."""
        world, stored = await World.read(self._store), await self._observer.volumes()
        why = why_read(stored, world).get(label)
        if why and not any(volume.image == label for volume in world.all(resources.Volume).values()):
            raise ConflictError(f"image {label} is {why}")

    # ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def update_image(self, image: str, to: str, servers: Sequence[str], width: int, *, who: str) -> Row:
        """Begin to give the servers of an image disks of a version; the one that is under way if it is the same."""
        return update_row(await self._reconciler.updates.begin(image, to, servers, width, who))

    async def stop_update(self, image: str, *, who: str) -> Row:
        """Let no further server begin."""
        return update_row(await self._reconciler.updates.stop(image, who))

    async def prune_image(self, image: str, keep: int, *, yes: bool, who: str) -> Row:
        """Destroy the versions of an image that nobody needs, or say which these are.

        Where the storage process does not answer, one may be among them that it refuses to destroy then.
        """
        world = await World.read(self._store)
        updates, read = world.updates, dict[str, str]()
        with contextlib.suppress(UnavailableError):
            read = why_read(await self._observer.volumes(), world)
        found = prune(image, (), (), keep=keep)

        def change(stored: Mapping[str, resources.Resource]) -> Edit:
            nonlocal found
            found = prune(image, tuple(stored.values()), updates.values(), keep=keep, read=read)
            if not found.gone and not found.kept:
                raise ConfigError(f"image {image}", "there is none of that name; see: panloom get images")
            if not yes:
                return Edit({})
            keys = frozenset(f"{resources.WANT}image/{label}" for label in found.gone)
            return Edit({}, keys, {DOOMED_IMAGES + label: who.encode() for label in found.gone})

        await self._documents.edit(change, what="image prune", who=who)
        if yes and found.gone:
            self._events.report("deleted", f"image {', '.join(found.gone)}", who=who)
            self._reconciler.wake()
        return {"gone": list(found.gone), "kept": dict(found.kept), "done": yes}

    async def tag_image(self, label: str, tags: Sequence[str], *, remove: bool, who: str) -> Row:
        """Have one version of an image carry tags, and no other of it; or have it carry them no more."""
        change = untagged if remove else tagged
        await self._documents.edit(lambda stored: Edit(change(label, tags, stored)), what="image tag", who=who)
        self._events.report("tagged", f"{label} {'is no more' if remove else 'is'} {', '.join(tags)}", who=who)
        return {"image": label, "tags": list(tags)}

    async def sign_image(self, label: str, signature: str, public_key: str, *, who: str) -> Row:
        """Note a signature of an image that is in the store, in the place of an earlier one by that key."""
        world = await World.read(self._store)
        stored_images = {facts.name: facts for facts in (await self._observer.volumes()).images}
        if label not in world.all(resources.Image) or label not in stored_images:
            raise ConfigError(f"image {label}", "there is no such version in the store; see: panloom get images")
        facts = stored_images[label]

        def change(stored: Mapping[str, resources.Resource]) -> Edit:
            image = stored.get(f"{resources.WANT}image/{label}")
            if not isinstance(image, resources.Image):
                raise ConfigError(f"image {label}", "is deleted")
            made_by = key_id(public_key)
            statement = Statement(image.name, image.version, facts.octets, facts.sha256)
            if not signature.startswith(f"{made_by}:") or verify(statement, (signature,), {"this": public_key}).bad:
                raise ConfigError(f"image {label}", "the signature is not of this disk; nothing was noted")
            others = tuple(one for one in image.signatures if not one.startswith(f"{made_by}:"))
            return Edit({image.key: image.model_copy(update={"signatures": (*others, signature)})})

        await self._documents.edit(change, what="image sign", who=who)
        self._events.report("signed", f"{label} by key {signature.partition(':')[0]}", who=who)
        self._reconciler.wake()
        keys = world.platform.images.keys if world.platform else {}
        trusted = next((name for name, public in keys.items() if public == public_key), None)
        return {"image": label, "signature": signature, "trusted": trusted}

    # ── volumes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def take_snapshot(self, volume: str, name: str, *, who: str) -> Row:
        """Freeze what a volume holds now, as ``volume@name``; nothing happens if that is there."""
        found = await self._volume(volume)
        began = time.monotonic()
        created = await self._storage.take_snapshot(f"{found.storage_name}@{name}")
        seconds = time.monotonic() - began
        if created:
            self._events.report("snapshot", f"{found.label}@{name} taken in {seconds * 1000:.0f} ms", who=who)
        return {"snapshot": f"{found.label}@{name}", "created": created, "seconds": seconds}

    async def flatten(self, volume: str, *, who: str) -> Row:
        """Begin to copy what a volume reads of image and snapshots; returns at once."""
        found = await self._volume(volume)
        await self._storage.flatten_volume(found.storage_name)
        self._events.report("flatten", f"{found.label} is being flattened", who=who)
        return {"volume": found.label}

    async def reopen(self, volume: str, *, who: str) -> Row:
        """Open a volume anew that a failed sync took offline."""
        found = await self._volume(volume)
        await self._storage.reopen_volume(found.storage_name)
        self._events.report("reopened", f"{found.label} is opened anew: it holds what was flushed", who=who)
        return {"volume": found.label}

    async def _delete_snapshot(self, label: str, *, yes: bool, who: str) -> Outcome:
        if label not in {row["name"] for row in await self.rows("snapshot")}:
            raise ConfigError(f"snapshot {label}", "there is none of that name; see: panloom get snapshots")
        world = await World.read(self._store)
        for volume in world.all(resources.Volume).values():
            if f"{volume.pan}/{volume.snapshot}" == label and not await self._is_made(volume):
                raise ConflictError(f"volume {volume.label} is to be a clone of it, and is not made yet")
        if not yes:
            raise ConfigError(f"snapshot {label}", "its data would be gone for ever; say so with --yes")
        await self._storage.delete_snapshot(volume_of(label))
        self._events.report("deleted", f"snapshot {label}", who=who)
        return Outcome(Plan(), 0)

    async def _is_made(self, volume: resources.Volume) -> bool:
        return volume.storage_name in {facts.name for facts in (await self._storage.volumes()).volumes}

    async def _volume(self, label: str) -> resources.Volume:
        """Return the disk of a server of that name, else the volume of that name."""
        world = await World.read(self._store)
        is_server = label in world.all(resources.Server)
        found = world.disk(label) if is_server else world.all(resources.Volume).get(label)
        if found is None:
            raise ConfigError(f"volume {label}", "there is none of that name; see: panloom get volumes")
        return found

    # ── what is ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def rows(self, kind: str) -> Sequence[Row]:
        """Return the resources of a kind, each with what is observed of it."""
        return await self._rows_of(kind, await World.read(self._store))

    async def _rows_of(self, kind: str, world: World) -> Sequence[Row]:
        if kind not in ("snapshot", "update") and kind not in resources.KINDS:
            raise ConfigError(kind, f"no such kind; there are: {', '.join(resources.KINDS)}")
        return await self._rows.of(kind, world)

    async def row(self, kind: str, name: str) -> Row | None:
        """Return one with its details, None when there is none of that name."""
        world = await World.read(self._store)
        for row in await self._rows_of(kind, world):
            if row["name"] == name:
                return await self._rows.details(kind, dict(row), world)
        return None

    async def events(self, *, after: int, wait_seconds: float) -> Sequence[Row]:
        """Return the events after a number, oldest first; wait for the first if there is none."""
        return [msgspec.to_builtins(event) for event in await self._events.after(after, wait_seconds=wait_seconds)]

    async def status(self) -> Row:
        """Return how the platform is, part by part."""
        return await self._rows.status(await World.read(self._store), self._store)

    async def check(self) -> Row:
        """Return what would go wrong on this site; takes some seconds."""
        found = await self._site.findings(self.rows)
        return {"state": state_of(found), "findings": [msgspec.to_builtins(finding) for finding in found]}

    async def personality(self, server: str) -> Row:
        """Return everything that makes a machine be that server, its secrets left out (line 190)."""
        world = await World.read(self._store)
        record, wanted = world.server_records.get(server), world.all(resources.Server).get(server)
        if record is None or wanted is None:
            raise ConfigError(f"server {server}", "there is none of that name; see: panloom get servers")
        volume = world.disk(server)
        personality = personality_of(server, record, world)
        return {
            "server": server,
            "epoch": record.epoch,
            "node": record.node,
            "phase": record.phase.value,
            "nics": [msgspec.to_builtins(nic) for nic in personality.nics],
            "storage": {
                "target": str(target_of(server)),
                "lun": 0,
                "volume": volume.storage_name if volume else volume_of(server),
                "image": (volume.image if volume else "") or wanted.image,
            },
            "failover": wanted.failover.model_dump(mode="json"),
        }

    # ── acts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def failover(self, server: str, *, who: str) -> Row:
        """Fence the server's node and move the server to another; returns at once."""
        world = await World.read(self._store)
        record = world.server_records.get(server)
        if record is None or server not in world.all(resources.Server):
            raise ConfigError(f"server {server}", "there is none of that name; see: panloom get servers")
        if record.node is None or record.phase not in (Phase.UP, Phase.BOOTING):
            raise ConflictError(f"{server} is {record.phase.value} and holds no node that could be fenced")
        self._events.report("asked", f"move {server} away from {record.node}", server=server, node=record.node, who=who)
        await self._reconciler.move(server, f"{who} asked for it")
        return {"server": server, "from": record.node}

    async def power(self, node: str, action: str, *, who: str) -> Row:
        """Switch a node on, off or reset it; ``kill`` pulls the plug of a machine of a lab."""
        found = await self._node(node)
        driver = self._observer.driver(found)
        if driver is None:
            raise ConfigError(f"node {node}", "has no power driver; give its document a `power:`")
        acts: dict[str, Any] = {"on": driver.on, "off": driver.off, "reset": driver.reset}
        if isinstance(driver, SocketDriver):
            acts["kill"] = driver.kill
        if action not in acts:
            raise ConfigError(f"node {node}", f"its power driver cannot {action}: only a supervisor of a lab does")
        self._events.report("asked", f"power {action}", node=node, who=who)
        await acts[action]()
        if action == "reset":
            self._observer.stage(node, "power", time.monotonic())
        on = await self._observer.refresh_power(found)
        return {"node": node, "power": "on" if on else "off"}

    async def console(self, node: str, *, types: bool, who: str) -> AbstractContextManager[Viewer]:
        """Let somebody look at a node's serial line, and type there if the platform lets him and nobody else does."""
        access = await self._console_access(node, who)
        await self._node(node)
        allowed = "" if access is Access.TYPE else "the platform's `consoles:` lets you do no more"
        return self._view(node, "" if types and not allowed else allowed or "you asked for that", who)

    @contextlib.contextmanager
    def _view(self, node: str, reads: str, who: str) -> Iterator[Viewer]:
        with self._consoles.of(node).viewer(reads) as viewer:
            self._events.report("console", "looks and types" if viewer.keyboard else "looks", node=node, who=who)
            try:
                yield viewer
            finally:
                self._events.report("console", "leaves", node=node, who=who)

    async def type(self, node: str, keyboard: str, octets: bytes, *, who: str) -> None:
        """Send to a node's serial line what the holder of its keyboard typed, if he may still."""
        if await self._console_access(node, who) is not Access.TYPE:
            raise RefusedError(f"{who} may not type at the console of {node}; see `consoles:` of the platform")
        await self._consoles.of(node).type(keyboard, octets)

    async def console_log(self, node: str, *, who: str) -> str:
        """Return all that is written down of a node's serial line."""
        await self._console_access(node, who)
        await self._node(node)
        return await asyncio.to_thread(self._consoles.written, node)

    async def _console_access(self, node: str, who: str) -> Access:
        """Return what a user may do at consoles; RefusedError, and an event, if that is nothing."""
        found = await self._consoles.access(who)
        if found is Access.NONE:
            self._events.report("console", "refused", node=node, who=who)
            raise RefusedError(f"{who} may not look at consoles: the platform's `consoles:` names others")
        return found

    async def release(self, node: str, *, who: str) -> Row:
        """End a node's quarantine."""
        await self._node(node)
        for _ in range(_ATTEMPTS):
            world = await World.read(self._store)
            record = world.node_records.get(node, NodeRecord())
            if record.quarantined is None:
                raise ConflictError(f"node {node} is not quarantined")
            try:
                await world.edit(nodes={node: msgspec.structs.replace(record, quarantined=None)})
            except ConflictError:
                continue
            self._events.report("released", "its quarantine is over", node=node, who=who)
            self._reconciler.wake()
            return {"node": node, "state": "ready"}
        raise ConflictError(f"node {node} keeps changing; try again")

    async def approve(self, node: str, *, rule: str | None, image: str | None, who: str) -> Row:
        """Take a discovered machine (by its MAC) in; see ``Control.approve``."""
        world = await World.read(self._store)
        found = self._observer.discovered.get(node.lower())
        if found is None:
            known = ", ".join(sorted(self._observer.discovered)) or "none asks to boot now"
            raise ConfigError(f"node {node}", f"no such machine was discovered; there are: {known}")
        rules = world.all(resources.Rule)
        if rule and rule not in rules:
            raise ConfigError(f"rule {rule}", f"there is none of that name; {did_you_mean(rule, rules)}")
        chosen = rule_for(candidate(found), rules.values()) if rule is None else rules.get(rule)
        if image is not None:
            chosen = _with_image(chosen, image, world)
        made = await self._reconciler.blades.take_in(found, chosen, who=who)
        record = (await World.read(self._store)).blades.get(made.name)  # None: its document is deleted already
        server = record.server or None if record else None
        state = "installing" if server else "spare"
        return {"node": made.name, "mac": found.mac, "address": str(made.address), "state": state, "server": server}

    async def _node(self, name: str) -> resources.Node:
        found = (await World.read(self._store)).all(resources.Node).get(name)
        if found is None:
            raise ConfigError(f"node {name}", "there is none of that name; see: panloom get nodes")
        return found


def _with_image(rule: resources.Rule | None, image: str, world: World) -> resources.Rule | None:
    """Return a rule whose server's disk is a clone of another image; ``ConfigError`` where there is no server."""
    if rule is None or rule.server is None:
        why = "no rule that fits the machine makes a server of it; name one that does: --rule"
        raise ConfigError(f"image {image}", why)
    images = world.all(resources.Image).values()
    if newest(image, images) is None:
        known = [*dict.fromkeys(one.name for one in images), *(one.label for one in images)]
        raise ConfigError(f"image {image}", f"there is none of that name; {did_you_mean(image, known)}")
    return boot_menu.chosen(rule, image)
