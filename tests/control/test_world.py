"""What stands in the store, read whole; and records that change by compare-and-set only."""

import asyncio

import msgspec
import pytest

from panloom.control.world import World
from panloom.decide.records import NodeRecord, Phase
from panloom.errors import ConflictError
from panloom.model.resources import Node, Server
from support.world import DOCUMENTS, UP, WEB1, opened_store, put, world_of


def with_store(scenario):
    async def run():
        async with opened_store() as store:
            await asyncio.wait_for(scenario(store), 20)

    asyncio.run(run())


def test_documents_and_records_are_read_back_as_they_are():
    async def scenario(store):
        empty = await World.read(store)
        assert (empty.platform, empty.server_records, dict(empty.all(Server))) == (None, {}, {})
        await world_of(store)
        world = await World.read(store)
        assert world.all(Server) == {"shop/web1": WEB1}
        assert list(world.all(Node)) == ["n1", "n2"]
        assert world.server_records == {"shop/web1": UP}
        assert world.node_records == {"n1": NodeRecord(server="shop/web1")}
        assert world.revision > empty.revision

    with_store(scenario)


def test_an_edit_on_what_another_has_changed_is_refused_whole():
    async def scenario(store):
        first, second = await world_of(store), await World.read(store)
        moved = msgspec.structs.replace(UP, epoch=4)
        await first.edit(servers={"shop/web1": moved}, nodes={"n1": NodeRecord()})
        with pytest.raises(ConflictError):
            await second.edit(servers={"shop/web1": msgspec.structs.replace(UP, epoch=9)}, nodes={"n2": NodeRecord()})
        assert second.server_records == {"shop/web1": UP}
        now = await World.read(store)
        assert now.server_records == {"shop/web1": moved}
        assert now.node_records == {"n1": NodeRecord()}
        # What only the one of them knows, the other may go on with.
        await second.edit(nodes={"n2": NodeRecord(quarantined="smoke")})

    with_store(scenario)


def test_edits_follow_one_another_without_reading_again():
    async def scenario(store):
        world = await put(store, *DOCUMENTS)
        for epoch in (1, 2, 3):
            record = msgspec.structs.replace(UP, epoch=epoch)
            await world.edit(servers={"shop/web1": record})
            assert world.server_records["shop/web1"] == record
        await world.edit(servers={"shop/web1": None})
        assert world.server_records == {}
        await world.edit(servers={"shop/web1": UP})
        assert (await World.read(store)).server_records == {"shop/web1": UP}

    with_store(scenario)


def test_of_two_that_make_the_same_record_one_wins():
    async def scenario(store):
        worlds = [await put(store, *DOCUMENTS), await World.read(store)]
        results = await asyncio.gather(*(w.edit(servers={"shop/web1": UP}) for w in worlds), return_exceptions=True)
        assert sorted(type(result) for result in results if result) == [ConflictError]

    with_store(scenario)


@pytest.mark.parametrize("phase", Phase)
def test_addresses_pass_while_a_server_boots_or_runs(phase):
    async def scenario(store):
        world = await world_of(store, msgspec.structs.replace(UP, phase=phase))
        assert world.admits("shop/web1") == (phase in (Phase.BOOTING, Phase.UP))
        assert not world.admits("shop/web9")

    with_store(scenario)
