"""Images that cannot be copied in are tried again, ever less often."""

import asyncio

import pytest

from panloom.control.events import EventLog
from panloom.control.image_imports import MAX_PAUSE_SECONDS, ImageImports, pause_after
from panloom.control.image_sources import ImageSources
from panloom.control.world import World
from panloom.decide.records import ImageRecord
from panloom.errors import UnavailableError
from panloom.model.resources import Image
from panloom.storage import calls
from support.dict_store import DictStore
from support.world import put


@pytest.fixture
def web(tmp_path):
    return image(tmp_path, "web.img")


def image(directory, file_name):
    (directory / file_name).write_bytes(bytes(512))
    return Image(name="web", version=1, source=str(directory / file_name))


class Storage:
    """A storage process whose disk has no room for one file."""

    def __init__(self):
        self.tried = []
        self.images = ()

    async def volumes(self):
        return calls.Volumes((), self.images)

    async def import_image(self, name, source):
        self.tried.append(str(source))
        if source.name == "web.img":
            raise UnavailableError("No space left on device")
        self.images = (calls.ImageFacts(name, 512, "ab" * 32),)


class Bed:
    """Imports with a clock of their own, tended once a second."""

    def __init__(self, directory):
        self.now = 0.0
        self.store = DictStore()
        self.said = {}
        self.done = 0
        self.storage = Storage()
        # the storage process is all that they observe
        self.imports = ImageImports(
            *(self.storage, self.storage, EventLog(DictStore()), self._count),
            ImageSources(directory / "incoming", self.storage),
            clock=lambda: self.now,
        )  # fmt: skip

    def _count(self):
        self.done += 1

    async def pass_seconds(self, image, count):
        """Return at which of the next seconds something was tried."""
        tried = []
        for _ in range(count):
            world = await put(self.store, image)
            before = len(self.storage.tried)
            async with asyncio.TaskGroup() as group:
                await self.imports.tend(
                    world, lambda name, work: group.create_task(work(), name=name), self.said.__setitem__
                )
            tried += [self.now] * (len(self.storage.tried) - before)
            self.now += 1.0
        return tried


def test_what_fails_is_tried_again_ever_less_often(tmp_path, web):
    tried = asyncio.run(Bed(tmp_path).pass_seconds(web, 121))
    assert tried == [0, 1, 3, 7, 15, 31, 61, 91]
    assert pause_after(100_000) == MAX_PAUSE_SECONDS == 30  # for weeks


def test_it_is_said_why_and_another_source_is_tried_at_once(tmp_path, web):
    bed = Bed(tmp_path)
    asyncio.run(bed.pass_seconds(web, 40))
    assert bed.said == {"web@1": "image web@1: No space left on device"}
    assert asyncio.run(bed.pass_seconds(image(tmp_path, "mended.img"), 5)) == [40]
    assert (bed.said, bed.done) == ({"web@1": None}, 1)


def test_where_it_comes_from_is_written_down_before_it_is_there(tmp_path, web):
    bed = Bed(tmp_path)
    asyncio.run(bed.pass_seconds(web, 1))
    record = asyncio.run(World.read(bed.store)).image_records["web@1"]
    assert record == ImageRecord(web.source, "raw", record.at)
    assert not bed.storage.images
