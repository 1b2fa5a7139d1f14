"""Documents against the store: plan them, apply them, delete one resource.

    files ──load──▶ check with what is stored ──decide.plan──▶ Plan ──one commit──▶ /want/…

    /want/…                        the resources
    /record/origin/KIND/NAME       from which file each came: what that file may remove
    /record/revision/NUMBER        who applied what, and when
    /record/revision-last          the last NUMBER; every edit expects it, so that two at once never mix

An apply is all or nothing, and applying the same files again changes nothing.  A file with a mistake changes nothing
either: what was applied before stays, whole.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from panloom.decide import plan as planning
from panloom.decide.plan import Mark, Plan, Preview
from panloom.errors import ConfigError, ConfigErrors, ConflictError
from panloom.model import resources as model
from panloom.model.check import check
from panloom.model.load import File, Loaded, load
from panloom.model.resources import WANT, Resource
from panloom.model.sources import Findings, did_you_mean
from panloom.state.contract import ABSENT, Store

ORIGIN = "/record/origin/"
REVISION = "/record/revision/"
LAST_REVISION = "/record/revision-last"
KEPT_REVISIONS = 1000
_ATTEMPTS = 5


class Revision(msgspec.Struct, frozen=True):
    """One edit of the documents."""

    number: int
    who: str
    at: float  # wall clock, seconds
    what: str  # the command: apply or delete
    files: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()  # mark and resource, as in ``+ server shop/web1``


class Outcome(msgspec.Struct, frozen=True):
    """What an edit did. ``revision`` is 0 when nothing was to do; ``kept`` is what ``prune`` would have removed."""

    plan: Plan
    revision: int
    kept: tuple[str, ...] = ()


class _Stored:
    """The documents as they are now, and the revisions to hold a commit to."""

    def __init__(self, entries: Mapping[str, tuple[int, bytes]]) -> None:
        self._revisions = {key: revision for key, (revision, _) in entries.items()}
        self.resources = {key: model.decode(key, value) for key, (_, value) in entries.items() if key.startswith(WANT)}
        self.origins = {
            WANT + key.removeprefix(ORIGIN): value.decode()
            for key, (_, value) in entries.items()
            if key.startswith(ORIGIN)
        }
        self.last = int(entries[LAST_REVISION][1]) if LAST_REVISION in entries else 0

    def expect(self, keys: Collection[str]) -> dict[str, int]:
        return {key: self._revisions.get(key, ABSENT) for key in (*keys, LAST_REVISION)}


async def _no_preview() -> Preview:
    return planning.nothing_to_preview


class Documents:
    """The one writer of ``/want/``."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        preview: Callable[[], Awaitable[Preview]] = _no_preview,
    ) -> None:
        self._store = store
        self._clock = clock
        self._preview = preview

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
            put = {change.key: model.encode(change.after) for change in done.changes if change.after is not None}
            gone = [change.key for change in done.changes if change.after is None]
            origins = {
                _origin(key): origin.encode()
                for key, origin in loaded.origins.items()
                if stored.origins.get(key) != origin
            }
            if not done.changes and not origins:
                return Outcome(done, 0, kept)
            number = stored.last + 1 if done.changes else 0
            records = {}
            if number:
                names = tuple(file.name for file in files)
                records = self._entry(Revision(number, who, self._clock(), "apply", names, _lines(done)))
            try:
                await self._store.commit(
                    expect=stored.expect((*put, *gone)),
                    put=put | origins | records,
                    delete=(*gone, *map(_origin, gone), *_outdated(number)),
                )
            except ConflictError:
                continue
            return Outcome(done, number, kept)
        raise ConflictError("the documents keep changing under this edit; look who else applies: panloom events")

    async def delete(self, kind: str, label: str, *, yes: bool, who: str) -> Outcome:
        """Take one resource out of what is wanted.

        A volume goes only with ``yes`` and only when no server uses it: its data go with it.  Raises ``ConfigError``
        when there is none of that name, and ``ConfigErrors`` when others refer to it.
        """
        for _ in range(_ATTEMPTS):
            stored = await self._read()
            key = f"{WANT}platform" if kind == "platform" else f"{WANT}{kind}/{label}"
            resource = stored.resources.get(key)
            if resource is None:
                known = [known.label for known in stored.resources.values() if known.kind == kind]
                raise ConfigError(f"{kind} {label}", f"there is none of that name; {did_you_mean(label, known)}")
            _check_deletion(resource, stored.resources, yes=yes)
            plan = planning.changes(stored.resources, {}, absent=frozenset((key,)))
            number = stored.last + 1
            entry = self._entry(Revision(number, who, self._clock(), "delete", (), _lines(plan)))
            gone = (key, _origin(key), *_outdated(number))
            try:
                await self._store.commit(expect=stored.expect((key,)), put=entry, delete=gone)
            except ConflictError:
                continue
            return Outcome(plan, number)
        raise ConflictError("the documents keep changing under this edit; look who else applies: panloom events")

    async def resources(self, kind: str) -> tuple[Resource, ...]:
        """Return what is wanted of a kind, in the order of their names."""
        stored = await self._read()
        return tuple(resource for resource in stored.resources.values() if resource.kind == kind)

    async def revisions(self) -> tuple[Revision, ...]:
        """Return the edits that are remembered, oldest first."""
        snapshot = await self._store.range(REVISION)
        return tuple(msgspec.json.decode(entry.value, type=Revision) for entry in snapshot.entries)

    async def _plan(self, files: Sequence[File], *, prune: bool) -> tuple[Plan, _Stored, Loaded]:
        stored = await self._read()
        findings = Findings()
        loaded = load(files, findings)
        gone = planning.absent(
            stored.resources, loaded.resources, origins=stored.origins, files=loaded.files, pans=loaded.pans
        )
        whole = {**stored.resources, **loaded.resources}
        if prune:
            whole = {key: resource for key, resource in whole.items() if key not in gone}
        check(whole, loaded, findings)
        volumes, refusals = planning.volumes(stored.resources, whole)
        for refusal in refusals:
            source = loaded.sources.get(refusal.key)
            place = source.place(*refusal.steps) if source else None
            if place is None or not findings.has_at(place):
                findings.add(place, refusal.why, where=refusal.key)
        findings.raise_if_any()
        want = {**loaded.resources, **volumes}
        plan = planning.changes(stored.resources, want, absent=gone, preview=await self._preview())
        return plan, stored, loaded

    async def _read(self) -> _Stored:
        entries: dict[str, tuple[int, bytes]] = {}
        # The number of the last edit is read first: one that happens between the reads then fails the commit.
        last = await self._store.get(LAST_REVISION)
        for prefix in (WANT, ORIGIN):
            snapshot = await self._store.range(prefix)
            entries.update({entry.key: (entry.revision, entry.value) for entry in snapshot.entries})
        if last is not None:
            entries[LAST_REVISION] = last.revision, last.value
        return _Stored(entries)

    def _entry(self, revision: Revision) -> dict[str, bytes]:
        return {
            f"{REVISION}{revision.number:08d}": msgspec.json.encode(revision),
            LAST_REVISION: str(revision.number).encode(),
        }


