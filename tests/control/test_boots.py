"""How far each machine's boot has come, and what a new process still knows of it."""

import asyncio
import time

import msgspec
import pytest

from panloom.control.boots import PREFIX, Boots
from panloom.decide.records import STAGES, BootRecord
from panloom.errors import UnavailableError
from support.dict_store import DictStore


def names(boots, node="n1"):
    return [stage for stage, _ in boots.of(node).stages]


def test_each_stage_is_news_once_and_in_order():
    boots = Boots(DictStore())
    assert [boots.reached("n1", stage, 10.0 + at) for at, stage in enumerate(STAGES)] == [True] * len(STAGES)
    assert boots.of("n1").stages == tuple((stage, float(at)) for at, stage in enumerate(STAGES))
    assert not boots.reached("n1", "script", 99.0)
    assert not boots.reached("n1", "userland", 99.0)
    assert boots.of("n2") is None


def test_a_stage_that_is_told_of_after_a_later_one_is_noted_in_its_place():
    boots = Boots(DictStore())
    for at, stage in ((1.0, "dhcp"), (2.0, "script"), (5.0, "kernel")):
        assert boots.reached("n1", stage, at)
    assert boots.reached("n1", "first read", 4.0)
    assert boots.reached("n1", "login", 3.0)
    assert names(boots) == ["dhcp", "script", "login", "first read", "kernel"]
    assert not boots.reached("n1", "first read", 4.5)
    assert boots.reached("n1", "power", 6.0)
    for at, stage in ((7.0, "dhcp"), (8.0, "kernel")):
        boots.reached("n1", stage, at)
    assert not boots.reached("n1", "login", 9.0), "a login after the kernel is not the firmware's"
    assert names(boots) == ["power", "dhcp", "kernel"]


def test_a_power_on_begins_a_boot_and_so_does_a_request_after_the_script():
    boots = Boots(DictStore())
    for at, stage in enumerate(("power", "dhcp", "script", "dhcp", "login")):
        boots.reached("n1", stage, float(at))
    assert names(boots) == ["power", "dhcp", "script", "login"]
    boots.reached("n1", "dhcp", 30.0)
    assert names(boots) == ["dhcp"]
    boots.reached("n1", "power", 40.0)
    assert names(boots) == ["power"]


def test_a_machine_that_begins_again_is_counted_and_is_news_only_where_it_comes_further():
    boots = Boots(DictStore())
    for at, stage in enumerate(("power", "dhcp", "script", "login", "first read")):
        assert boots.reached("n1", stage, float(at))
    again = [
        boots.reached("n1", stage, 10.0 + at) for at, stage in enumerate(("dhcp", "script", "login", "first read"))
    ]
    assert again == [False] * 4
    assert boots.of("n1").tries == 1
    assert boots.reached("n1", "dhcp", 20.0) is False
    assert boots.reached("n1", "login", 21.0) is False
    assert boots.reached("n1", "userland", 22.0)
    assert (boots.of("n1").tries, names(boots)) == (2, ["dhcp", "login", "userland"])
    assert boots.reached("n1", "dhcp", 30.0)
    assert boots.of("n1").tries == 0
    boots.reached("n1", "script", 31.0)
    boots.reached("n1", "login", 32.0)
    boots.reached("n1", "power", 40.0)
    assert boots.of("n1").tries == 0


def test_the_console_tells_of_stages_only_once_the_network_has():
    boots = Boots(DictStore())
    assert not boots.reached_by_console("n1", "userland", 1.0)
    boots.reached("n1", "power", 2.0)
    boots.reached("n1", "dhcp", 3.0)
    assert not boots.reached_by_console("n1", "userland", 3.1)
    boots.reached("n1", "login", 4.0)
    assert boots.reached_by_console("n1", "kernel", 5.0)
    assert not boots.reached_by_console("n1", "kernel", 6.0)
    assert names(boots) == ["power", "dhcp", "login", "kernel"]


def test_a_new_process_goes_on_where_the_last_one_saw_the_boot():
    async def scenario():
        store = DictStore()
        boots = Boots(store)
        for at, stage in enumerate(STAGES[:-1]):
            boots.reached("n1", stage, 50.0 + at, server="shop/web1", epoch=2)
        await boots.write()
        again = Boots(store)
        await again.load()
        assert again.of("n1") == boots.of("n1")
        assert again.passed("n1", "kernel")
        assert not again.reached("n1", "kernel", 1e9)
        assert again.reached("n1", "userland", 1e9)
        assert (again.of("n1").server, again.of("n1").epoch) == ("shop/web1", 2)

    asyncio.run(scenario())


def test_a_wall_clock_that_was_set_back_meanwhile_leaves_the_boot_as_it_was_kept():
    async def scenario():
        store = DictStore()
        kept = BootRecord(at=time.time() + 3600.0, stages=(("power", 0.0), ("dhcp", 2.0)))
        await store.commit(put={PREFIX + "n1": msgspec.json.encode(kept)})
        boots = Boots(store)
        await boots.load()
        assert boots.of("n1") == kept

    asyncio.run(scenario())


def test_a_stage_that_is_reached_while_the_others_are_written_is_written_too():
    class Slow(DictStore):
        async def commit(self, **arguments):
            boots.reached("n1", "dhcp", 2.0)
            return await super().commit(**arguments)

    async def scenario():
        await boots.write()
        await boots.write()
        again = Boots(store)
        await again.load()
        assert names(again) == ["power", "dhcp"]

    store = Slow()
    boots = Boots(store)
    boots.reached("n1", "power", 1.0)
    asyncio.run(scenario())


def test_what_the_store_refuses_is_written_later_and_nothing_twice():
    class Refusing(DictStore):
        refuses = True

        async def commit(self, **arguments):
            if self.refuses:
                raise UnavailableError("full")
            return await super().commit(**arguments)

    async def scenario():
        store = Refusing()
        boots = Boots(store)
        boots.reached("n1", "power", 1.0)
        with pytest.raises(UnavailableError):
            await boots.write()
        store.refuses = False
        await boots.write()
        revision = store.revision
        await boots.write()
        assert store.revision == revision == 1

    asyncio.run(scenario())
