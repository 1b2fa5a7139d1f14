"""Disks as they should be and as they are: those without a server are made, those that should be larger grow.

    documents say 20 GiB ─┐
                          ├─▶ tend ─▶ worker:  grow_volume ─▶ the machine is told with its next command
    the disk has 10 GiB  ─┘              └─ failed: said, and tried again with the next pass

A volume has one worker at most, and a disk that takes long holds up its own volumes only.  A server's own disk is made
by its worker (``acts``); snapshots are made when somebody asks, and no document names them.
"""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from panloom.control.events import EventLog
from panloom.control.image_imports import Say, Start
from panloom.control.image_trust import why_distrusted
from panloom.control.observer import Observer
from panloom.control.world import World
from panloom.errors import ConflictError, PanloomError
from panloom.model.resources import Image, Server, Volume
from panloom.storage import calls
from panloom.storage.client import StorageClient
from panloom.storage.limits import Limits
from panloom.values import format_size

MAX_AT_ONCE = 4
"""The storage process has a limited number of threads for calls, and a fence must always find a free one."""


def origin_of(volume: Volume) -> str:
    """Return what a volume is a clone of, in words."""
    return f"snapshot {volume.snapshot}" if volume.snapshot else volume.image


def octets_of_origin(volume: Volume, stored: calls.Volumes) -> int:
    """Return how large the image or snapshot is that it is a clone of, 0 if that is not there."""
    if volume.snapshot:
        return next((one.octets for one in stored.snapshots if one.name == volume.storage_snapshot), 0)
    return next((one.octets for one in stored.images if one.name == volume.image), 0)


def can_be_made(volume: Volume, stored: calls.Volumes, world: World) -> bool:
    """Whether the image or the snapshot that it is a clone of is there, and the image trusted."""
    if volume.snapshot:
        return volume.storage_snapshot in {snapshot.name for snapshot in stored.snapshots}
    there = {facts.name for facts in stored.images} - world.doomed_images  # another may come by that name
    return volume.image in there and not distrusted(volume, stored, world)


def distrusted(volume: Volume, stored: calls.Volumes, world: World) -> str | None:
    """Return why a volume may not be made of its image, None if nothing is against it."""
    image = world.all(Image).get(volume.image)
    facts = next((facts for facts in stored.images if facts.name == volume.image), None)
    return why_distrusted(image, facts, world) if facts is not None else None


def why_read(stored: calls.Volumes, world: World) -> dict[str, str]:
    """Return images that are read through by what no document names: snapshots, and volumes left by an earlier life.

    By label, what that is and how it is ended.
    """
    named = {volume.storage_name for volume in world.all(Volume).values()} | world.doomed_volumes
    found = {}
    for facts in stored.images:
        left = [reader for reader in facts.readers if reader not in named]
        if left:
            label = left[0].replace(".", "/", 1)
            noun, first = ("snapshot", "") if "@" in label else ("volume", "write its document again, then ")
            found[facts.name] = f"read through by {noun} {label}; first: {first}panloom delete {noun} {label} --yes"
    return found


async def make(volume: Volume, storage: StorageClient, stored: calls.Volumes, world: World) -> bool:
    """Have a volume made of what ``stored`` tells of its image; return whether it is new.

    ConflictError where the image of a new one may not be used, or is another one by then.
    """
    judged = None
    if volume.storage_name not in {facts.name for facts in stored.volumes} and not volume.snapshot:
        if why := distrusted(volume, stored, world):
            raise ConflictError(why)
        judged = next((facts.sha256 for facts in stored.images if facts.name == volume.image), None)
    answer = await storage.create_volume(
        volume.storage_name,
        volume.image or None,
        volume.size_octets,
        image_sha256=judged,
        snapshot=volume.storage_snapshot,
        thick=volume.provisioning == "thick",
    )
    return answer.created


def limits_of(volume: Volume) -> Limits:
    """Return what a volume may do in a second, as the storage process is told."""
    return Limits(volume.limits.operations or None, volume.limits.octets or None)


