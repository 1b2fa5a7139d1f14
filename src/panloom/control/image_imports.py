"""Images as they should be: each that a document names is copied in, each whose document is deleted is destroyed.

not in the store ──▶ a raw file of it ──▶ record ──▶ import_image ──▶ in the store
        ▲                    └───────────────┴───────────┴─ failed: said, and tried again after 1 s, 2 s, 4 s …
        └───────────────────────────────────────────────── MAX_PAUSE_SECONDS, at once from another source
"""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from panloom.control import failpoint
from panloom.control.events import EventLog
from panloom.control.image_sources import ImageSources
from panloom.control.observer import Observer
from panloom.control.world import World
from panloom.decide.records import ImageRecord
from panloom.errors import PanloomError
from panloom.model.resources import Image, Server
from panloom.storage.client import StorageClient

PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
_MOST_DOUBLINGS = 8  # more change nothing, and after a thousand no number holds them
Say = Callable[[str, str | None], None]
Start = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]


class ImageImports:
    """Has images imported and destroyed; ``done`` is called when one is in the store, or gone."""

    def __init__(
        self,
        storage: StorageClient,
        observer: Observer,
        events: EventLog,
        done: Callable[[], None],
        sources: ImageSources,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._observer = observer
        self._events = events
        self._done = done
        self._sources = sources
        self._clock = clock
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}
        """Image and source → how often it failed, and the clock's seconds of the next try."""

    async def tend(self, world: World, start: Start, say: Say) -> None:
        """Begin what is to be imported now, by ``start``; ``say`` what holds an image up."""
        stored = {image.name for image in (await self._observer.volumes()).images}
        for label in world.doomed_images:
            start(label, partial(self._destroy, world, label, say))
        there = stored | world.doomed_images
        wanted = {(label, image.origin): image for label, image in world.all(Image).items() if label not in there}
        for label, source in self._failed.keys() - wanted.keys():
            del self._failed[label, source]
            say(label, None)
        for (label, source), image in sorted(wanted.items()):
            _, next_try = self._failed.get((label, source), (0, float("-inf")))
            if self._clock() >= next_try:
                start(label, partial(self._import, world, image, say))

    async def _destroy(self, world: World, label: str, say: Say) -> None:
        """Destroy an image whose document is gone, then forget that it was doomed."""
        failpoint.reached("destroy image")
        try:
            await self._storage.delete_image(label)
            failpoint.reached("forget image")
            await world.forget_image(label)
        except PanloomError as error:
            say(label, f"image {label} is not destroyed yet: {error}")
            return
        say(label, None)
        self._events.report("destroyed", f"image {label} is gone")
        self._done()

    async def _import(self, world: World, image: Image, say: Say) -> None:
        label, source, began = image.label, image.origin, self._clock()
        try:
            async with self._sources.raw(image, partial(_disk_of, world)) as raw:
                record = ImageRecord(source, raw.format, time.time(), raw.sha256)
                await world.edit(images={label: record}, rests_on=(image.key,))
                await self._storage.import_image(label, raw.path)
        except PanloomError as error:
            tries, _ = self._failed.get((label, source), (0, 0.0))
            self._failed[label, source] = tries + 1, self._clock() + pause_after(tries)
            say(label, f"image {label}: {error}")
            return
        self._failed.pop((label, source), None)
        say(label, None)
        self._events.report("image", f"{label} is in the store", seconds=self._clock() - began)
        self._done()


def pause_after(tries: int) -> float:
    """Return for how many seconds to leave alone what has failed once more, ``tries`` times before."""
    return min(PAUSE_SECONDS * 2.0 ** min(tries, _MOST_DOUBLINGS), MAX_PAUSE_SECONDS)


def _disk_of(world: World, volume: str) -> str:
    """Return what the storage process calls the disk of the server of that name, or the volume if there is none."""
    label = volume.replace(".", "/", 1)
    disk = world.disk(label) if label in world.all(Server) else None
    return disk.storage_name if disk else volume
