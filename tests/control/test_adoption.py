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
