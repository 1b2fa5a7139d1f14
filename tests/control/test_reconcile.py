"""A server's worker says why it cannot go on, whoever is at fault; what is handed out never becomes older."""

import asyncio
from ipaddress import IPv4Network

import msgspec

from panloom.control.blades import hardware_of
from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.personalities import booted_with
from panloom.control.reconcile import Reconciler, _Have
from panloom.control.world import World
from panloom.decide.boot_answer import BootEvent
from panloom.decide.hardware import Hardware
from panloom.decide.records import Phase, VirtualNic
from panloom.model.resources import Nic, Node
from panloom.storage import calls
from panloom.values import MacAddress
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

        have = _Have({}, await Storage().volumes(), ports_applied=True)
        assert stalled() >= 3600.0
        edge.trouble = "port 8080 of 10.77.0.1: Address already in use"
        assert stalled() == 0.0
        edge.trouble = ""
        assert reconciler._view("shop/web1", world, have).stalled_seconds < 3600.0
        assert stalled() >= 3600.0

    asyncio.run(scenario())


def test_a_lan_and_its_members_get_vnis_and_keep_them():
    """Those of a record from before there were VNIs as well, and those of a LAN that was deleted and comes back."""

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        reconciler = Reconciler(store, Storage(), Edge(), Observer(Storage(), Boots(DictStore()), events), events, None)

        async def meet():
            world = await World.read(store)
            await reconciler._meet_lans(world)
            await reconciler._meet_servers(world)
            world = await World.read(store)
            (nic,) = world.server_records["shop/web1"].nics
            assert nic.mac == UP.nics[0].mac
            return world.lan_records["shop/front"].vni, nic.vni

        await world_of(store, UP)
        given = await meet()
        assert sorted(given) == [1, 2]
        assert await meet() == given
        await store.commit(delete=[LAN.key])
        assert await meet() == given
        await put(store, LAN, LAN.model_copy(update={"name": "back", "subnet": IPv4Network("10.2.0.0/24")}))
        assert await meet() == given
        assert (await World.read(store)).lan_records["shop/back"].vni == 3

    asyncio.run(scenario())


def test_a_fault_of_ours_is_said_so_too(caplog):
    class Faulty(Storage):
        async def volumes(self):
            raise KeyError("what nobody foresaw")

    why, kinds = why_of(Faulty())
    assert why == "the control process failed (KeyError: 'what nobody foresaw'); see its log"
    assert kinds == ["held up"]
    assert caplog.records[-1].exc_info


def test_what_a_machine_said_of_itself_is_not_said_of_the_one_that_takes_its_place():
    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        observer = Observer(Storage(), Boots(DictStore()), events)
        reconciler = Reconciler(store, Storage(), Edge(), observer, events, None)

        async def told(world, mac, hardware):
            observer.boot_event(BootEvent("hardware", 1.0, mac=mac, node="n1", hardware=hardware))
            await reconciler._note_hardware(world)
            return await World.read(store)

        world = await put(store, *DOCUMENTS)
        old = world.all(Node)["n1"]
        world = await told(world, old.mac, Hardware(vendor="Dell", cores=8))
        world = await told(world, old.mac, Hardware(product="R640"))
        assert hardware_of(old, world) == Hardware(vendor="Dell", product="R640", cores=8)
        observer.reported[old.mac] = Hardware(vendor="Tenant", cores=999, memory_octets=1 << 30)
        del observer.hardware[old.mac]  # as after a restart
        await reconciler._note_hardware(world)
        world = await World.read(store)
        known = Hardware(vendor="Dell", product="R640", cores=8, memory_octets=1 << 30)
        assert hardware_of(old, world) == known  # a tenant's word fills in, and changes nothing
        new = old.model_copy(update={"mac": MacAddress.parse("52:54:00:77:00:99")})
        world = await put(store, new)
        await reconciler._note_hardware(world)
        assert hardware_of(new, await World.read(store)) == Hardware()
        world = await told(await World.read(store), new.mac, Hardware(product="R750"))
        assert hardware_of(new, world) == Hardware(product="R750")

    asyncio.run(scenario())
