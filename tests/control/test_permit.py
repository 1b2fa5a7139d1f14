"""An edit of the documents and a placement at the same moment: whichever is durable first, the other knows of it."""

import asyncio
from functools import partial

import msgspec
import pytest

from panloom.control.documents import Documents
from panloom.control.permit import permit
from panloom.control.world import World
from panloom.decide.image_update import ImageUpdate, Stage, Turn, with_stage
from panloom.decide.records import NodeRecord, Phase
from panloom.errors import ConflictError
from panloom.model import resources
from panloom.model.load import File
from panloom.model.resources import Image, Node, Volume
from support.dict_store import DictStore
from support.plain_control import CHASSIS
from support.world import UP

WEB = """
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24}
servers:
  web1:
    image: web
    nics:
      - {lan: front, address: 10.1.0.11}
"""
LAB = File("lab.yaml", CHASSIS)
MOVED = File("lab.yaml", CHASSIS.replace("address: 10.0.0.1[1-3]", "address: 10.0.0.2[1-3]"))


class Raced(DictStore):
    """A store in which something else happens just before the next commit of documents."""

    def __init__(self):
        super().__init__()
        self.first = None

    async def commit(self, **arguments):
        first, self.first = self.first, None
        if first is not None:
            await first()
        return await super().commit(**arguments)


async def place(store, world=None):
    """Put a server on n1, as placement does."""
    world = world or await World.read(store)
    known = world.node_records.get("n1", NodeRecord())
    carries = msgspec.structs.replace(known, server="shop/web1")
    await world.edit(nodes={"n1": carries}, rests_on=[world.all(Node)["n1"].key])


async def applied():
    store = Raced()
    documents = Documents(store, permit=partial(permit, store))
    await documents.apply([LAB], prune=False, who="ann")
    return store, documents


def move(documents):
    return documents.apply([MOVED], prune=False, who="ann")


def prune(documents):
    smaller = File("lab.yaml", CHASSIS.replace("[1-3]", "[2-3]").replace("[01-03]", "[02-03]"))
    return documents.apply([smaller], prune=True, who="ann")


def delete(documents):
    return documents.delete("node", "n1", yes=False, who="ann")


def go_back(documents):
    return documents.rollback(0, last=None, who="ann")


EDITS = pytest.mark.parametrize("edit", [move, prune, delete, go_back])


@EDITS
@pytest.mark.parametrize("known", [None, NodeRecord()], ids=["never used", "used before"])
def test_a_placement_that_comes_first_keeps_the_node_as_it_is(edit, known):
    async def scenario():
        store, documents = await applied()
        if known is not None:
            await (await World.read(store)).edit(nodes={"n1": known})
        store.first = partial(place, store)
        before = (await World.read(store)).all(Node)
        with pytest.raises(ConflictError, match="n1 carries shop/web1; first: panloom failover shop/web1"):
            await edit(documents)
        world = await World.read(store)
        assert world.node_records["n1"].server == "shop/web1"
        assert world.all(Node) == before

    asyncio.run(scenario())


@EDITS
def test_an_edit_that_comes_first_keeps_a_placement_from_what_is_no_more(edit):
    async def scenario():
        store, documents = await applied()
        world = await World.read(store)
        await edit(documents)
        with pytest.raises(ConflictError):
            await place(store, world)
        assert (await World.read(store)).node_records == {}

    asyncio.run(scenario())


def test_what_no_fence_rests_on_may_change_under_a_server():
    async def scenario():
        store, documents = await applied()
        await place(store)
        larger = File("lab.yaml", CHASSIS.replace("memory: ", "memory: 1"))
        assert larger.text != CHASSIS
        assert (await documents.apply([larger], prune=False, who="ann")).revision == 2

    asyncio.run(scenario())


def test_a_volume_is_doomed_with_its_document_and_only_once_its_server_is_gone():
    async def scenario():
        store, documents = await applied()
        await documents.apply([File("web.yaml", WEB)], prune=False, who="ann")
        await documents.delete("server", "shop/web1", yes=False, who="ann")
        record = msgspec.structs.replace(UP, phase=Phase.FENCING)
        await (await World.read(store)).edit(servers={"shop/web1": record})
        with pytest.raises(ConflictError, match="volume shop/web1: its server is still being taken down"):
            await documents.delete("volume", "shop/web1", yes=True, who="ann")
        world = await World.read(store)
        assert (list(world.all(Volume)), world.doomed) == (["shop/web1"], frozenset())
        await world.edit(servers={"shop/web1": msgspec.structs.replace(record, phase=Phase.GONE)})
        await documents.delete("volume", "shop/web1", yes=True, who="ann")
        world = await World.read(store)
        assert (list(world.all(Volume)), world.doomed) == ([], {"shop/web1"})

    asyncio.run(scenario())


def server(name):
    return File(f"{name}.yaml", WEB.replace("web1", name).replace(".11", ".12"))


@pytest.mark.parametrize("stage", [Stage.MAKING, Stage.ON_TRIAL])
def test_no_server_takes_a_disk_that_an_update_needs(stage):
    """A server by the name of a disk that is nobody's just now would have it, and the update put it to another."""

    async def scenario():
        store, documents = await applied()
        await documents.apply([File("web.yaml", WEB)], prune=False, who="ann")
        spare = Volume(pan="shop", name="web1-disk-2", image="web@1", server="")
        await store.commit(put={spare.key: resources.encode(spare)})
        turn = Turn("shop/web1", stage, "shop/web1", spare.label)
        update = ImageUpdate("web", "web@2", "web@2", 1, "ada", 1.0, (turn,))
        await (await World.read(store)).edit(updates={"web": update})
        with pytest.raises(ConflictError, match="image web is being updated, and shop/web1 may need it"):
            await documents.apply([server("web1-disk-2")], prune=False, who="ann")
        ended = with_stage(update, "shop/web1", Stage.LEFT, wall=2.0)
        await (await World.read(store)).edit(updates={"web": ended})
        await documents.apply([server("web1-disk-2")], prune=False, who="ann")

    asyncio.run(scenario())


def test_an_image_is_not_deleted_beside_the_beginning_of_an_update_to_it():
    async def scenario():
        store, documents = await applied()
        second = Image(name="web", version=2, source="/2")
        await store.commit(put={second.key: resources.encode(second)})

        async def begin():
            update = ImageUpdate("web", "web@2", "web@2", 1, "ada", 1.0, (Turn("shop/web1"),))
            await (await World.read(store)).edit(updates={"web": update}, rests_on=(second.key,))

        store.first = begin
        with pytest.raises(ConflictError, match="its servers are being updated to it"):
            await documents.delete("image", "web@2", yes=True, who="ann")

    asyncio.run(scenario())
