"""Machines that no document names, taken into the pool by themselves."""

import asyncio

import msgspec
import pytest

from panloom.control.blades import Blades, held_for, menus_of
from panloom.control.boots import Boots
from panloom.control.documents import Documents, Edit
from panloom.control.events import EventLog
from panloom.control.free_addresses import FreeAddresses
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.reconcile import Reconciler
from panloom.control.world import BLADES, World
from panloom.decide.provisioning import DEAF_SECONDS, BladeRecord, BladeState
from panloom.decide.records import Discovered, Phase
from panloom.errors import ConflictError
from panloom.model.resources import WANT, Becoming, Image, Needs, Node, Rule
from panloom.storage import calls
from support.dict_store import DictStore
from support.world import DOCUMENTS, PLATFORM, UP, WEB1, node, put, world_of

NEW = "aa:aa:aa:11:22:33"
RULE = Rule(name="web", server=Becoming(pan="shop", image="web"))
ALWAYS = PLATFORM.model_copy(update={"approve": "always"})


class Bridge:
    """A kernel's bridge that learnt where frames come in."""

    def __init__(self, learnt):
        self._learnt = learnt
        self.asked = 0

    async def port_of(self, mac):
        self.asked += 1
        return self._learnt.get(mac)

    async def look(self):
        pass


async def nobody(_interface, _addresses):
    return frozenset()


def adopted(*macs, learnt=None):
    """Return the names of the nodes that there are once machines with these MACs were discovered, and the events.

    ``learnt`` says at which interface a bridge learnt a MAC.
    """

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        world = await put(store, ALWAYS, *DOCUMENTS[1:])
        observer = Observer(None, Boots(DictStore()), events)
        reconciler = Reconciler(store, None, None, observer, events, None)
        reconciler.blades._addresses = FreeAddresses(nobody)
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
    assert nodes == {"n1", "n2", "n-aaaaaa112233", "n-babbbb112233"}


def test_one_that_a_document_names_by_now_is_no_second_node_and_keeps_no_other_waiting():
    nodes, said = adopted(str(node(1).mac), "aa:aa:aa:11:22:33")
    assert nodes == {"n1", "n2", "n-aaaaaa112233"}
    assert said == [
        f"{node(1).mac} is not taken in: there is a node n1 already",
        "aa:aa:aa:11:22:33 is node n-aaaaaa112233",
    ]


def test_one_whose_frames_come_in_at_another_node_s_port_or_at_one_that_no_filter_can_name_is_not_taken_in():
    _, taken = adopted(NEW, learnt={NEW: "port-n3"})
    assert taken == [f"{NEW} is node n-aaaaaa112233"]
    for port, why in (("port-n1", "the port of node n1"), ("_rack1", "which no filter can name")):
        nodes, said = adopted(NEW, "aa:aa:aa:11:22:44", learnt={NEW: port})
        assert nodes == {"n1", "n2", "n-aaaaaa112244"}
        assert why in said[0]


def test_one_that_cannot_be_taken_in_is_tried_ever_less_often_and_forgotten_when_it_asks_no_more():
    async def scenario():
        now, said, tried, bridge = 0.0, {}, [], Bridge({NEW: "port-n1"})
        store, events = DictStore(), EventLog(DictStore())
        world = await put(store, ALWAYS, *DOCUMENTS[1:])
        observer = Observer(None, Boots(DictStore()), events)
        blades = Blades(
            store, observer, bridge, events, lambda: None, addresses=FreeAddresses(nobody), clock=lambda: now
        )
        observer.discovered[NEW] = Discovered(mac=NEW, address="10.77.0.200", first_seen=1.0)
        for second in range(40):
            now, before = float(second), bridge.asked
            await blades.meet(world, said.__setitem__)
            tried += [second] * (bridge.asked - before)
        assert "the port of node n1" in said[NEW]
        blades._refused[NEW, ""] = 5000, now  # for days
        await blades.meet(world, said.__setitem__)
        observer.discovered.clear()
        await blades.meet(world, said.__setitem__)
        return tried, said

    assert asyncio.run(scenario()) == ([0, 1, 3, 7, 15, 31], {NEW: None})


class TornStore(DictStore):
    """A store to which ``between`` happens once, between two reads of what belongs together."""

    between = None

    async def range(self, prefix):
        found = await super().range(prefix)
        if prefix == WANT and self.between is not None:
            between, self.between = self.between, None
            await between()
        return found


def test_a_machine_that_is_taken_in_while_the_world_is_read_stays_held_for_its_server():
    """The reader finds its record and not yet its document; it must not take the record for one that was left over."""

    async def scenario():
        store, events = TornStore(), EventLog(DictStore())
        await put(store, *DOCUMENTS, RULE, Image(name="web", version=1, source="/srv/web.img"))
        observer = Observer(EmptyStorage(), Boots(DictStore()), events)
        blades = Blades(store, observer, Bridge({}), events, lambda: None, addresses=FreeAddresses(nobody))
        found = Discovered(mac=NEW, address="10.77.0.200", first_seen=1.0)
        store.between = lambda: blades.take_in(found, RULE, who="root")
        torn = await World.read(store)
        assert set(torn.blades) - set(torn.all(Node)) == {"n-aaaaaa112233"}
        with pytest.raises(ConflictError):
            await blades.follow(torn)
        whole = await World.read(store)
        await blades.follow(whole)
        assert held_for("n-aaaaaa112233", whole) == "shop/web-aaaaaa112233"

    asyncio.run(scenario())


