"""A server's worker says why it cannot go on, whoever is at fault; what is handed out never becomes older."""

import asyncio
from ipaddress import IPv4Network

import msgspec

from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.personalities import booted_with
from panloom.control.reconcile import Reconciler, _Have
from panloom.decide.records import Phase, VirtualNic
from panloom.model.resources import Nic
from panloom.storage import calls
from support.dict_store import DictStore
from support.world import DOCUMENTS, LAN, UP, WEB1, put, world_of

BOOTING = msgspec.structs.replace(UP, phase=Phase.BOOTING)


class Storage:
    """A storage process with nothing in it."""

    async def status(self):
        return calls.Status((), ())

    async def volumes(self):
        return calls.Volumes((), ())


class Edge:
    """Boot services that only remember what they were last told to answer from."""

    table = None
    trouble = ""

    def replace(self, table):
        self.table = table


def why_of(storage, record=BOOTING, documents=DOCUMENTS):
    """Let the worker of shop/web1 go on; return what holds it up, and the events."""

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        world = await world_of(store, record, documents)
        record_then = msgspec.structs.replace(record, personality=booted_with("shop/web1", record, world))
        await put(store, servers={"shop/web1": record_then})
        reconciler = Reconciler(store, storage, Edge(), Observer(storage, Boots(DictStore()), events), events, None)
        await reconciler._work("shop/web1")
        return reconciler.why("shop/web1"), [event.kind for event in await events.after(0)]

    return asyncio.run(scenario())


def test_an_older_boot_table_does_not_take_the_place_of_a_newer_one():
    """A pass that read the world before a fence must not hand out again what the fence took away."""

    async def scenario():
        store, edge = DictStore(), Edge()
        before = await world_of(store, BOOTING)
        events = EventLog(DictStore())
        reconciler = Reconciler(store, Storage(), edge, Observer(None, Boots(DictStore()), events), events, None)
        reconciler._replace_boot_table(before)
        handed_out = edge.table
        after = await put(store, servers={"shop/web1": msgspec.structs.replace(BOOTING, epoch=4)})
        reconciler._replace_boot_table(after)
        newest = edge.table
        assert newest != handed_out
        reconciler._replace_boot_table(before)
        assert edge.table is newest

    asyncio.run(scenario())


def test_a_personality_that_does_not_fit_is_said_so():
    lans = [
        LAN.model_copy(update={"name": f"lan{n}", "subnet": IPv4Network((0x0A020000 + n * 256, 24))}) for n in range(40)
    ]
    server = WEB1.model_copy(update={"nics": tuple(Nic(lan=lan.name) for lan in lans)})
    record = msgspec.structs.replace(
        BOOTING, nics=tuple(VirtualNic(lan=lan.name, mac=f"02:50:4c:00:01:{n:02x}") for n, lan in enumerate(lans))
    )
    documents = (*(server if document is WEB1 else document for document in DOCUMENTS), *lans)
    why, kinds = why_of(Storage(), record, documents)
    assert why.endswith("does not fit into 4096; give shop/web1 fewer NICs or keys, or its LANs shorter settings")
    assert kinds == ["held up"]


def test_no_boot_is_late_while_the_boot_services_cannot_be_opened():
    async def scenario():
        store, events, boots, edge = DictStore(), EventLog(DictStore()), Boots(DictStore()), Edge()
        world, progress = await world_of(store, BOOTING), boots.progress
        reconciler = Reconciler(store, Storage(), edge, Observer(Storage(), boots, events), events, None)

        def stalled():
            """Return what a boot is held to when an hour has gone by."""
            reconciler._view("shop/web1", world, have)
            progress.excuse(-3600.0)
            return reconciler._view("shop/web1", world, have).stalled_seconds

        have = _Have(await Storage().status(), await Storage().volumes(), ports_applied=True)
        assert stalled() >= 3600.0
        edge.trouble = "port 8080 of 10.77.0.1: Address already in use"
        assert stalled() == 0.0
        edge.trouble = ""
        assert reconciler._view("shop/web1", world, have).stalled_seconds < 3600.0
        assert stalled() >= 3600.0

    asyncio.run(scenario())


def test_a_fault_of_ours_is_said_so_too(caplog):
    class Faulty(Storage):
        async def volumes(self):
            raise KeyError("what nobody foresaw")

    why, kinds = why_of(Faulty())
    assert why == "the control process failed (KeyError: 'what nobody foresaw'); see its log"
    assert kinds == ["held up"]
    assert caplog.records[-1].exc_info
