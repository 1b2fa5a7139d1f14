"""What is seen: beacons that prove nothing, silence that proves nothing, floods that are told seldom."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import msgspec

from panloom.control import observer as module
from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.decide.boot_answer import BootEvent
from panloom.decide.records import NodeRecord, Phase
from panloom.errors import UnavailableError
from panloom.storage import calls
from panloom.values import MacAddress
from panloom.wire.beacon import Beacon, digest_of
from support.dict_store import DictStore
from support.waiting_async import eventually
from support.world import DOCUMENTS, PLATFORM, UP, node, put, world_of

SERVER, TARGET = "shop/web1", "iqn.2026-11.dev.panloom:shop.web1"
INITIATOR = "iqn.2026-11.dev.panloom:node.n1"


class Storage:
    """A storage process that says what it is told to, or does not answer."""

    def __init__(self):
        self.sessions = ()
        self.is_there = True
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.events = asyncio.Queue()

    async def status(self):
        await self.goes_on.wait()
        if not self.is_there:
            raise UnavailableError("the storage process does not answer")
        return calls.Status((), self.sessions)

    async def watch(self):
        while True:
            yield await self.events.get()

    def hear(self, at, *, epoch=3, target=TARGET, initiator=INITIATOR, answers_nop=True):
        self.sessions = (
            calls.Session(
                id="1", target=target, initiator=initiator, peer="10.77.0.11:1", epoch=epoch, kind="kernel",
                login_at=at, first_read_at=at, last_heard_at=at, answers_nop=answers_nop, reads=1, writes=0,
                read_octets=512, written_octets=0,
            ),
        )  # fmt: skip


class Seen:
    """An observer of one world, with what it reported."""

    def __init__(self, store):
        self.store = store
        self.storage = Storage()
        self.events = EventLog(DictStore())
        self.observer = Observer(self.storage, Boots(DictStore()), self.events)
        self.wakes = 0
        self.observer.changed = self._wake

    def _wake(self):
        self.wakes += 1

    async def told(self, kind):
        return [event for event in await self.events.after(0) if event.kind == kind]


@asynccontextmanager
async def watching(record=UP, *, run=False):
    seen = Seen(DictStore())
    seen.observer.use(await world_of(seen.store, record))
    task = asyncio.create_task(seen.observer.run()) if run else None
    try:
        yield seen
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def beacon(counter=1, *, epoch=3, key=UP.beacon_key, server=SERVER):
    return Beacon(server, epoch, counter, digest_of(key, server, epoch, counter)).encode()


def test_a_stage_that_the_console_tells_is_one_of_the_server_that_boots_there():
    async def work():
        async with watching() as it:
            for stage in ("dhcp", "script"):
                it.observer.stage("n1", stage, 1.0, server=SERVER, epoch=3)
            it.observer.heard("n1", "PANLOOM stage=kernel t=0.00", 2.0)
            return (await it.told("boot"))[-1]

    told = asyncio.run(work())
    assert (told.text, told.node, told.server, told.epoch) == ("kernel", "n1", SERVER, 3)


def test_a_beacon_under_the_epoch_s_key_is_a_sign_of_life():
    async def scenario():
        async with watching(msgspec.structs.replace(UP, phase=Phase.BOOTING)) as seen:
            seen.observer.beacon(b"<13>Nov 21 11:00:00 panloom: " + beacon(), 100.0)
            assert seen.observer.alive == {SERVER: 3}
            assert [event.text for event in await seen.told("boot")] == ["userland"]
            seen.observer.beacon(beacon(2), 101.0)
            assert len(await seen.told("boot")) == seen.wakes == 1

    asyncio.run(scenario())


def report(counter, text, *, key=UP.beacon_key):
    octets = text.encode()
    return Beacon(SERVER, 3, counter, digest_of(key, SERVER, 3, counter, octets), octets).encode()


def test_what_an_agent_reports_is_a_sign_of_life_and_is_noted():
    async def scenario():
        async with watching() as seen:
            debian = "system=Debian GNU/Linux 12\nkernel=6.1.0\nmemory=536870912\n"
            seen.observer.beacon(report(1, debian + "failed=nginx.service\n"), 100.0)
            found = seen.observer.systems[SERVER]
            assert (found.epoch, found.at, found.system, found.kernel) == (3, 100.0, "Debian GNU/Linux 12", "6.1.0")
            assert seen.observer.alive == {SERVER: 3}
            (told,) = seen.observer.reported.values()
            assert seen.observer.hardware == {}
            assert told.memory_octets == 512 << 20
            for counter, text in ((2, debian + "failed=nginx.service\n"), (3, debian), (3, debian + "failed=x\n")):
                seen.observer.beacon(report(counter, text), 101.0)
            seen.observer.beacon(report(4, "failed=forged\n", key="0000"), 102.0)
            told = [event.text for event in await seen.told("units")]
            assert told == ["failed: nginx.service", "all have mended"]
            assert seen.observer.systems[SERVER].failed_units == ()

    asyncio.run(scenario())


def test_what_failed_again_is_told_again_as_soon_as_it_may_be(monkeypatch):
    async def scenario():
        async with watching() as seen:
            for counter, text in enumerate(("failed=a\n", "", "failed=a\n", "failed=a\n"), start=1):
                seen.observer.beacon(report(counter, text), 100.0 + counter)
            assert [event.text for event in await seen.told("units")] == ["failed: a", "all have mended"]
            monkeypatch.setattr(module, "TELL_AGAIN_SECONDS", 0.0)
            for counter in (5, 6):
                seen.observer.beacon(report(counter, "failed=a\n"), 200.0)
            assert [event.text for event in await seen.told("units")][2:] == ["failed: a"]

    asyncio.run(scenario())


def test_an_agent_that_reports_without_end_changes_hardware_once_a_minute():
    async def scenario():
        async with watching() as seen:
            seen.observer.beacon(report(1, "cores=1\n"), 100.0)
            wakes = seen.wakes
            for counter in range(2, 50):
                seen.observer.beacon(report(counter, f"cores={counter}\n"), 100.0 + counter / 2)
            assert seen.wakes == wakes
            seen.observer.beacon(report(50, "cores=50\n"), 160.0)
            (told,) = seen.observer.reported.values()
            assert (told.cores, seen.wakes) == (50, wakes + 1)

    asyncio.run(scenario())


def test_no_other_datagram_is():
    async def scenario():
        fenced = msgspec.structs.replace(UP, epoch=4, beacon_key="ffee")
        bad = (
            beacon(key="0000"), beacon(epoch=2), beacon(epoch=4), beacon(server="shop/web2"), beacon()[:-1], b"",
            b"panloom 1 shop/web1 3", b"\xff" * 1400, beacon().replace(b"panloom 1", b"panloom 2"),
        )  # fmt: skip
        async with watching(msgspec.structs.replace(UP, phase=Phase.BOOTING)) as seen:
            for octets in bad:
                seen.observer.beacon(octets, 100.0)
            assert (seen.observer.alive, seen.wakes) == ({}, 0)
        async with watching(fenced) as seen:  # what was true before the fence
            seen.observer.beacon(beacon(), 100.0)
            assert seen.observer.alive == {}

    asyncio.run(scenario())


def test_a_recorded_beacon_proves_nothing_once_it_was_heard(caplog):
    async def scenario():
        async with watching() as seen:
            now = time.monotonic() + 100
            seen.observer.beacon(beacon(7), now)
            for counter in (7, 6, 0):
                seen.observer.beacon(beacon(counter), now + 5)
            assert seen.observer.liveness.silence(SERVER, now + 5) == 5.0
            assert [line.getMessage() for line in caplog.records if "heard before" in line.getMessage()] == [
                "beacon=dropped server=shop/web1 epoch=3 why='counter 7 was heard before'"
            ]
            seen.observer.beacon(beacon(8), now + 5)
            assert seen.observer.liveness.silence(SERVER, now + 5) == 0.0

    caplog.set_level(logging.INFO)
    asyncio.run(scenario())


def test_a_session_is_a_sign_of_life_if_it_is_the_node_s_under_the_epoch_and_answers():
    async def scenario():
        others = (
            {"epoch": 2},
            {"initiator": INITIATOR.replace("n1", "n2")},
            {"answers_nop": False},
            {"target": TARGET + ".personality"},
        )
        async with watching(msgspec.structs.replace(UP, phase=Phase.BOOTING), run=True) as seen:
            for other in others:
                seen.storage.hear(time.monotonic(), **other)
                await asyncio.sleep(2 * PLATFORM.liveness.interval_seconds)
                assert seen.observer.alive == {}
            seen.storage.hear(time.monotonic())
            await eventually(lambda: seen.observer.alive == {SERVER: 3}, "it is alive")

    asyncio.run(scenario())


def test_silence_is_death_but_not_while_the_storage_process_is_away(monkeypatch):
    monkeypatch.setattr(module, "ADOPTION_SECONDS", 0.0)
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.2)

    async def scenario():
        async with watching(run=True) as seen:
            progress, began = seen.observer.boots.progress, time.monotonic()
            progress.expect("n2", "web2", began)
            seen.storage.is_there = False
            await eventually(lambda: seen.observer._storage_lost, "it is missed")
            lost = time.monotonic()
            await eventually(lambda: time.monotonic() - lost > 4 * PLATFORM.liveness.timeout_seconds, "time passes")
            assert seen.observer.dead == {}
            seen.storage.is_there = True
            await eventually(lambda: seen.observer.dead, "with the storage process there, silence counts")
            now = time.monotonic()
            assert progress.stalled_seconds("n2", now) < now - began - 4 * PLATFORM.liveness.timeout_seconds
            assert seen.observer.dead == {SERVER: "nothing heard for 0.3 s"}
            assert len(await seen.told("storage lost")) == len(await seen.told("storage back")) == 1

    asyncio.run(scenario())


def test_silence_begins_when_an_initiator_has_had_time_to_come_back(monkeypatch):
    monkeypatch.setattr(module, "ADOPTION_SECONDS", 0.0)

    async def scenario():
        async with watching(run=True) as seen:
            seen.storage.is_there = False
            await eventually(lambda: seen.observer._storage_lost, "it is missed")
            back = time.monotonic()
            seen.storage.is_there = True
            await eventually(lambda: not seen.observer._storage_lost, "it is back")
            assert seen.observer.liveness.silence(SERVER, back + module.RECONNECT_SECONDS) == 0.0
            assert seen.observer.liveness.silence(SERVER, back + module.RECONNECT_SECONDS + 60) > 0.0

    asyncio.run(scenario())


def test_a_server_that_beacons_has_no_grace_left(monkeypatch):
    monkeypatch.setattr(module, "ADOPTION_SECONDS", 1000.0)

    async def scenario():
        async with watching(run=True) as seen:
            seen.storage.hear(time.monotonic())
            seen.observer.beacon(beacon(), time.monotonic())
            await eventually(lambda: seen.observer.dead, "silence counts from its last beacon")

    asyncio.run(scenario())


def test_a_storage_process_that_hangs_makes_nobody_s_silence_a_death(monkeypatch):
    monkeypatch.setattr(module, "ADOPTION_SECONDS", 0.0)

    async def scenario():
        async with watching(run=True) as seen:
            seen.storage.goes_on.clear()  # stopped, or its disk is: it neither answers nor goes away
            stopped = time.monotonic()
            await eventually(lambda: time.monotonic() - stopped > 4 * PLATFORM.liveness.timeout_seconds, "time passes")
            assert (seen.observer.dead, seen.observer._storage_lost) == ({}, False)
            seen.storage.goes_on.set()
            await eventually(lambda: seen.observer.dead, "once it answers, silence counts")

    asyncio.run(scenario())


def test_who_speaks_again_before_it_is_fenced_is_alive():
    async def scenario():
        async with watching() as seen:
            seen.observer._judge_dead(SERVER, "silent")
            seen.observer.sign(SERVER, 3, time.monotonic() - 1)
            assert seen.observer.dead == {SERVER: "silent"}
            seen.observer.sign(SERVER, 3, time.monotonic() + 1)
            assert seen.observer.dead == {}

    asyncio.run(scenario())


def test_a_node_seen_to_go_off_takes_its_server_s_life_and_one_found_off_as_well():
    async def scenario():
        async with watching() as seen:
            for on, at in ((True, 1.0), (True, 2.0), (False, 3.0)):
                seen.observer.set_power("n1", on, at)
            assert seen.observer.dead == {SERVER: "n1 is off"}
            assert [event.text for event in await seen.told("power")] == ["off"]
            seen.observer.set_power("n1", True, 2.5)  # an answer that was overtaken
            assert seen.observer.power == {"n1": False}
        async with watching() as seen:
            seen.observer.set_power("n1", False, 1.0)
            assert seen.observer.dead == {SERVER: "n1 is off"}
            assert await seen.told("power") == []
            seen.observer.set_power("n1", None, 2.0)
            seen.observer.set_power("n1", True, 3.0)
            assert await seen.told("boot") == []

    asyncio.run(scenario())


def test_an_event_from_the_future_does_not_hide_what_comes_after_it():
    async def scenario():
        async with watching() as seen:
            seen.observer.set_power("n1", True, time.monotonic() + 1e6)  # a supervisor whose clock runs ahead
            seen.observer.set_power("n1", False, time.monotonic())
            assert seen.observer.power["n1"] is False

    asyncio.run(scenario())


def test_an_older_world_does_not_take_the_place_of_a_newer_one():
    async def scenario():
        async with watching() as seen:
            old = await world_of(seen.store)
            fresh = msgspec.structs.replace(UP, phase=Phase.FENCING, epoch=4)
            seen.observer.use(await put(seen.store, servers={SERVER: fresh}))
            seen.observer.use(old)
            assert seen.observer.liveness.watched == ()

    asyncio.run(scenario())


def test_a_flood_is_told_seldom_and_what_is_new_is_told():
    async def scenario():
        async with watching() as seen:
            for number in range(500):
                event = BootEvent("refused", 1.0, MacAddress(number % 3), IPv4Address("10.77.0.99"), why="no token")
                seen.observer.boot_event(event)
                refused = calls.Event(
                    "refused", 1.0, TARGET, INITIATOR, None, f"10.77.0.11:{number}", "the epoch is over"
                )
                seen.observer._storage_event(refused)
            assert len(await seen.told("refused")) == 3
            (login,) = await seen.told("login refused")
            assert (login.server, login.node, login.text) == (SERVER, "n1", "the epoch is over")
            for number in range(1000):  # and no number of liars makes it endless
                seen.observer.boot_event(BootEvent("refused", 1.0, MacAddress(number << 8), why="no token"))
            assert len(await seen.told("refused")) == module.MAX_TOLD
            for number in range(1000):  # nor silences who tells of something else
                seen.observer.boot_event(BootEvent("no file", 1.0, why=f"name{number}"))
            seen.observer._storage_event(msgspec.structs.replace(refused, why="the CHAP response is wrong"))
            assert len(await seen.told("login refused")) == 2

    asyncio.run(scenario())


def test_a_spare_that_asks_is_noted_and_a_stranger_is_discovered_once():
    async def scenario():
        async with watching() as seen:
            for at in (5.0, 9.0):
                mac = MacAddress.parse("52:54:00:77:00:02")
                seen.observer.boot_event(BootEvent("waiting", at, mac, IPv4Address("10.77.0.12"), node="n2"))
                stranger = MacAddress.parse("52:54:00:77:00:99")
                seen.observer.boot_event(BootEvent("discovered", at, stranger, IPv4Address("10.77.0.200")))
            assert seen.observer.waiting == {"n2": 9.0}
            assert list(seen.observer.discovered) == ["52:54:00:77:00:99"]
            assert len(await seen.told("waiting")) == len(await seen.told("discovered")) == 1

    asyncio.run(scenario())


def test_a_machine_that_changes_its_mac_makes_nobody_forget_what_happened():
    async def scenario():
        async with watching() as seen:
            seen.events.report("fence complete", "n1 is shut out", server=SERVER)
            honest = MacAddress.parse("52:54:00:77:00:99")
            for number in range(12_000):
                mac = honest if number % 100 == 0 else MacAddress((2 << 40) + number)
                seen.observer.boot_event(BootEvent("discovered", 1.0, mac, IPv4Address("10.77.0.200")))
            assert len(seen.observer.discovered) == module.MAX_DISCOVERED
            assert str(honest) in seen.observer.discovered
            assert len(await seen.told("discovered")) <= module.MAX_TOLD
            assert await seen.told("fence complete")

    asyncio.run(scenario())


def test_who_is_named_by_a_document_by_now_is_no_stranger():
    async def scenario():
        async with watching() as seen:
            event = BootEvent("discovered", 1.0, MacAddress.parse("52:54:00:77:00:02"), IPv4Address("10.77.0.200"))
            seen.observer.boot_event(event)
            seen.observer.use(await put(seen.store, node(2).model_copy(update={"memory_octets": 1})))
            assert seen.observer.discovered == {}

    asyncio.run(scenario())


def test_the_stages_of_a_boot_come_from_all_who_see_it():
    async def scenario():
        async with watching(msgspec.structs.replace(UP, phase=Phase.BOOTING)) as seen:
            ended = []
            seen.observer.logged_in = lambda *login: ended.append(login)
            for kind in ("dhcp", "script"):
                event = BootEvent(kind, 1.0, MacAddress(1), IPv4Address("10.77.0.11"), "n1", SERVER, 3)
                seen.observer.boot_event(event)
            for kind in ("login", "first_read", "login"):
                seen.observer._storage_event(calls.Event(kind, 2.0, TARGET, INITIATOR, "1", "10.77.0.11:1", ""))
            foreign = calls.Event("login", 2.0, TARGET, INITIATOR.replace("n1", "n2"), "1", "10.77.0.12:1", "")
            seen.observer._storage_event(foreign)
            stages = [stage for stage, _ in seen.observer.boots.of("n1").stages]
            assert stages == ["dhcp", "script", "login", "first read", "kernel"]
            assert ended == [(INITIATOR, 3)] * 2
            assert seen.observer.boots.of("n2") is None

    asyncio.run(scenario())


def test_a_fence_of_other_servers_is_not_disturbed_by_one_without_a_platform():
    async def scenario():
        seen = Seen(DictStore())
        seen.observer.use(await put(seen.store, *DOCUMENTS[1:], servers={SERVER: UP}, nodes={"n1": NodeRecord()}))
        assert seen.observer.liveness.watched == (SERVER,)

    asyncio.run(scenario())
