"""Documents against the store: plan them, apply them, delete one resource, go back to how they were.

    files ──load──▶ check with what is stored ──decide.plan──▶ Plan ──one commit──▶ /want/…

    /want/…                        the resources
    /record/origin/KIND/NAME       from which file each came: what that file may remove
    /record/doomed-volume/NAME     written when a volume's document is deleted, removed when its data are
    /record/revision/…             who changed what, and how it was before (``control.history``)

An edit, its revision and what it replaced are one commit.  The last ``KEPT_REVISIONS`` are remembered.
An apply is all or nothing, and applying the same files again changes nothing.  A file with a mistake changes nothing
either: what was applied before stays, whole.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from panloom.control.history import History, Stored, origin_key
from panloom.control.world import DOOMED, DOOMED_IMAGES, IMAGES
from panloom.decide import history
from panloom.decide import plan as planning
from panloom.decide.history import Revision
from panloom.decide.images import with_notes, without_claimed
from panloom.decide.plan import Mark, Plan, Preview, Refusal
from panloom.decide.records import ImageRecord
from panloom.errors import ConfigError, ConfigErrors, ConflictError
from panloom.model import export
from panloom.model import resources as model
from panloom.model.check import APPLIED_EARLIER, check
from panloom.model.disks import is_server_disk, with_owners
from panloom.model.export import Exported
from panloom.model.load import File, Loaded, load
from panloom.model.resources import WANT, Resource
from panloom.model.sources import Findings, did_you_mean
from panloom.state.contract import NOTHING, Store

_ATTEMPTS = 5
_SHOWN_USERS = 6
_DOOMED: Mapping[type[Resource], str] = {model.Volume: DOOMED, model.Image: DOOMED_IMAGES}
"""What is destroyed when its document is deleted, and where that is written down."""
_BUSY = "the documents keep changing under this edit; look who else does: panloom history"


class Outcome(msgspec.Struct, frozen=True):
    """What an edit did. ``revision`` is 0 when nothing was to do; ``kept`` is what ``prune`` would have removed."""

    plan: Plan
    revision: int
    kept: tuple[str, ...] = ()


class Edit(NamedTuple):
    """Resources to want, keys of those that go, and records written in the same commit."""

    want: Mapping[str, Resource]
    absent: frozenset[str] = frozenset()
    also: Mapping[str, bytes] = NOTHING


class Return(msgspec.Struct, frozen=True):
    """What going back to a revision would do, while ``last`` is the last one; see ``decide.history.WayBack``."""

    plan: Plan
    revision: int
    last: int
    kept: tuple[str, ...] = ()
    cloned_anew: tuple[str, ...] = ()


async def _no_preview() -> Preview:
    return planning.nothing_to_preview


async def _no_warnings(_wanted: Mapping[str, Resource]) -> Sequence[str]:
    return ()


async def _no_images() -> Container[str]:
    return ()


async def _anything(_plan: Plan) -> Mapping[str, int]:
    return {}


class Documents:
    """The one writer of ``/want/``."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        preview: Callable[[], Awaitable[Preview]] = _no_preview,
        preflight: Callable[[Mapping[str, Resource]], Awaitable[Sequence[str]]] = _no_warnings,
        permit: Callable[[Plan], Awaitable[Mapping[str, int]]] = _anything,
        imported: Callable[[], Awaitable[Container[str]]] = _no_images,
    ) -> None:
        """``permit`` says what an edit rests on besides documents, or raises ``ConflictError``: see its module.

        ``preflight`` returns what will go wrong later with all that is wanted then, ``imported`` the labels of the
        images that were copied in.
        """
        self.history = History(store)
        self._store = store
        self._clock = clock
        self._preview = preview
        self._preflight = preflight
        self._permit = permit
        self._imported = imported

    async def plan(self, files: Sequence[File]) -> Plan:
        """Return what applying the files would do; ``ConfigErrors`` with everything that is wrong in them."""
        plan, _, _ = await self._plan(files, prune=False)
        return plan

    async def apply(self, files: Sequence[File], *, prune: bool, who: str) -> Outcome:
        """Make the files what is wanted, in one commit; with ``prune`` also remove what they no longer name.

        Raises ``ConfigErrors``, with nothing changed, and ``ConflictError`` when others keep editing at the same time.
        """
        for _ in range(_ATTEMPTS):
            plan, stored, loaded = await self._plan(files, prune=prune)
            kept = () if prune else tuple(_noun(change.resource) for change in plan.changes if change.after is None)
            done = plan if prune else plan.without(Mark.REMOVE)
            origins = {key: origin for key, origin in loaded.origins.items() if stored.origins.get(key) != origin}
            if not done.changes and not origins:
                return Outcome(done, 0, kept)
            revision = self._revision(stored, who, "apply", done, files=tuple(file.name for file in files))
            if await self._commit(stored, done, origins, revision if done.changes else None):
                return Outcome(done, revision.number if done.changes else 0, kept)
        raise ConflictError(_BUSY)

    async def delete(self, kind: str, label: str, *, yes: bool, who: str) -> Outcome:
        """Take one resource out of what is wanted.

        A volume goes only with ``yes`` and only when no server uses it, an image only when no volume is a clone of it
        and nobody names it: the same commit dooms the data, which the reconciler destroys.  Raises ``ConfigError`` when
        there is none of that name, and ``ConfigErrors`` when others refer to it.
        """
        for _ in range(_ATTEMPTS):
            stored = await Stored.read(self._store)
            key = f"{WANT}platform" if kind == "platform" else f"{WANT}{kind}/{label}"
            resource = stored.resources.get(key)
            if resource is None:
                known = [known.label for known in stored.resources.values() if known.kind == kind]
                raise ConfigError(f"{kind} {label}", f"there is none of that name; {did_you_mean(label, known)}")
            await asyncio.to_thread(_check_deletion, resource, stored.resources, yes=yes)
            plan = planning.changes(stored.resources, {}, absent=frozenset((key,)))
            revision = self._revision(stored, who, "delete", plan)
            doomed = {prefix + label: who.encode()} if (prefix := _DOOMED.get(type(resource))) else NOTHING
            if await self._commit(stored, plan, {}, revision, also=doomed):
                return Outcome(plan, revision.number)
        raise ConflictError(_BUSY)

    async def take_in(
        self,
        node: model.Node,
        server: model.Server | None,
        *,
        who: str,
        also: Mapping[str, bytes] = NOTHING,
        rests_on: Mapping[str, int] = NOTHING,
    ) -> Outcome:
        """Make a discovered machine a node, and the server that it becomes wanted, as if documents named them.

        A server that is there stays as it is.  ``also`` are records, written in the same commit; ``rests_on`` are
        revisions of the documents that say so.  ``ConflictError`` when one of those is another by now, or the node's
        name, MAC, address or port is another's; ``ConfigErrors`` where the server no longer fits.
        """
        for _ in range(_ATTEMPTS):
            stored = await Stored.read(self._store)
            if changed := [key for key, revision in rests_on.items() if stored.expect([key])[key] != revision]:
                raise ConflictError(f"{changed[0].removeprefix(WANT)}, which says so, is another by now")
            for other in stored.resources.values():
                if isinstance(other, model.Node) and _are_one(node, other):
                    raise ConflictError(f"there is a node {other.name} already")
                if isinstance(other, model.Node) and node.port and node.port == other.port:
                    why = f"{node.port}, where its frames come in, is the port of node {other.name}"
                    raise ConflictError(f"{why}: give it a port of its own, or first: panloom delete node {other.name}")
            want = await asyncio.to_thread(_with_server, node, server, stored.resources)
            plan = planning.changes(stored.resources, want)
            revision = self._revision(stored, who, "approve", plan)
            if await self._commit(stored, plan, {}, revision, also=also):
                return Outcome(plan, revision.number)
        raise ConflictError(_BUSY)

    async def edit(
        self,
        change: Callable[[Mapping[str, Resource]], Edit],
        *,
        what: str,
        who: str,
        rests_on: Mapping[str, int] = NOTHING,
    ) -> Outcome:
        """Make an edit of what is stored, and its records, in one commit; ``rests_on`` are revisions of records.

        ``change`` may be asked several times.  ``ConflictError`` when what it rests on is another by now, and
        ``ConfigErrors`` where things would no longer fit together.
        """
        for _ in range(_ATTEMPTS):
            stored = await Stored.read(self._store)
            edit = change(stored.resources)
            kept = {key: known for key, known in stored.resources.items() if key not in edit.absent}
            after = {**kept, **edit.want}
            await asyncio.to_thread(_check_together, what, stored.resources, after)
            plan = planning.changes(stored.resources, edit.want, absent=edit.absent)
            revision = self._revision(stored, who, what, plan) if plan.changes else None
            if not plan.changes and not edit.also:
                return Outcome(plan, 0)
            if await self._commit(stored, plan, {}, revision, also=edit.also, expect=rests_on):
                return Outcome(plan, revision.number if revision else 0)
        raise ConflictError(_BUSY)

    async def plan_rollback(self, revision: int | None) -> Return:
        """Return what going back to the documents after a revision would do; None is the one before the last.

        Raises ``ConfigError`` for a revision that is not remembered, and ``ConfigErrors`` where its documents do not
        fit together with what stays.
        """
        return (await self._plan_rollback(revision))[0]

    async def rollback(self, revision: int | None, *, last: int | None, who: str) -> Outcome:
        """Bring back the documents after a revision, as a new one; disks stay as they are.

        Raises also ``ConflictError`` when ``last``, where it is given, is no longer the last revision.
        """
        for _ in range(_ATTEMPTS):
            planned, stored, origins = await self._plan_rollback(revision)
            if last is not None and last != planned.last:
                why = f"revision {planned.last} came meanwhile; look at it: panloom history {planned.last}"
                raise ConflictError(f"the documents are no longer those of revision {last}: {why}")
            if not planned.plan.changes:
                return Outcome(planned.plan, 0, planned.kept)
            entry = self._revision(stored, who, "rollback", planned.plan, to=planned.revision)
            if await self._commit(stored, planned.plan, origins, entry):
                return Outcome(planned.plan, entry.number, planned.kept)
        raise ConflictError(_BUSY)

    async def between(self, first: int, second: int | None) -> Plan:
        """Return what changed from after one revision to after another; None is now."""
        stored = await Stored.read(self._store)
        before = (await self.history.after(first, stored)).resources
        after = stored.resources if second is None else (await self.history.after(second, stored)).resources
        return history.between(before, after)

    async def export(self, kind: str, label: str, revision: int | None) -> Exported:
        """Return documents that describe what is wanted, or was after a revision; all of it, a kind, or one of it."""
        stored = await Stored.read(self._store)
        found = stored.resources if revision is None else (await self.history.after(revision, stored)).resources
        if not kind:
            return export.whole(found)
        chosen = [resource for resource in found.values() if resource.kind == kind and label in ("", resource.label)]
        if label and not chosen:
            known = [resource.label for resource in found.values() if resource.kind == kind]
            raise ConfigError(f"{kind} {label}", f"there is none of that name; {did_you_mean(label, known)}")
        return export.some(chosen, found)

    async def resources(self, kind: str) -> tuple[Resource, ...]:
        """Return what is wanted of a kind, in the order of their names."""
        stored = await Stored.read(self._store)
        return tuple(resource for resource in stored.resources.values() if resource.kind == kind)

    async def _plan(self, files: Sequence[File], *, prune: bool) -> tuple[Plan, Stored, Loaded]:
        stored = await Stored.read(self._store)
        read = await asyncio.to_thread(_read, files, stored, prune=prune)
        loaded, findings = read.loaded, read.findings
        for refusal in (*read.refusals, *await self._other_sources(stored.resources, read.whole)):
            source = loaded.sources.get(refusal.key)
            place = source.place(*refusal.steps) if source else None
            if place is None or not findings.has_at(place):
                findings.add(place, refusal.why, where=refusal.key)
        findings.raise_if_any()
        want, preview = {**loaded.resources, **read.besides}, await self._preview()
        plan = await asyncio.to_thread(planning.changes, stored.resources, want, absent=read.gone, preview=preview)
        told = await self._preflight(planning.result(stored.resources, plan, prune=prune)) if plan.changes else ()
        return msgspec.structs.replace(plan, warnings=tuple(told)), stored, loaded

    async def _plan_rollback(self, number: int | None) -> tuple[Return, Stored, dict[str, str]]:
        stored = await Stored.read(self._store)
        if not stored.last:
            raise ConfigError("rollback", "nothing was applied yet, so there is nothing to go back to")
        number = stored.last - 1 if number is None else number
        then = await self.history.after(number, stored)
        way = history.way_back(stored.resources, then.resources)
        await asyncio.to_thread(_check_together, f"revision {number}", stored.resources, way.want)
        if refusals := await self._other_sources(stored.resources, way.want):
            raise ConfigErrors([ConfigError(f"revision {number}", refusal.why) for refusal in refusals])
        plan = history.between(stored.resources, way.want, preview=await self._preview())
        origins = {change.key: origin for change in plan.changes if (origin := then.origins.get(change.key))}
        kept, anew = tuple(map(_noun, way.kept)), tuple(disk.label for disk in way.cloned_anew)
        return Return(plan, number, stored.last, kept, anew), stored, origins

    async def _other_sources(self, have: Mapping[str, Resource], want: Mapping[str, Resource]) -> list[Refusal]:
        """Refuse another source for each image that was copied in; before that it may be put right.

        One whose document was left out is in the store as before, and no other disk comes by its name.
        """
        kept = await self._kept_images(image for key, image in want.items() if key not in have)
        found = planning.other_sources({**have, **kept}, want)
        imported = await self._imported() if found else ()
        return [refusal for label, refusal in found.items() if label in imported]

    async def _kept_images(self, documents: Iterable[Resource]) -> dict[str, Resource]:
        """Return the images that these documents' labels were given to before, from where they came."""
        entries = (await self._store.range(IMAGES)).entries
        records = {
            entry.key.removeprefix(IMAGES): msgspec.json.decode(entry.value, type=ImageRecord) for entry in entries
        }
        return {
            image.key: image.model_copy(update={"source": records[image.label].source, "capture": ""})
            for image in documents
            if isinstance(image, model.Image) and image.label in records
        }

    def _revision(
        self, stored: Stored, who: str, what: str, plan: Plan, *, files: tuple[str, ...] = (), to: int | None = None
    ) -> Revision:
        return Revision(
            number=stored.last + 1,
            who=who,
            at=self._clock(),
            what=what,
            files=files,
            changes=tuple(f"{change.mark.value} {_noun(change.resource)}" for change in plan.changes),
            add=plan.count(Mark.ADD),
            change=plan.count(Mark.CHANGE),
            remove=plan.count(Mark.REMOVE),
            to=to,
            undoable=True,
        )

    async def _commit(
        self,
        stored: Stored,
        plan: Plan,
        origins: Mapping[str, str],
        revision: Revision | None,
        *,
        also: Mapping[str, bytes] = NOTHING,
        expect: Mapping[str, int] = NOTHING,
    ) -> bool:
        """Write the changes, where they are from, and the revision, all at once; False if others came first."""
        put = {change.key: model.encode(change.after) for change in plan.changes if change.after is not None}
        gone = [change.key for change in plan.changes if change.after is None]
        known = {origin_key(key): origin.encode() for key, origin in origins.items() if key not in gone}
        remembered = self.history.entries(revision, plan, stored) if revision else {}
        outdated = await self.history.outdated(revision.number) if revision else ()
        rests_on = await self._permit(plan)
        try:
            await self._store.commit(
                expect={**stored.expect((*put, *gone)), **rests_on, **expect},
                put={**put, **known, **remembered, **also},
                delete=(*gone, *map(origin_key, gone), *outdated),
            )
        except ConflictError:
            return False
        return True


