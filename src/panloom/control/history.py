"""What the store remembers of the documents: how they are, and how they were after each revision that is kept.

    /record/revision/NUMBER        who changed what, and when
    /record/revision-last          the last NUMBER; every edit expects it, so that two at once never mix
    /record/replaced/NUMBER/…      what it replaced, one entry a resource: the way back
    /record/origin/KIND/NAME       from which file each resource came

Only ``Documents`` writes these, in the commit that changes the documents themselves.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

import msgspec

from panloom.decide import history
from panloom.decide.history import Replaced, Revision
from panloom.decide.plan import Plan
from panloom.errors import ConfigError, ConflictError
from panloom.model import resources as model
from panloom.model.resources import WANT, Resource
from panloom.state.contract import ABSENT, Entry, Store

ORIGIN = "/record/origin/"
REVISION = "/record/revision/"
REPLACED = "/record/replaced/"
LAST_REVISION = "/record/revision-last"
KEPT_REVISIONS = 200
_ATTEMPTS = 5
_NOTHING = b"null"


class Then(NamedTuple):
    """The documents after a revision, and the file each was from where that has changed since."""

    resources: Mapping[str, Resource]
    origins: Mapping[str, str]


class Stored:
    """The documents as they are now, and the revisions of the store to hold a commit to."""

    def __init__(self, last: Entry | None, entries: Collection[Entry]) -> None:
        self._revisions = {entry.key: entry.revision for entry in (*entries, *([last] if last else ()))}
        self.last = int(last.value) if last else 0
        self.resources: dict[str, Resource] = {}
        self.origins: dict[str, str] = {}
        for entry in entries:
            if entry.key.startswith(WANT):
                self.resources[entry.key] = model.decode(entry.key, entry.value)
            else:
                self.origins[WANT + entry.key.removeprefix(ORIGIN)] = entry.value.decode()

    @classmethod
    async def read(cls, store: Store) -> Self:
        """Read the documents as one revision left them; ``ConflictError`` when they change faster than that."""
        last = await store.get(LAST_REVISION)
        for _ in range(_ATTEMPTS):
            entries = [entry for prefix in (WANT, ORIGIN) for entry in (await store.range(prefix)).entries]
            before, last = last, await store.get(LAST_REVISION)
            if last == before:
                return cls(last, entries)
        raise ConflictError("the documents keep changing; look who edits them: panloom history")

    def expect(self, keys: Collection[str]) -> dict[str, int]:
        """Return what must still hold for a commit that touches those keys."""
        return {key: self._revisions.get(key, ABSENT) for key in (*keys, LAST_REVISION)}


class History:
    """The revisions that the store remembers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revisions(self) -> tuple[Revision, ...]:
        """Return them, oldest first."""
        snapshot = await self._store.range(REVISION)
        return tuple(msgspec.json.decode(entry.value, type=Revision) for entry in snapshot.entries)

    async def revision(self, number: int) -> Revision:
        """Return one; ``ConfigError`` where there is none."""
        entry = await self._store.get(_key(number)) if number > 0 else None
        if entry is None:
            raise ConfigError(f"revision {number}", "is not remembered; see those that are: panloom history")
        return msgspec.json.decode(entry.value, type=Revision)

    async def after(self, number: int, stored: Stored) -> Then:
        """Return the documents as they were after a revision, 0 for before the first.

        ``ConfigError`` for one that has not been yet, or is so long ago that what was replaced since is forgotten.
        """
        if not 0 <= number <= stored.last:
            raise ConfigError(f"revision {number}", f"there is none; the last is {stored.last}")
        replaced: list[Mapping[str, Resource | None]] = []
        origins: dict[str, str] = {}
        for later in range(stored.last, number, -1):
            entry = await self._store.get(_key(later))
            if entry is None or not msgspec.json.decode(entry.value, type=Revision).undoable:
                why = f"is too long ago: what revision {later} replaced is forgotten"
                raise ConfigError(f"revision {number}", why)
            found = await self._replaced(later)
            replaced.append({key: resource for key, (resource, _) in found.items()})
            origins |= {key: origin for key, (_, origin) in found.items()}
        return Then(history.undone(stored.resources, replaced), origins)

    def entries(self, revision: Revision, plan: Plan, stored: Stored) -> dict[str, bytes]:
        """Return what a commit writes so that the revision is remembered."""
        put = {_key(revision.number): msgspec.json.encode(revision), LAST_REVISION: str(revision.number).encode()}
        for change in plan.changes:
            before = model.encode(change.before) if change.before is not None else _NOTHING
            replaced = Replaced(msgspec.Raw(before), stored.origins.get(change.key, ""))
            put[f"{_replaced(revision.number)}{change.key.removeprefix(WANT)}"] = msgspec.json.encode(replaced)
        return put

    async def outdated(self, number: int) -> tuple[str, ...]:
        """Return the keys that the commit of a revision deletes, as they are too old to be kept."""
        limit = _key(number - KEPT_REVISIONS)
        old = [entry.key for entry in (await self._store.range(REVISION)).entries if entry.key <= limit]
        numbers = [int(key.removeprefix(REVISION)) for key in old]
        ranges = [await self._store.range(_replaced(number)) for number in numbers]
        return (*old, *(entry.key for found in ranges for entry in found.entries))

    async def _replaced(self, number: int) -> dict[str, tuple[Resource | None, str]]:
        prefix = _replaced(number)
        found = {}
        for entry in (await self._store.range(prefix)).entries:
            key = WANT + entry.key.removeprefix(prefix)
            replaced = msgspec.json.decode(entry.value, type=Replaced)
            resource = bytes(replaced.resource)
            found[key] = (None if resource == _NOTHING else model.decode(key, resource), replaced.origin)
        return found


def origin_key(key: str) -> str:
    """Return where the file is noted that a resource came from."""
    return ORIGIN + key.removeprefix(WANT)


def _key(number: int) -> str:
    return f"{REVISION}{number:08d}"


def _replaced(number: int) -> str:
    return f"{REPLACED}{number:08d}/"
