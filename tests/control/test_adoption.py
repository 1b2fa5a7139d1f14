"""Machines that no document names, taken into the pool by themselves."""

import asyncio

import msgspec
import pytest

from panloom.control.blades import Blades, held_for
from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.reconcile import Reconciler
from panloom.control.world import BLADES, World
from panloom.decide.provisioning import BladeRecord, BladeState
from panloom.decide.records import Discovered, Phase
from panloom.model.resources import Node
from panloom.storage import calls
from support.dict_store import DictStore
from support.world import DOCUMENTS, PLATFORM, UP, node, put, world_of

NEW = "aa:aa:aa:11:22:33"
ALWAYS = PLATFORM.model_copy(update={"approve": "always"})


class Bridge:
    """A kernel's bridge that learnt where frames come in."""

    def __init__(self, learnt):
        self._learnt = learnt

    async def port_of(self, mac):
        return self._learnt.get(mac)


def adopted(*macs, learnt=None):
    """Return the names of the nodes that there are once machines with these MACs were discovered, and the events.

    ``learnt`` says at which interface a bridge learnt a MAC.
    """

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        world = await put(store, ALWAYS, *DOCUMENTS[1:])
        observer = Observer(None, Boots(DictStore()), events)
        reconciler = Reconciler(store, None, None, observer, events, None)
        if learnt is not None:
            reconciler.blades._ports = Bridge(learnt)
        for mac in macs:
            observer.discovered[mac] = Discovered(mac=mac, address="10.77.0.200", first_seen=1.0)
        for _ in range(2):
            await reconciler.blades.meet(world, reconciler._say)
        return set((await World.read(store)).all(Node)), [event.text for event in await events.after(0)]

    return asyncio.run(scenario())


def test_two_machines_whose_macs_end_alike_are_two_nodes():
    nodes, _ = adopted("aa:aa:aa:11:22:33", "ba:bb:bb:11:22:33")
    assert nodes == {"n1", "n2", "n-112233", "n-babbbb112233"}


def test_one_that_a_document_names_by_now_is_no_second_node_and_keeps_no_other_waiting():
    nodes, said = adopted(str(node(1).mac), "aa:aa:aa:11:22:33")
    assert nodes == {"n1", "n2", "n-112233"}
    assert said == [
        f"{node(1).mac} is not taken in: there is a node n1 already",
        "aa:aa:aa:11:22:33 is node n-112233",
    ]


def test_one_whose_frames_come_in_at_another_node_s_port_or_at_one_that_no_filter_can_name_is_not_taken_in():
    _, taken = adopted(NEW, learnt={NEW: "port-n3"})
    assert taken == [f"{NEW} is node n-112233"]
    for port, why in (("port-n1", "the port of node n1"), ("_rack1", "which no filter can name")):
        nodes, said = adopted(NEW, "aa:aa:aa:11:22:44", learnt={NEW: port})
        assert nodes == {"n1", "n2", "n-112244"}
        assert why in said[0]


class EmptyStorage:
    """A storage process without volumes."""

    async def volumes(self):
        return calls.Volumes((), ())


@pytest.mark.parametrize(("carrier", "held"), [("n1", "shop/web1"), (None, "shop/web1"), ("n2", None)])
def test_a_machine_whose_server_another_carries_is_no_longer_held_for_it(carrier, held):
    async def scenario():
        store = DictStore()
        record = BladeRecord(BladeState.INSTALLED, server="shop/web1", since=(("new", 1.0),))
        await store.commit(put={f"{BLADES}n1": msgspec.json.encode(record)})
        world = await world_of(store, msgspec.structs.replace(UP, node=carrier, phase=Phase.BOOTING))
        assert held_for("n1", world) == "shop/web1"
        await Blades(store, EmptyStorage(), Ports(), EventLog(DictStore()), lambda: None).follow(world)
        assert held_for("n1", await World.read(store)) == held

    asyncio.run(scenario())
