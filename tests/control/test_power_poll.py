"""Asking for power: who answers is asked again and again, whoever else hangs, and who is gone is asked no more."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from panloom.control import power_poll as module
from panloom.control.boots import Boots
from panloom.control.events import EventLog
from panloom.control.observer import Observer
from panloom.control.power_poll import PowerPoll
from panloom.model.resources import IpmiPower, Node, ScriptPower, SocketPower
from panloom.values import MacAddress
from support.dict_store import DictStore
from support.waiting_async import eventually
from support.world import DOCUMENTS, PLATFORM, node, put


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "PROGRAM_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)


def machine(number, power):
    return Node(
        name=f"n{number}", mac=MacAddress(number), address=IPv4Address(0x0A4D0000 + number), port="", memory_octets=1,
        power=power,
    )  # fmt: skip


def socket(number, path="a.sock"):
    return machine(number, SocketPower(path=path, name=f"n{number}"))


def controller(number):
    address = IPv4Address(0x0A090000 + number)
    return machine(number, IpmiPower(address=address, user="panloom", password_file="/nowhere"))


class Drivers:
    """Counts how often each node is asked; those in ``hang`` never answer."""

    def __init__(self, hang=()):
        self.hang = set(hang)
        self.asked = {}
        self.at_once = 0
        self.most_at_once = 0
        self.unanswered = []
        self.poll = PowerPoll(self.ask, lambda node: self.unanswered.append(node.name))

    async def ask(self, node):
        self.asked[node.name] = self.asked.get(node.name, 0) + 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (asyncio.Event().wait() if node.name in self.hang else asyncio.sleep(0))
        finally:
            self.at_once -= 1

    def often(self, *names):
        return all(self.asked.get(name, 0) >= 5 for name in names)


@asynccontextmanager
async def asking(drivers, *nodes):
    drivers.poll.use(nodes)
    task = asyncio.create_task(drivers.poll.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert drivers.at_once == 0


def test_one_that_hangs_keeps_nobody_waiting():
    async def scenario():
        drivers = Drivers(hang=["n1"])
        async with asking(drivers, *map(socket, range(1, 9))):
            await eventually(lambda: drivers.often(*(f"n{number}" for number in range(2, 9))), "all others are asked")
            assert drivers.asked["n1"] == 1
            await eventually(lambda: drivers.unanswered == ["n1"], "it is told of")

    asyncio.run(scenario())


def test_programs_are_asked_less_often_than_sockets(monkeypatch):
    monkeypatch.setattr(module, "PROGRAM_POLL_SECONDS", 3600.0)

    async def scenario():
        drivers = Drivers()
        programs = machine(2, ScriptPower(path="/nowhere", name="n2")), controller(3)
        async with asking(drivers, socket(1), *programs):
            await eventually(lambda: drivers.often("n1") and len(drivers.asked) == 3, "the socket is asked")
            assert (drivers.asked["n2"], drivers.asked["n3"]) == (1, 1)

    asyncio.run(scenario())


def test_many_that_hang_keep_those_of_others_from_nothing():
    async def scenario():
        many = 2 * module.MAX_CALLS
        drivers = Drivers(hang=[f"n{number}" for number in range(many)])
        others = socket(many, "b.sock"), controller(many + 1)
        async with asking(drivers, *map(socket, range(many)), *others):
            await eventually(lambda: drivers.often(*(other.name for other in others)), "all others are asked")
            await eventually(lambda: len(set(drivers.unanswered)) == many, "those too that wait for a free call")
            assert drivers.most_at_once <= module.MAX_CALLS + len(others)

    asyncio.run(scenario())


def test_who_is_new_is_asked_at_once_who_changed_anew_and_who_is_gone_never():
    async def scenario():
        drivers = Drivers(hang=["n1", "n2"])
        async with asking(drivers, socket(1), socket(2), machine(3, None)):
            await eventually(lambda: drivers.asked == {"n1": 1, "n2": 1}, "both are asked")
            drivers.poll.use([socket(1, "b.sock"), socket(4)])
            await eventually(lambda: drivers.often("n4"), "the new one is asked")
            assert drivers.asked["n1"] == 2
            assert drivers.at_once == 1
            drivers.poll.use([socket(5)])
            await eventually(lambda: drivers.asked.get("n5"), "only the newest is asked")
            before = {name: drivers.asked[name] for name in ("n1", "n2", "n4")}
            await eventually(lambda: drivers.often("n5"), "again and again")
            assert {name: drivers.asked[name] for name in ("n1", "n2", "n4")} == before

    asyncio.run(scenario())


def test_a_supervisor_that_hangs_leaves_the_others_nodes_known_and_its_own_unknown(tmp_path):
    async def never(reader, writer):
        await reader.read()
        writer.close()

    async def well(reader, writer):
        while await reader.readline():
            writer.write(b'{"id":1,"ok":{"power":"on"}}\n')
            await writer.drain()
        writer.close()

    async def scenario():
        hanging, answering = tmp_path / "a.sock", tmp_path / "b.sock"
        servers = [await asyncio.start_unix_server(never, hanging), await asyncio.start_unix_server(well, answering)]
        observer = Observer(None, Boots(DictStore()), EventLog(DictStore()))
        observer.use(await put(DictStore(), PLATFORM, node(1, hanging), node(2, answering), *DOCUMENTS[3:]))
        polling = asyncio.create_task(observer._power_poll.run())
        await eventually(lambda: observer.power == {"n1": None, "n2": True}, "what can be known is known")
        for task in (polling, *observer._supervisors.values()):
            task.cancel()
        await asyncio.gather(polling, *observer._supervisors.values(), return_exceptions=True)
        for server in servers:
            server.close()

    asyncio.run(scenario())
