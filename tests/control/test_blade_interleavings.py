"""A machine is taken in, placed and let go of in whatever order the steps of all who do so come.

taker     meet ──────────▶ ┐                      each step is one read or one commit; hypothesis says whose
pass      follow, place ─▶ ├─ SteppedStore ─▶     is next, and each commit is judged by what is stored then
person    delete, apply ─▶ ┘
"""

import asyncio
import contextlib

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panloom.control.blades import Blades
from panloom.control.boots import Boots
from panloom.control.documents import Documents, Edit
from panloom.control.events import EventLog
from panloom.control.free_addresses import FreeAddresses
from panloom.control.observer import Observer
from panloom.control.ports import Ports
from panloom.control.reconcile import Reconciler
from panloom.control.world import BLADES, NODES, SERVERS, World
from panloom.decide.provisioning import DEAF_SECONDS, BladeRecord, is_held
from panloom.decide.records import Discovered, NodeRecord, Phase, ServerRecord, volume_of
from panloom.errors import PanloomError
from panloom.model.resources import WANT, Becoming, Image, Rule
from panloom.storage import calls
from support.dict_store import DictStore
from support.world import DOCUMENTS, UP, put

NEW, NODE, SERVER = "aa:aa:aa:11:22:33", "n-aaaaaa112233", "shop/web-aaaaaa112233"
RULE = Rule(name="web", server=Becoming(pan="shop", image="web"))
IMAGE = Image(name="web", version=1, source="/srv/web.img")
WAITING = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)


class SteppedStore(DictStore):
    """A store at which everybody waits for his turn; each commit is judged."""

    def __init__(self):
        super().__init__()
        self.waiting = {}
        self.is_stepped = False

    async def get(self, key):
        await self._turn()
        return await super().get(key)

    async def range(self, prefix):
        await self._turn()
        return await super().range(prefix)

    async def commit(self, **words):
        await self._turn()
        before = dict(self.entries)
        revision = await super().commit(**words)
        self._judge(before, words)
        return revision

    async def _turn(self):
        if self.is_stepped:
            turn = asyncio.get_running_loop().create_future()
            self.waiting[asyncio.current_task()] = turn
            await turn

    def records(self, prefix, kind, entries=None):
        entries = self.entries if entries is None else entries
        found = {key: value for key, (value, *_) in entries.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): msgspec.json.decode(value, type=kind) for key, value in found.items()}

    def _judge(self, before, words):
        servers, nodes = self.records(SERVERS, ServerRecord), self.records(NODES, NodeRecord)
        blades, earlier = self.records(BLADES, BladeRecord), self.records(BLADES, BladeRecord, before)
        carriers = [record.node for record in servers.values() if record.node is not None]
        assert len(carriers) == len(set(carriers)), "no two servers are on one node"
        assert all(nodes[record.node].server == name for name, record in servers.items() if record.node is not None)
        for name in earlier.keys() - blades.keys():
            assert f"{WANT}node/{name}" not in self.entries, "the record of a node that is wanted is kept"
        for name, blade in blades.items():
            old = earlier.get(name)
            if old is not None and old.server and not blade.server:
                carrier = servers[old.server].node if old.server in servers else None
                assert f"{WANT}server/{old.server}" not in self.entries or carrier not in (None, name), "it is let go"
            if old is None:
                assert RULE.key in self.entries, "nobody is taken in by a rule that is gone"
        for key in words.get("put", {}):
            placed = servers.get(key.removeprefix(SERVERS))
            if placed is None or placed.node is None or placed.phase is not Phase.BOOTING:
                continue
            assert f"{WANT}node/{placed.node}" in self.entries, "nobody is placed on a node that is gone"
            blade = blades.get(placed.node)
            if blade is not None and is_held(blade) and f"{WANT}server/{blade.server}" in self.entries:
                assert key == SERVERS + blade.server, "nobody is placed on a machine that is held for another"


class AllDisks:
    """A storage process that has made every disk at once."""

    async def volumes(self):
        labels = ("shop/web1", SERVER)
        return calls.Volumes(tuple(calls.VolumeFacts(volume_of(label), "web@1", 1 << 20, 0, 1) for label in labels), ())

    async def status(self):
        return calls.Status((), (), ("10.77.0.1:3260",))


async def nobody(_interface, _addresses):
    return frozenset()


class NoPorts(Ports):
    """A bridge that has learnt nothing."""

    async def port_of(self, _mac):
        return None


async def take_turns(store, actors, order):
    """Let all actors go on, one step of one of them at a time; ``order`` is who goes, and for how many steps."""
    store.is_stepped = True
    tasks = [asyncio.create_task(actor) for actor in actors]
    order = [(tasks[number], steps) for number, steps in order]
    try:
        for task, steps in [*order, *((task, 10_000) for task in tasks)]:
            for _ in range(steps):
                while any(not one.done() and one not in store.waiting for one in tasks):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                if task.done():
                    break
                store.waiting.pop(task).set_result(None)
                await asyncio.sleep(0)
    finally:
        store.is_stepped = False
        for task in tasks:
            task.cancel()
    for task in tasks:
        task.result()


ORDER = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=20)
DEEDS = st.lists(
    st.sampled_from(["delete server", "delete node", "delete rule", "apply node", "apply server"]), max_size=5
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(deeds=DEEDS, order=ORDER)
def test_no_order_of_steps_gives_a_machine_to_two_or_loses_what_is_known_of_it(deeds, order):
    async def scenario():
        store, events = SteppedStore(), EventLog(DictStore())
        documents = [one for one in DOCUMENTS if one.kind != "node"]
        await put(store, *documents, RULE, IMAGE, servers={"shop/web1": WAITING})
        observer = Observer(AllDisks(), Boots(DictStore()), events)
        reconciler = Reconciler(store, AllDisks(), None, observer, events, None)
        reconciler._machines.unfit = lambda *_: None
        blades = Blades(store, observer, NoPorts(), events, lambda: None, addresses=FreeAddresses(nobody))
        known = {}

        async def taker():
            for _ in range(2):
                observer.discovered[NEW] = Discovered(NEW, "10.77.0.200", 1.0, known_at=-DEAF_SECONDS)
                await blades.meet(await World.read(store), lambda *_: None)
                known.update({one.key: one for one in (await World.read(store)).all(type(DOCUMENTS[1])).values()})

        async def passes():
            for _ in range(3):
                world = await World.read(store)
                for part in (blades.follow, reconciler._meet_servers, reconciler._place):
                    with contextlib.suppress(PanloomError):
                        await part(world)

        async def person():
            for deed in deeds:
                act, kind = deed.split()
                key = {"server": f"{WANT}server/{SERVER}", "node": f"{WANT}node/{NODE}", "rule": RULE.key}[kind]
                with contextlib.suppress(PanloomError):
                    found = {one.key: one for one in await Documents(store).resources(kind)}
                    known.update(found)
                    if act == "delete" and key in found:
                        edit = Edit({}, frozenset({key}))
                    elif act == "apply" and key in known:
                        edit = Edit({key: known[key]})
                    else:
                        continue
                    await Documents(store).edit(lambda _, edit=edit: edit, what=deed, who="root")

        await take_turns(store, [taker(), passes(), person()], order)
        for _ in range(2):
            await blades.follow(await World.read(store))

    asyncio.run(scenario())
