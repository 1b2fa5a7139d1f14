"""Disks as they should be and as they are: those without a server are made, those that should be larger grow.

    documents say 20 GiB ─┐
                          ├─▶ tend ─▶ grow_volume ─▶ the machine is told with its next command
    the disk has 10 GiB  ─┘

A server's own disk is made by its worker (``acts``); snapshots are made when somebody asks, and no document names them.
"""

from collections.abc import Callable

from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.world import World
from panloom.errors import PanloomError, UnavailableError
from panloom.model.resources import Server, Volume
from panloom.storage import calls
from panloom.storage.client import StorageClient
from panloom.values import format_size


def origin_of(volume: Volume) -> str:
    """Return what a volume is a clone of, in words."""
    return f"snapshot {volume.snapshot}" if volume.snapshot else volume.image


def can_be_made(volume: Volume, stored: calls.Volumes) -> bool:
    """Whether the image or the snapshot that it is a clone of is there."""
    if volume.snapshot:
        return volume.storage_snapshot in {snapshot.name for snapshot in stored.snapshots}
    return volume.image in {image.name for image in stored.images}


async def make(volume: Volume, storage: StorageClient) -> bool:
    """Have a volume made; return whether it is new."""
    answer = await storage.create_volume(
        volume.storage_name,
        volume.image or None,
        volume.size_octets,
        snapshot=volume.storage_snapshot,
        thick=volume.provisioning == "thick",
    )
    return answer.created


class Volumes:
    """Does to disks what their documents ask for."""

    def __init__(self, storage: StorageClient, observer: Observer, events: EventLog) -> None:
        self._storage = storage
        self._observer = observer
        self._events = events

    async def tend(self, world: World, say: Callable[[str, str | None], None]) -> None:
        """Make and grow; ``say`` for each volume what holds it up, None if nothing does."""
        stored = await self._observer.volumes()
        found = {facts.name: facts for facts in stored.volumes}
        for label, volume in world.all(Volume).items():
            try:
                why = await self._tend(volume, found.get(volume.storage_name), world, stored)
            except PanloomError as error:
                why = f"volume {label}: {error}"
            say(f"volume {label}", why)

    async def _tend(
        self, volume: Volume, facts: calls.VolumeFacts | None, world: World, stored: calls.Volumes
    ) -> str | None:
        label = volume.label
        if label in world.doomed:
            return None
        if facts is None:
            if volume.snapshot and not can_be_made(volume, stored):
                raise UnavailableError(
                    f"there is no snapshot {volume.pan}/{volume.snapshot}; take it, or write another"
                )
            if label not in world.all(Server) and can_be_made(volume, stored) and await make(volume, self._storage):
                self._events.report("volume made", f"{label}, a clone of {origin_of(volume)}")
        elif facts.octets < volume.size_octets:
            await self._storage.grow_volume(volume.storage_name, volume.size_octets)
            text = f"{label} from {format_size(facts.octets)} to {format_size(volume.size_octets)}"
            self._events.report("volume grown", text, server=label if label in world.all(Server) else None)
        elif 0 < volume.size_octets < facts.octets:
            has = format_size(facts.octets)
            return f"volume {label} has {has} and cannot become {format_size(volume.size_octets)}; write its size again"
        return None