class _Read(NamedTuple):
    """Files as they were read, and what they come to with what is stored."""

    loaded: Loaded
    findings: Findings
    whole: dict[str, Resource]
    gone: frozenset[str]
    besides: dict[str, Resource]
    """What changes with what was loaded: disks of servers, and images whose tags go to others."""
    refusals: list[Refusal]


def _read(files: Sequence[File], stored: Stored, *, prune: bool) -> _Read:
    """Read files and hold them to all rules; one line may stand for thousands of servers, so this may take seconds."""
    findings = Findings()
    loaded = load(files, findings)
    loaded.resources.update(with_notes(loaded.resources, stored.resources, loaded.says))
    gone = planning.absent(
        stored.resources, loaded.resources, origins=stored.origins, files=loaded.files, pans=loaded.pans
    )
    retagged = without_claimed(loaded.resources, stored.resources)
    if prune:
        retagged = {key: image for key, image in retagged.items() if key not in gone}
    else:
        gone -= retagged.keys()
    whole = {**stored.resources, **retagged, **with_owners(loaded.resources, stored.resources)}
    if prune:
        whole = {key: resource for key, resource in whole.items() if key not in gone}
    check(whole, loaded, findings)
    volumes, refusals = planning.volumes(stored.resources, whole)
    return _Read(loaded, findings, whole, gone, {**volumes, **retagged}, refusals)