def _told(limits: Limits) -> str:
    parts = [f"{limits.operations} operations" if limits.operations else ""]
    parts.append(format_size(limits.octets) if limits.octets else "")
    told = " and ".join(filter(None, parts))
    return f"{told} a second" if told else "as much as it can"


class Volumes:
    """Does to disks what their documents ask for; ``done`` is called when one is made or has grown."""

    def __init__(self, storage: StorageClient, observer: Observer, events: EventLog, done: Callable[[], None]) -> None:
        self._storage = storage
        self._observer = observer
        self._events = events
        self._done = done
        self._at_work: set[str] = set()
        self._failed_at: dict[str, float] = {}
        """When the last try of a volume failed, by its label: the others have their turn first."""

    async def tend(self, world: World, start: Start, say: Say) -> None:
        """Begin what is to be made and grown, by ``start``; ``say`` for each volume what holds it up, None if nothing.

        What is begun has the name ``volume pan/name``; at most MAX_AT_ONCE are at work.
        """
        at_work = frozenset(self._at_work)  # of those that come to their end meanwhile, an older state may be found
        stored = await self._observer.volumes()
        found = {facts.name: facts for facts in stored.volumes}
        due: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        for label, volume in world.all(Volume).items():
            if label in at_work or label in world.doomed:
                continue
            facts = found.get(volume.storage_name)
            server = volume.serves if volume.serves in world.all(Server) else None
            if facts is None and server is None and can_be_made(volume, stored, world):
                due[label] = partial(self._make, volume, stored, world)
            elif facts is not None and facts.limits not in (None, limits_of(volume)):
                due[label] = partial(self._limit, volume)
            elif facts is not None and facts.octets < volume.size_octets:
                due[label] = partial(self._grow, volume, facts.octets, server)
            else:
                say(f"volume {label}", _why_not(volume, facts, stored, world))
        in_turn = sorted(due, key=lambda label: self._failed_at.get(label, 0.0))
        for label in in_turn[: MAX_AT_ONCE - len(self._at_work)]:
            self._at_work.add(label)
            start(f"volume {label}", partial(self._work, label, due[label], say))

    async def _work(self, label: str, change: Callable[[], Coroutine[Any, Any, None]], say: Say) -> None:
        try:
            await change()
        except PanloomError as error:
            self._failed_at[label] = time.monotonic()
            say(f"volume {label}", f"volume {label}: {error}")
        else:
            self._failed_at.pop(label, None)
            say(f"volume {label}", None)
        finally:
            self._at_work.discard(label)

    async def _make(self, volume: Volume, stored: calls.Volumes, world: World) -> None:
        if await make(volume, self._storage, stored, world):
            self._events.report("volume made", f"{volume.label}, a clone of {origin_of(volume)}")
            self._done()

    async def _limit(self, volume: Volume) -> None:
        limits = limits_of(volume)
        await self._storage.limit_volume(volume.storage_name, limits)
        self._events.report("volume limited", f"{volume.label} to {_told(limits)}")
        self._done()

    async def _grow(self, volume: Volume, octets: int, server: str | None) -> None:
        await self._storage.grow_volume(volume.storage_name, volume.size_octets)
        text = f"{volume.label} from {format_size(octets)} to {format_size(volume.size_octets)}"
        self._events.report("volume grown", text, server=server)
        self._done()


def _why_not(volume: Volume, facts: calls.VolumeFacts | None, stored: calls.Volumes, world: World) -> str | None:
    """Return why a volume is not, and will not become, what its document says; None if nothing is in its way."""
    label = volume.label
    if facts is None and not volume.snapshot and (why := distrusted(volume, stored, world)):
        return f"volume {label}: {why}"
    if facts is None and volume.snapshot and not can_be_made(volume, stored, world):
        return f"volume {label}: there is no snapshot {volume.pan}/{volume.snapshot}; take it, or write another"
    if facts is not None and 0 < volume.size_octets < facts.octets:
        has = format_size(facts.octets)
        return f"volume {label} has {has} and cannot become {format_size(volume.size_octets)}; write its size again"
    return None