def _origin(key: str) -> str:
    return ORIGIN + key.removeprefix(WANT)


def _outdated(number: int) -> tuple[str, ...]:
    return (f"{REVISION}{number - KEPT_REVISIONS:08d}",) if number > KEPT_REVISIONS else ()


def _lines(plan: Plan) -> tuple[str, ...]:
    return tuple(f"{change.mark.value} {_noun(change.resource)}" for change in plan.changes)


def _noun(resource: Resource) -> str:
    return f"{resource.kind} {resource.label}"


def _check_deletion(resource: Resource, stored: Mapping[str, Resource], *, yes: bool) -> None:
    what = _noun(resource)
    if isinstance(resource, model.Volume):
        if f"{WANT}server/{resource.label}" in stored:
            raise ConfigError(what, f"server {resource.label} uses it; first: panloom delete server {resource.label}")
        if not yes:
            raise ConfigError(what, "its data would be gone for ever; say so with --yes")
    nodes = [other for other in stored.values() if isinstance(other, model.Node)]
    if isinstance(resource, model.Platform) and nodes:
        raise ConfigError(
            what, f"{len(nodes)} nodes stand on it; delete them first, like: panloom delete node {nodes[0].name}"
        )
    before, after = Findings(), Findings()
    check(stored, Loaded(), before)
    check({key: other for key, other in stored.items() if other is not resource}, Loaded(), after)
    known = {str(error) for error in before.errors()}
    broken = [ConfigError(what, f"is in use: {error}") for error in after.errors() if str(error) not in known]
    if broken:
        raise ConfigErrors(broken)