def _noun(resource: Resource) -> str:
    return f"{resource.kind} {resource.label}"


def _with_server(node: model.Node, server: model.Server | None, stored: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return a node, and its server and disk where they are not there yet; ``ConfigErrors`` if they do not fit."""
    want: dict[str, Resource] = {node.key: node}
    if server is None or server.key in stored:
        return want
    want[server.key] = server
    whole = {**stored, **want}
    _check_together(f"server {server.label}", stored, whole)
    disks, refusals = planning.volumes(stored, whole)
    if mine := [refusal for refusal in refusals if refusal.key == server.key]:
        raise ConfigErrors([ConfigError(f"server {server.label}", refusal.why) for refusal in mine])
    disk = next(disk for disk in disks.values() if disk.serves == server.label)
    return {**want, disk.key: disk}


def _are_one(node: model.Node, other: model.Node) -> bool:
    same_initiator = node.initiator is not None and node.initiator == other.initiator
    return same_initiator or node.name == other.name or node.mac == other.mac or node.address == other.address


def _check_deletion(resource: Resource, stored: Mapping[str, Resource], *, yes: bool) -> None:
    what = _noun(resource)
    if isinstance(resource, model.Volume):
        if is_server_disk(resource, stored):
            raise ConfigError(what, f"server {resource.serves} uses it; first: panloom delete server {resource.serves}")
        if not yes:
            raise ConfigError(what, "its data would be gone for ever; say so with --yes")
    nodes = [other for other in stored.values() if isinstance(other, model.Node)]
    if isinstance(resource, model.Platform) and nodes:
        raise ConfigError(
            what, f"{len(nodes)} nodes stand on it; delete them first, like: panloom delete node {nodes[0].name}"
        )
    left = {key: other for key, other in stored.items() if other is not resource}
    users = list(dict.fromkeys(error.where.partition(APPLIED_EARLIER)[0] for error in _broken(stored, left)))
    if users:
        shown = ", ".join(users[:_SHOWN_USERS]) + (" …" if len(users) > _SHOWN_USERS else "")
        raise ConfigError(what, f"is in use by {shown}; change or delete that first")


def _check_together(what: str, before: Mapping[str, Resource], after: Mapping[str, Resource]) -> None:
    """Raise ``ConfigErrors`` with everything that would no longer fit together."""
    broken = [ConfigError(what, str(error)) for error in _broken(before, after)]
    if broken:
        raise ConfigErrors(broken)


def _broken(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> list[ConfigError]:
    """Return what fits together before and no longer after."""
    known, found = Findings(), Findings()
    check(before, Loaded(), known)
    check(after, Loaded(), found)
    said = {str(error) for error in known.errors()}
    return [error for error in found.errors() if str(error) not in said]
