"""A disk that takes long to be made or to grow holds up nobody else: no pass, and with it no fence, waits for it."""

import asyncio
import os
from pathlib import Path

import pytest

from panloom.control.events import EventLog
from panloom.control.volumes import MAX_AT_ONCE, Volumes
from panloom.errors import UnavailableError
from panloom.model.resources import Volume
from panloom.storage import calls
from support.control_node import control_node, pan
from support.dict_store import DictStore
from support.world import put

TESTS = Path(__file__).parents[1]
MIB = 1 << 20
PAN = pan("shop", "web[1-2]")


@pytest.fixture
def control(tmp_path, monkeypatch):
    with control_node(tmp_path, nodes=3) as made:
        monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        made.start_storage("control.stalling_storage")
        made.start_control()
        made.declare()
        made.until_event("boot services")
        yield made
        for stalls in (tmp_path / "store").glob("*.stalls"):
            stalls.unlink()


def test_a_server_fails_over_while_another_ones_disk_does_not_finish_growing(control):
    control.apply(PAN)
    rows = [control.until_up(f"shop/web{number}") for number in (1, 2)]
    stalls = control.directory / "store" / "shop.web2.stalls"
    stalls.touch()
    control.apply(PAN.replace("disk: {size: 1MiB}", "disk: {size: 3MiB}"))
    control.until_event("volume grown", server="shop/web1")
    victim = control[rows[0]["node"]]
    victim.switch_is_broken = True
    victim.kill()
    control.until_event("fence complete", server="shop/web1")
    assert control.until_up("shop/web1", not_on={victim.name})["epoch"] == 2
    assert control.events("volume grown", server="shop/web2") == []
    assert control.server("shop/web2")["epoch"] == 1
    stalls.unlink()
    control.until_event("volume grown", server="shop/web2")
    assert len(control.events("volume grown")) == 2


class SlowStorage:
    """A storage process whose calls end when they are told to."""

    def __init__(self, volumes=()):
        self.found = calls.Volumes(
            tuple(calls.VolumeFacts(name, "web@1", MIB, MIB, 0) for name in volumes),
            (calls.ImageFacts("web@1", 512, "ab" * 32),),
        )
        self.begun = []
        self.disk = asyncio.Event()
        self.trouble = None

    async def volumes(self):
        return self.found

    async def grow_volume(self, name, octets):
        self.begun.append((name, octets))
        await self.disk.wait()
        if self.trouble:
            raise UnavailableError(self.trouble)

    async def create_volume(self, name, image, size_octets, **_):
        await self.grow_volume(name, size_octets)
        return calls.Created(size_octets, True)


class Bed:
    """Volumes that are tended as the reconciler does it."""

    def __init__(self, storage):
        self.storage = storage
        self.events = EventLog(DictStore())
        self.said = []
        self.workers = {}
        self.done = 0
        self.volumes = Volumes(storage, storage, self.events, self._count)  # all that they observe is the storage

    def _count(self):
        self.done += 1

    def _start(self, name, work):
        assert name not in self.workers or self.workers[name].done()
        self.workers[name] = asyncio.create_task(work())

    async def tend(self, *documents):
        """Tend once; return which volumes were begun by that."""
        world, before = await put(DictStore(), *documents), len(self.storage.begun)
        await self.volumes.tend(world, self._start, lambda subject, why: self.said.append((subject, why)))
        await asyncio.sleep(0)  # the workers begin
        return [name for name, _ in self.storage.begun[before:]]

    async def end(self):
        """Let the disk go on until nothing is at work, and stand still again."""
        self.storage.disk.set()
        await asyncio.gather(*self.workers.values())
        self.storage.disk.clear()


def volume(name, size_octets=2 * MIB):
    return Volume(pan="shop", name=name, image="web@1", size_octets=size_octets)


@pytest.mark.parametrize("there", [(), ("shop.a",)], ids=["made", "grown"])
def test_what_takes_long_is_begun_once_and_waited_for_by_nobody(there):
    async def scenario():
        bed = Bed(SlowStorage(there))
        assert await bed.tend(volume("a")) == ["shop.a"]
        assert await bed.tend(volume("a", 3 * MIB)) == []
        assert (bed.said, bed.done) == ([], 0)
        await bed.end()
        assert (bed.said, bed.done) == ([("volume shop/a", None)], 1)
        return [event.kind for event in await bed.events.after(0)]

    assert asyncio.run(scenario()) == ["volume grown" if there else "volume made"]


def test_what_ends_while_the_volumes_are_read_is_not_done_again():
    async def scenario():
        bed = Bed(SlowStorage(["shop.a"]))

        async def volumes():
            await bed.end()
            return bed.storage.found

        await bed.tend(volume("a"))
        bed.storage.volumes = volumes
        assert await bed.tend(volume("a")) == []

    asyncio.run(scenario())


def test_it_is_said_why_and_those_that_fail_let_the_others_go_first():
    names = [f"v{number}" for number in range(MAX_AT_ONCE + 2)]

    async def scenario():
        bed = Bed(SlowStorage([f"shop.{name}" for name in names]))
        bed.storage.trouble = "No space left on device"
        documents = [volume(name) for name in names]
        first = await bed.tend(*documents)
        assert len(first) == MAX_AT_ONCE
        assert await bed.tend(*documents) == []
        await bed.end()
        assert bed.said[0] == ("volume shop/v0", "volume shop/v0: No space left on device")
        assert len(bed.said) == MAX_AT_ONCE
        second = await bed.tend(*documents)
        assert set(second[:2]) == {f"shop.{name}" for name in names} - set(first)
        bed.storage.trouble = None
        await bed.end()
        assert (bed.said[-1][1], bed.done) == (None, MAX_AT_ONCE)

    asyncio.run(scenario())
