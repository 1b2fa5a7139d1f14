"""The event log: no number told twice, none left out, kept over a restart, bounded, streamed."""

import asyncio

import pytest

from panloom.control import events as module
from panloom.control.events import PREFIX, EventLog
from panloom.errors import UnavailableError
from support.dict_store import DictStore
from support.world import opened_store


def numbers(events):
    return [event.number for event in events]


def test_events_are_numbered_without_a_gap_and_kept_over_a_restart():
    async def scenario():
        async with opened_store() as store:
            log = EventLog(store)
            await log.load()
            for number in range(3):
                log.report("boot", f"stage {number}", node="n1", reached=1.5)
            await log.close()
            again = EventLog(store)
            await again.load()
            again.report("up", "up on n1", server="shop/web1", epoch=2)
            events = await again.after(0)
            assert numbers(events) == [1, 2, 3, 4]
            assert events[:3] == await log.after(0)
            assert (events[0].node, events[0].data) == ("n1", {"reached": 1.5})
            assert numbers(await again.after(3)) == [4]
            assert await again.after(4) == ()

    asyncio.run(scenario())


def test_only_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(module, "KEEP", 10)

    async def scenario():
        store = DictStore()
        log = EventLog(store)
        for batch in (7, 1, 20):
            for _ in range(batch):
                log.report("boot", "dhcp")
            await log.close()
        kept = [entry.key for entry in (await store.range(PREFIX)).entries]
        assert kept == [f"{PREFIX}{number:012d}" for number in range(19, 29)]
        assert numbers(await log.after(0)) == list(range(19, 29))
        again = EventLog(store)
        await again.load()
        again.report("boot", "dhcp")
        assert numbers(await again.after(27)) == [28, 29]

    asyncio.run(scenario())


def test_who_waits_is_told_of_the_first_event_and_all_who_wait_are():
    async def scenario():
        log = EventLog(DictStore())
        writing = asyncio.create_task(log.write())
        waits = [asyncio.create_task(log.after(0, wait_seconds=20)) for _ in range(3)]
        await asyncio.sleep(0)
        log.report("applied", "revision 1")
        assert [numbers(events) for events in await asyncio.gather(*waits)] == [[1]] * 3
        assert numbers(await log.after(0, wait_seconds=20)) == [1]
        assert await log.after(1, wait_seconds=0.01) == ()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    asyncio.run(scenario())


class Refusing(DictStore):
    """A store that is full when it is told to be."""

    refuses = False

    async def commit(self, **arguments):
        if self.refuses:
            raise UnavailableError("full")
        return await super().commit(**arguments)


def test_what_the_store_refuses_is_told_all_the_same_and_written_later():
    async def scenario():
        store = Refusing()
        log = EventLog(store)
        log.report("boot", "power")
        assert numbers(await log.after(0)) == [1]
        store.refuses = True
        log.report("boot", "dhcp")
        await log.close()
        assert numbers(await log.after(0)) == [1, 2]
        assert len((await store.range(PREFIX)).entries) == 1
        store.refuses = False
        log.report("boot", "script")
        await log.close()
        assert len((await store.range(PREFIX)).entries) == 3

    asyncio.run(scenario())


def test_a_number_that_was_told_is_never_used_again_though_its_event_was_not_written():
    async def scenario():
        store = Refusing()
        told = []
        for _ in range(5):  # each time it is killed with events told that the store did not take
            store.refuses = False
            log = EventLog(store)
            await log.load()
            log.report("boot", "power")
            told += numbers(await log.after(max(told, default=0)))
            store.refuses = True
            for _ in range(2 * module.BLOCK):
                log.report("boot", "dhcp")
                told += numbers(await log.after(told[-1]))
        assert len(told) > 5 * module.BLOCK // 2
        assert told == sorted(set(told))

    asyncio.run(scenario())


def test_what_is_reported_while_another_commit_is_under_way_is_written_once_and_told_in_order():
    class Slow(DictStore):
        async def commit(self, **arguments):
            await asyncio.sleep(0)
            return await super().commit(**arguments)

    async def scenario():
        store = Slow()
        log = EventLog(store)
        log.report("boot", "power")
        first = asyncio.create_task(log.after(0))
        await asyncio.sleep(0)
        log.report("boot", "dhcp")
        assert numbers(await log.after(0)) == [1, 2]
        assert numbers(await first)[0] == 1
        await log.close()
        assert [entry.key[-1] for entry in (await store.range(PREFIX)).entries] == ["1", "2"]

    asyncio.run(scenario())
