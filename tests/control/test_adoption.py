"""Machines that no document names, taken into the pool by themselves."""

import asyncio

from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.reconcile import Reconciler
from panloom.control.world import World
from panloom.decide.records import Discovered
from panloom.model.resources import Node
from support.dict_store import DictStore
from support.world import DOCUMENTS, PLATFORM, node, put

ALWAYS = PLATFORM.model_copy(update={"approve": "always"})


def adopted(*macs):
    """Return the names of the nodes that there are once machines with these MACs were discovered, and the events."""

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        world = await put(store, ALWAYS, *DOCUMENTS[1:])
        observer = Observer(None, Boots(DictStore()), events)
        reconciler = Reconciler(store, None, None, observer, events, None)
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
