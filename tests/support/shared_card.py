"""A machine whose one card carries a disk and a system's network, beside a control node that serves both.

┌── control ────────────┐         ┌── n1 ────────────┐       ┌── system ──┐
│ br0 10.77.0.1/24      │         │ eth0, no address │       │            │
│     10.1.0.1/24       ╪═ veth ══╪══ SharedNic ─────╪─ tap ─╪─ eth0      │
│ iSCSI target          │         │  └ its own stack │       │            │
└───────────────────────┘         └──────────────────┘       └────────────┘
"""

import asyncio
import contextlib
import itertools
from ipaddress import IPv4Interface
from pathlib import Path

from panloom.fabric.frame_ports import Card
from panloom.fabric.namespaces import within
from panloom.node.shared_nic import SharedNic
from panloom.protocol.shared_nic import ByMac, ByPort, StoragePorts
from panloom.storage.remote_transport import RemoteTransport
from panloom.values import MacAddress
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager
from support.marked_blocks import BLOCK, marked
from support.namespaces import LoopInside, machines, namespace

MAC1, MAC2 = MacAddress.parse("52:54:00:77:00:01"), MacAddress.parse("02:50:4c:00:00:01")
STORAGE, FRONT = IPv4Interface("10.77.0.11/24"), IPv4Interface("10.1.0.11/24")
PORTAL, GATEWAY, PORT = "10.77.0.1", "10.1.0.1", 3260
OTHER_TARGET = "10.77.0.2"
PORTS = range(860, 864)
ISID = bytes.fromhex("00023d000001")
BLOCKS = 2048


class SharedCard:
    """The scene, driven from a test without a loop of its own."""

    def __init__(self, chassis, system, loop, manager, disk):
        self.control, self.machine, self.system = chassis.control, chassis["n1"], system
        self.chassis = chassis
        self.loop = loop
        self.manager, self.disk = manager, disk
        self.steps = []
        self.nic = None
        self._kind = "integration"
        self._load = None
        self._written, self._newest = {}, 0  # block → the number that was answered last

    # ── the card ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, layout, kind="integration", *, by_port=False):
        """Open the card in a layout, and log in; ``kind`` is that of the virtual NICs."""
        self._kind = kind

        async def work():
            rule = StoragePorts(
                MAC1,
                frozenset({STORAGE.ip}),
                frozenset({(IPv4Interface(PORTAL).ip, PORT)}),
                PORTS,
            )
            separation = ByPort(rule) if by_port else ByMac()
            self.nic = SharedNic(
                Card(None, "eth0"),
                separation,
                MAC1,
                STORAGE,
                layout=layout,
                ports=PORTS if by_port else range(0),
                note=lambda step, what: self.steps.append((step, what)),
            )
            await self.nic.disk.log_in((PORTAL, PORT), initiator=INITIATOR, target=TARGET, isid=ISID)

        self.call(work())

    def plug(self, *, mac=MAC2, address=FRONT, system=None, **how):
        """Give the system its interface and an address."""
        system = system or self.system

        async def work():
            return self.nic.plug(Path("/run/netns") / system.name, "eth0", mac, kind=self._kind, **how)

        made = self.call(work())
        system.ip("link set eth0 addrgenmode none")
        if address is not None:
            system.ip(f"address add {address} dev eth0")
        system.ip("link set eth0 up")
        return made

    def unplug(self, stack="os"):
        async def work():
            self.nic.unplug(stack)

        self.call(work())

    def call(self, work, seconds=60.0):
        return self.loop.call(work, seconds=seconds)

    def close(self):
        if self._load is not None:
            self.end_load()
        if self.nic is not None:
            self.call(self.nic.close())

    # ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, lba=0, blocks=1):
        return self.call(self.nic.disk.read(0, lba * BLOCK, blocks * BLOCK))

    def identity(self):
        """Return ISID and TSIH of the one session that the target has, and how often it was logged in to."""
        ((session, connection),) = self.manager.connections.items()
        return session, connection.facts.isid, connection.tsih, self.nic.disk.session.logins

    def counts(self):
        """Return what has passed so far; no frame is half-way then."""

        async def work():
            return self.nic.bus.counts.copy()

        return self.call(work())

    def start_load(self):
        """Write marked blocks without pause, round and round."""
        self.call(self._start_load())

    async def _start_load(self):
        self._written, self._newest = {}, 0
        self._load = self.loop.loop.create_task(self._write())

    async def _write(self):
        for number in itertools.count(1):
            lba = number % BLOCKS
            await self.nic.disk.write(0, lba * BLOCK, marked(lba, number), fua=True)
            self._written[lba] = self._newest = number

    def newest(self):
        """Return the number of the last write that was answered."""
        return self._newest

    def end_load(self):
        """End it; return the numbers of the blocks that do not say what was written last."""

        load, self._load = self._load, None

        async def end():
            load.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await load  # an error of it is raised here

        self.call(end())
        newest = self.newest()
        content = self.disk.content(0, BLOCKS * BLOCK)
        return [
            lba
            for lba, number in self._written.items()
            if content[lba * BLOCK : (lba + 1) * BLOCK] not in (marked(lba, number), marked(lba, newest + 1))
        ]


@contextlib.contextmanager
def shared_card(directory):
    """Make the scene; the card is not opened yet."""
    disk = FileDisk(directory / "disk", BLOCKS)
    manager = FileManager({0: disk}, initiator=INITIATOR)
    with machines({"n1": str(MAC1)}) as chassis, namespace("system") as system:
        chassis.control.ip(f"address add {GATEWAY}/24 dev br0")
        chassis.control.ip(f"address add {OTHER_TARGET}/24 dev br0")
        chassis["n1"].ip("link set eth0 arp off")
        with within(Path("/run/netns") / chassis.control.name):
            transport = RemoteTransport(((PORTAL, PORT), (OTHER_TARGET, PORT)), manager)
            transport.start()
        try:
            with LoopInside(chassis["n1"]) as loop:
                scene = SharedCard(chassis, system, loop, manager, disk)
                try:
                    yield scene
                finally:
                    scene.close()
        finally:
            transport.stop()
