"""The edge: open where the platform says, as soon as that is there, and anew where it says something else."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest

from panloom.control import edge as module
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.decide.boot_answer import BootNode, BootTable
from panloom.decide.personality import BEACON_PORT
from panloom.values import MacAddress
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.dict_store import DictStore
from support.namespaces import LoopInside, machines
from support.waiting import until

MAC = "52:54:00:77:00:01"
TABLE = BootTable(
    interface="br1",
    address=IPv4Address("10.77.0.1"),
    subnet=IPv4Network("10.77.0.0/24"),
    discovery=None,
    nodes=(BootNode("n1", MacAddress.parse(MAC), IPv4Address("10.77.0.51"), None),),
    nics=(),
)


class RunningEdge:
    """An edge in a chassis whose platform is told with ``replace``."""

    def __init__(self, chassis, inside):
        self.chassis = chassis
        self.inside = inside
        self.beacons = []
        self.boot_events = []
        self.events = EventLog(DictStore())

    async def start(self):
        self.edge = Edge(
            DictStore(),
            self.events,
            files=None,
            boot_event=self.boot_events.append,
            beacon=lambda octets, at: self.beacons.append(octets),
        )
        self.task = asyncio.create_task(self.edge.run())

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def replace(self, table):
        async def work():
            self.edge.replace(table)

        self.inside.call(work())

    def until_said(self, words):
        return until(lambda: [event for event in self.inside.call(self.events.after(0)) if words in event.text], words)


@pytest.fixture
def running(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    with machines({"n1": MAC}, address="10.66.0.1/24") as chassis, LoopInside(chassis.control) as inside:
        made = RunningEdge(chassis, inside)
        inside.call(made.start())
        try:
            yield made
        finally:
            inside.call(made.stop())


def beacon(running, octets, address="10.77.0.1"):
    with running.chassis.control.socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"br1")
        sock.sendto(octets, (address, BEACON_PORT))


def answers(running):
    with DhcpWire(running.chassis["n1"]) as wire:
        return wire.bind(DhcpClient(MAC, IPXE)).yiaddr


def make_bridge(running, name, address):
    control = running.chassis.control
    control.ip(f"link add {name} type bridge stp_state 0 forward_delay 0")
    control.ip(f"address add {address}/24 dev {name}")
    control.ip(f"link set port-n1 master {name}")
    control.ip(f"link set {name} up")


def test_it_opens_when_the_interface_appears_and_anew_on_another(running):
    running.replace(TABLE)
    running.until_said("cannot open on br1")
    make_bridge(running, "br1", "10.77.0.1")
    running.until_said("open on br1 at 10.77.0.1")
    assert answers(running) == IPv4Address("10.77.0.51")
    # Another table at the same place is answered from at once, without closing anything.
    nodes = (msgspec.structs.replace(TABLE.nodes[0], address=IPv4Address("10.77.0.52")),)
    running.replace(msgspec.structs.replace(TABLE, nodes=nodes))
    assert answers(running) == IPv4Address("10.77.0.52")
    make_bridge(running, "br2", "10.78.0.1")
    nodes = (msgspec.structs.replace(TABLE.nodes[0], address=IPv4Address("10.78.0.51")),)
    elsewhere = {"interface": "br2", "address": IPv4Address("10.78.0.1"), "subnet": IPv4Network("10.78.0.0/24")}
    running.replace(msgspec.structs.replace(TABLE, nodes=nodes, **elsewhere))
    running.until_said("open on br2 at 10.78.0.1")
    assert answers(running) == IPv4Address("10.78.0.51")
    said = [event.text for event in running.inside.call(running.events.after(0)) if "cannot" in event.text]
    assert len(said) == len(set(said))


def test_it_hears_beacons_on_its_interface(running):
    make_bridge(running, "br1", "10.77.0.1")
    running.replace(TABLE)
    running.until_said("open on br1")
    sender = running.chassis["n1"]
    sender.ip("address add 10.77.0.51/24 dev eth0")
    with sender.socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for octets in (b"", b"panloom 1", b"x" * 1400):
            sock.sendto(octets, ("10.77.0.1", BEACON_PORT))
    until(lambda: running.beacons == [b"", b"panloom 1", b"x" * 1400], "all are heard")


def test_a_port_that_another_holds_is_told_once_and_taken_when_it_is_free(running):
    make_bridge(running, "br1", "10.77.0.1")
    holder = running.chassis.control.socket(lambda: socket.create_server(("10.77.0.1", 8080)))
    with holder:
        running.replace(TABLE)
        running.until_said("cannot open on br1")
    running.until_said("open on br1 at")
    assert answers(running) == IPv4Address("10.77.0.51")
