"""What is shown of each resource: the document, its record, and what is seen of it."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from panloom.control.boot_story import BootStory
from panloom.control.boots import Boots
from panloom.control.consoles import Consoles
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.rows import Rows, state_of
from panloom.decide.inventory import System
from panloom.decide.records import STEPS, Discovered, Fence, LanRecord, NodeRecord, Phase, Step, VirtualNic
from panloom.errors import UnavailableError
from panloom.model.resources import KINDS, Image
from panloom.storage import calls
from panloom.storage.limits import NO_LIMITS
from panloom.storage.statistics import Totals
from support.dict_store import DictStore
from support.world import DOCUMENTS, LAN, MAC, UP, node, put, world_of

VOLUME = calls.VolumeFacts("shop.web1", "web@1", 1 << 20, 4096, 3)
DONE = Totals(operations=100, reads=100, read_octets=51200, octets=51200, read_latency=(0, 0, 0, 60, 39, 0, 1))


class Storage:
    """A storage process with one volume, or none at all."""

    is_there = True
    volumes_there = (VOLUME,)
    images_there = (calls.ImageFacts("web@1", 1 << 20, "ab" * 32),)
    statistics_there = calls.Statistics((calls.DeviceStatistics("volume:shop.web1", NO_LIMITS, DONE),), 1795257067.0)

    async def volumes(self):
        self._check()
        return calls.Volumes(self.volumes_there, self.images_there)

    async def statistics(self):
        self._check()
        return self.statistics_there

    async def status(self):
        self._check()
        return calls.Status((), ())

    def _check(self):
        if not self.is_there:
            raise UnavailableError("the storage process does not answer")


class Shown:
    """Rows over one world."""

    def __init__(self, world, store, why=None):
        self.world = world
        self.store = store
        self.storage = Storage()
        self.said = {}
        events = EventLog(DictStore())
        self.observer = Observer(self.storage, Boots(DictStore()), events)
        consoles = Consoles(store, Path("/nonexistent"), self.observer.heard)
        edge = Edge(store, events, files=None, boot_event=self.observer.boot_event, beacon=self.observer.beacon)
        story = BootStory(self.observer, events, consoles, edge)
        self.rows = Rows(self.storage, self.observer, lambda subject: why or self.said.get(subject), story)

    def __call__(self, kind):
        return {row["name"]: row for row in asyncio.run(self.rows.of(kind, self.world))}

    def details(self, kind, name):
        return asyncio.run(self.rows.details(kind, self(kind)[name], self.world))

    def status(self):
        status = asyncio.run(self.rows.status(self.world, self.store))
        return status["state"], {part["part"]: part for part in status["parts"]}


def shown(record=UP, documents=DOCUMENTS, *, nodes=None, why=None):
    async def make():
        store = DictStore()
        world = await world_of(store, record, documents)
        return (await put(store, nodes=nodes) if nodes else world), store

    world, store = asyncio.run(make())
    return Shown(world, store, why)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_rows_with_and_without_records(kind):
    assert all("name" in row for row in shown()(kind).values())
    empty = shown(documents=())
    assert list(empty(kind)) == []


def test_a_server():
    row = shown(why="no spare")("server")["shop/web1"]
    expected = {
        "node": "n1", "state": "up", "epoch": 3, "mac": [MAC], "address": ["10.1.0.11"], "image": "web@1", "moves": 0,
        "disk_octets": 1 << 20, "allocated_octets": 4096, "why": "no spare",
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected


def test_a_lan_shows_its_vni_and_its_members():
    rows = shown(msgspec.structs.replace(UP, nics=(VirtualNic(lan="front", mac=MAC, vni=7),)))
    rows.world.lan_records["shop/front"] = LanRecord(6)
    row = rows("lan")["shop/front"]
    assert (row["vni"], row["members"]) == (6, [{"server": "shop/web1", "mac": MAC, "vni": 7, "node": "n1"}])
    assert shown(documents=(LAN,))("lan")["shop/front"]["vni"] is None


def test_a_server_shows_what_its_agent_said_under_its_epoch():
    rows = shown()
    rows.observer.systems["shop/web1"] = System(3, time.monotonic(), "Debian GNU/Linux 12", "6.1.0", ("nginx.service",))
    row = rows.details("server", "shop/web1")
    assert (row["system"], row["kernel"], row["failed_units"]) == ("Debian GNU/Linux 12", "6.1.0", ["nginx.service"])
    rows.observer.systems["shop/web1"] = System(2, 1.0, "what it was before")
    assert "system" not in rows.details("server", "shop/web1")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.FENCING])
def test_states_of_a_server(phase):
    assert state_of(msgspec.structs.replace(UP, phase=phase), None) == {"state": phase.value}


def test_states_that_say_more():
    assert state_of(None, None) == {"state": "new"}
    assert state_of(UP, "silent") == {"state": "dead", "detail": "silent"}
    for step in STEPS:
        fence = Fence("n1", "silent", step, 0.0)
        assert state_of(msgspec.structs.replace(UP, fence=fence), None) == {
            "state": "fencing",
            "detail": f"{step.value} done",
        }


def test_the_states_of_a_node(tmp_path):
    powered = tuple(node(1, tmp_path / "power.sock") if d.label == "n1" else d for d in DOCUMENTS)
    idle = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)
    assert shown()("node")["n1"]["state"] == "in use"
    assert shown()("node")["n2"]["state"] == "spare"
    quarantined = shown(nodes={"n2": NodeRecord(quarantined="smoke")})("node")["n2"]
    assert quarantined["state"] == "quarantined"
    assert quarantined["why"] == "smoke; mend it, then: panloom node release n2"
    assert shown(nodes={"n2": NodeRecord(power_unknown=True)})("node")["n2"]["state"] == "fenced"
    far = shown(idle, powered)
    assert far("node")["n1"]["state"] == "unreachable"
    far.observer.power["n1"] = False
    assert (far("node")["n1"]["state"], far("node")["n1"]["power"]) == ("spare", "off")
    far.observer.waiting["n1"] = time.monotonic()
    assert far("node")["n1"]["why"] == "asks to boot and waits"
    new = Discovered("52:54:00:77:00:99", "10.77.0.200", 1.0, known_at=time.monotonic())
    far.observer.discovered[new.mac] = new
    found = far("node")["52:54:00:77:00:99"]
    assert (found["state"], found["why"]) == (
        "discovered", "asks to boot; take it in: panloom node approve 52:54:00:77:00:99"
    )  # fmt: skip
    far.said[new.mac] = f"{new.mac} is not taken in: no address is free"
    assert far("node")[new.mac]["why"] == far.said.pop(new.mac)
    far.observer.discovered[new.mac] = msgspec.structs.replace(new, known_at=time.monotonic() - 60.0)
    assert "did not fetch its boot script" in far("node")[new.mac]["why"]


def test_the_last_boot_shows_with_its_node():
    rows = shown()
    row = rows("node")["n1"]
    assert "boot" not in asyncio.run(rows.rows.details("node", row, rows.world))
    rows.observer.boots.reached("n1", "power", 10.0)
    rows.observer.boots.reached("n1", "dhcp", 12.5)
    boot = asyncio.run(rows.rows.details("node", row, rows.world))["boot"]
    assert boot["stages"] == [("power", 0.0), ("dhcp", 2.5)]


def test_without_the_storage_process_all_else_is_still_shown():
    rows = shown()
    rows.storage.is_there = False
    assert rows("server")["shop/web1"]["disk_octets"] is None
    volume = rows("volume")["shop/web1"]
    why = "the storage process does not answer"
    assert (volume["state"], volume["statistics"], volume["why"]) == ("unknown", None, why)
    state, parts = rows.status()
    assert (state, parts["storage"]["state"]) == ("failed", "failed")


def test_what_a_disk_has_done_is_told_with_the_latencies_that_most_operations_keep():
    rows = shown()
    row = rows("volume")["shop/web1"]["statistics"]
    assert (row["operations"], row["reads"], row["octets"], row["since"]) == (100, 100, 51200, 1795257067.0)
    assert (row["read_median_seconds"], row["read_p99_seconds"]) == (8e-9, 16e-9)
    assert "read_latency" not in row
    rows.storage.statistics_there = calls.Statistics(())
    unused = rows("volume")["shop/web1"]["statistics"]
    assert (unused["operations"], unused["read_p99_seconds"], unused["since"]) == (0, None, None)


def test_cap_218_what_there_is_one_of_is_not_redundant_and_no_failure():
    state, parts = shown().status()
    assert state == "ok, not redundant"
    assert parts["control nodes"] == {"part": "control nodes", "state": "not redundant", "why": "there is one"}
    assert parts["fabrics"]["state"] == "not redundant"
    assert {part["state"] for part in parts.values()} == {"ok", "not redundant"}


def test_what_is_degraded_is_named():
    waiting = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)
    state, parts = shown(waiting, nodes={"n2": NodeRecord(quarantined="smoke")}).status()
    assert state == "degraded"
    assert parts["nodes"]["why"] == "1 spare; look at n2"
    assert parts["servers"]["why"] == "look at shop/web1 (waiting)"


def test_a_fence_under_way_is_no_waiting():
    fence = Fence("n1", "silent", Step.EPOCH, 0.0)
    fencing = msgspec.structs.replace(UP, phase=Phase.FENCING, fence=fence, since=time.time())
    _, parts = shown(fencing).status()
    assert parts["servers"]["state"] == "ok"
    _, parts = shown(msgspec.structs.replace(fencing, since=time.time() - 60)).status()
    assert parts["servers"]["why"] == "look at shop/web1 (fencing: epoch done)"


def test_a_dead_server_and_one_that_is_held_up_are_looked_at():
    rows = shown()
    rows.observer.dead["shop/web1"] = "n1 is off"
    state, parts = rows.status()
    assert (state, parts["servers"]["why"]) == ("degraded", "look at shop/web1 (dead: n1 is off)")
    _, parts = shown(why="its disk is full").status()
    assert parts["servers"]["why"] == "look at shop/web1 (up)"


def test_a_server_without_a_disk_says_what_it_waits_for():
    waiting = msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)
    rows = shown(waiting, (*DOCUMENTS, Image(name="web", version=1, source="/images/web.img")))
    rows.storage.volumes_there = ()
    assert rows("server")["shop/web1"]["why"] is None  # it is being made
    rows.storage.images_there = ()
    assert rows("server")["shop/web1"]["why"] == "waits for web@1"
    rows.said["web@1"] = "image web@1: /images/web.img: cannot be read"
    assert rows("server")["shop/web1"]["why"] == rows("image")["web@1"]["why"] == rows.said["web@1"]