def test_placement_that_knows_a_machine_as_free_gives_it_to_nobody_once_it_is_held():
    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        waiting = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)
        before = await put(store, *DOCUMENTS, servers={"shop/web1": waiting})
        observer = Observer(StorageWithDisk(), Boots(DictStore()), events)
        reconciler = Reconciler(store, StorageWithDisk(), Edge(), observer, events, None)
        reconciler._machines.unfit = lambda *_: None
        record = BladeRecord(BladeState.INSTALLING, server="shop/web9", since=(("new", 1.0),))
        await store.commit(put={f"{BLADES}n1": msgspec.json.encode(record)})
        with pytest.raises(ConflictError):
            await reconciler._place(before)
        assert (await World.read(store)).server_records["shop/web1"].node is None

    asyncio.run(scenario())


def test_a_server_whose_document_changes_while_it_is_placed_is_placed_by_the_new_one():
    """It asks for four cores by now, and the machine that was chosen has two."""

    async def scenario():
        store, events = DictStore(), EventLog(DictStore())
        waiting = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)
        machines = (node(1).model_copy(update={"cores": 2}), node(2).model_copy(update={"cores": 4}))
        before = await put(store, *DOCUMENTS, *machines, servers={"shop/web1": waiting})
        reconciler = Reconciler(
            store, StorageWithDisk(), Edge(), Observer(StorageWithDisk(), Boots(DictStore()), events), events, None
        )
        reconciler._machines.unfit = lambda *_: None
        now = await put(store, WEB1.model_copy(update={"needs": Needs(cores=4)}))
        with pytest.raises(ConflictError):
            await reconciler._place(before)
        await reconciler._place(now)
        assert (await World.read(store)).server_records["shop/web1"].node == "n2"

    asyncio.run(scenario())


def test_a_pass_does_not_wait_for_machines_that_are_being_taken_in():
    async def scenario():
        store, events, asked, answer = DictStore(), EventLog(DictStore()), asyncio.Event(), asyncio.Event()

        async def slow(_interface, _addresses):
            asked.set()
            await answer.wait()
            return frozenset()

        await put(store, ALWAYS, *DOCUMENTS[1:])
        observer = Observer(EmptyStorage(), Boots(DictStore()), events)
        reconciler = Reconciler(store, EmptyStorage(), Edge(), observer, events, None)
        reconciler.blades._ports = Bridge({})
        reconciler.blades._addresses = FreeAddresses(slow)
        observer.discovered[NEW] = Discovered(mac=NEW, address="10.77.0.200", first_seen=1.0)
        await reconciler._pass()
        await asked.wait()
        await reconciler._pass()
        assert "n-aaaaaa112233" not in (await World.read(store)).all(Node)
        answer.set()
        await reconciler._workers["discovered machines"]
        assert "n-aaaaaa112233" in (await World.read(store)).all(Node)
        for worker in reconciler._workers.values():
            worker.cancel()

    asyncio.run(scenario())


def newcomer(store, ask=nobody):
    """Return what takes in a machine that has waited long enough, and the observer that knows it."""
    events = EventLog(DictStore())
    observer = Observer(EmptyStorage(), Boots(DictStore()), events)
    observer.discovered[NEW] = Discovered(mac=NEW, address="10.77.0.200", first_seen=1.0, known_at=-DEAF_SECONDS)
    return Blades(store, observer, Bridge({}), events, lambda: None, addresses=FreeAddresses(ask)), observer


async def delete_documents(store, *keys):
    await Documents(store).edit(lambda _: Edit({}, frozenset(keys)), what="delete", who="root")


def test_nobody_is_taken_in_by_a_rule_that_is_deleted_meanwhile():
    async def scenario(*, late):
        store, said = DictStore(), {}

        async def delete_late(_interface, _addresses):
            await delete_documents(store, *([RULE.key] if late else ()))
            return frozenset()

        before = await put(store, *DOCUMENTS, RULE, Image(name="web", version=1, source="/srv/web.img"))
        blades, observer = newcomer(store, delete_late)
        if not late:
            await delete_documents(store, RULE.key)
        await blades.meet(before, said.__setitem__)
        assert set((await World.read(store)).all(Node)) == {"n1", "n2"}
        with pytest.raises(ConflictError, match="rule web is deleted by now"):
            await blades.take_in(observer.discovered[NEW], RULE, who="root")
        return said

    assert asyncio.run(scenario(late=False)) == {NEW: None}
    assert asyncio.run(scenario(late=True)) == {
        NEW: f"{NEW} is not taken in: rule/web, which says so, is another by now"
    }


def test_a_choice_whose_image_is_deleted_meanwhile_is_asked_for_again():
    async def scenario():
        store, said = DictStore(), {}
        web = Image(name="web", version=1, source="/srv/web.img")
        world = await put(store, *DOCUMENTS, RULE.model_copy(update={"approve": "prompt"}), web)
        blades, observer = newcomer(store)
        observer.discovered[NEW] = msgspec.structs.replace(observer.discovered[NEW], choice="db")
        assert not menus_of(world, observer.discovered.values())
        await blades.meet(world, said.__setitem__)
        assert "image" in said[NEW]
        assert [menu.offers("web") for menu in menus_of(world, observer.discovered.values()).values()] == [True]

    asyncio.run(scenario())


class Edge:
    """Boot services that answer from whatever they are told to."""

    trouble = ""

    def replace(self, table):
        pass


class EmptyStorage:
    """A storage process without volumes."""

    async def volumes(self):
        return calls.Volumes((), ())

    async def status(self):
        return calls.Status((), (), ("10.77.0.1:3260",))


class StorageWithDisk(EmptyStorage):
    """A storage process that keeps the disk of shop/web1."""

    async def volumes(self):
        return calls.Volumes((calls.VolumeFacts("shop.web1", "web@1", 1 << 20, 0, 1),), ())


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
