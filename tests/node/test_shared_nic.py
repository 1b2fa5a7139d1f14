"""One card for a disk and a system's network, with real stacks in namespaces: neither feels what the other does."""

import socket
import struct
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from fabric.frames import IPV6, arp, ethernet, tagged, udp
from panloom.errors import KernelError
from panloom.fabric import frame_ports
from panloom.fabric.frame_ports import Card, Tap
from panloom.fabric.namespaces import within
from panloom.fabric.nftables import Nftables
from panloom.node.shared_nic import BusDriver, Part, Step, VirtualNic
from panloom.protocol.shared_nic import ByMac, Dropped, Identity
from panloom.values import MacAddress
from panloom.wire.arp import decode_reply
from support import mixed_frames as made
from support.boot_chassis import FRONT as RANGE
from support.boot_chassis import VIRTUAL_MAC, running_in, server, table
from support.foreign import busybox
from support.lab import OUTGOING, Sniffer
from support.namespaces import namespace
from support.shared_card import (
    FRONT,
    GATEWAY,
    ISID,
    MAC1,
    MAC2,
    OTHER_TARGET,
    PORT,
    PORTAL,
    PORTS,
    STORAGE,
    shared_card,
)
from support.waiting import until

ROUNDS, REMOVALS = 100, 20
NOBODY = IPv4Address("10.1.0.9")
FRONT_RANGE = [RANGE[number] for number in range(10, 20)]
LAYOUTS = pytest.mark.parametrize("layout", ["split", "merged"])
KINDS = pytest.mark.parametrize(
    ("layout", "kind"), [("split", "integration"), ("merged", "integration"), ("split", "passthrough")]
)


@pytest.fixture
def scene(tmp_path):
    with shared_card(tmp_path) as made_scene:
        yield made_scene


def ping(system, address=GATEWAY, *, seconds=1):
    """Whether a machine answers."""
    return system.run(busybox(), "ping", "-c", "1", "-W", str(seconds), address, check=False).returncode == 0


def until_pinged(system, address=GATEWAY):
    until(lambda: ping(system, address), f"{address} answers", seconds=30)


def raw_socket(inside, interface):
    """Return a socket for frames of an interface."""

    def make():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        opened.bind((interface, 0))
        return opened

    return inside.socket(make)


def holds(thing, wanted):
    """Whether an object has one of a class among its own attributes."""
    return any(isinstance(value, wanted) for value in vars(thing).values())


class RecordingBus:
    """What a virtual NIC needs of the rest: somebody who takes frames."""

    name = "recorder"

    def __init__(self):
        self.frames = []
        self.deliver = None

    def attach(self, identity, deliver, kind):
        self.deliver = deliver

    def detach(self, stack):
        self.deliver = None

    def follow(self, stack, told):
        pass

    def send(self, stack, frame):
        self.frames.append((stack, frame.octets))


@KINDS
def test_cap_004_the_virtual_nic_is_an_ordinary_one_to_the_system(scene, layout, kind):
    scene.open(layout, kind)
    nic = scene.plug()
    shown = scene.system.run("ip", "link", "show", "eth0").stdout.decode()
    assert str(MAC2) in shown
    assert "mtu 1500" in shown
    assert ",UP" in shown
    listener = scene.control.socket(lambda: socket.create_server((GATEWAY, 80)))
    with listener, scene.system.socket(lambda: socket.create_connection((GATEWAY, 80), 10)) as visitor:
        answering, _ = listener.accept()
        with answering:
            for octet in b"shared":
                visitor.sendall(bytes([octet]) * 20_000)  # in segments that nobody has cut or summed yet
                received = b""
                while len(received) < 20_000:
                    received += answering.recv(1 << 16)
                assert received == bytes([octet]) * 20_000
    assert not holds(nic, Card)
    assert holds(scene.nic.bus, Card)


def test_cap_004_the_virtual_driver_needs_an_interface_to_hand_frames_to_and_no_card(scene):
    bus = RecordingBus()

    async def make():
        return VirtualNic(bus, Path("/run/netns") / scene.system.name, "eth0", Identity("os", MAC2), mtu=1400)

    nic = scene.call(make())
    scene.system.ip(f"address add {FRONT} dev eth0")
    scene.system.ip("link set eth0 up")
    scene.system.run(busybox(), "ping", "-c", "1", "-W", "1", GATEWAY, check=False)
    until(lambda: any(octets[12:14] == b"\x08\x06" for _, octets in bus.frames), "the system asks for its peer")
    assert {stack for stack, _ in bus.frames} == {"os"}

    async def close():
        nic.close()

    scene.call(close())
    assert scene.system.run("ip", "link", "show", "eth0", check=False).returncode != 0
    assert bus.deliver is None


@KINDS
def test_cap_005_the_virtual_nic_goes_and_comes_and_the_disk_does_not_notice(scene, layout, kind):
    """A hundred times down and up, twenty times deleted by the system and plugged in again, under a write load."""
    scene.open(layout, kind)
    scene.plug()
    until_pinged(scene.system)
    before = scene.identity()
    scene.start_load()
    for number in range(ROUNDS):
        scene.system.ip("link set eth0 down")
        newest = scene.newest()
        until(lambda newest=newest: scene.newest() > newest, "the load goes on", seconds=30)
        scene.system.ip("link set eth0 up")
        if number % (ROUNDS // REMOVALS) == 0:
            scene.system.ip("link del eth0")
            until(lambda: "os" not in scene.nic.bus._stacks, "it is noticed")
            scene.plug()
    until_pinged(scene.system)
    scene.unplug()
    assert scene.end_load() == []
    assert scene.newest() > ROUNDS
    assert scene.identity() == before
    assert before[1] == ISID


@KINDS
def test_cap_006_a_nic_that_is_down_cuts_the_network_and_not_the_disk(scene, layout, kind):
    scene.open(layout, kind)
    scene.plug()
    until_pinged(scene.system)
    scene.system.ip("link set eth0 down")
    before = scene.counts()
    for lba in range(20):
        scene.read(lba)
    scene.control.run(busybox(), "ping", "-c", "1", "-W", "1", str(FRONT.ip), check=False)
    passed = scene.counts() - before
    assert (passed["os", "in"], passed["os", "out"]) == (0, 0)
    assert passed["storage", "in"] >= 20
    assert passed["storage", "out"] >= 20
    assert not ping(scene.system)


@LAYOUTS
def test_cap_002_the_disk_needs_no_address_of_the_systems(scene, layout):
    scene.open(layout)
    scene.plug()
    until_pinged(scene.system)
    before = scene.identity()
    scene.system.ip("address flush dev eth0")
    scene.system.ip("address flush dev lo")
    assert scene.read(0, 16) == bytes(16 * 512)
    assert scene.identity() == before


@KINDS
def test_cap_007_frames_reach_the_stack_whose_mac_they_bear(scene, layout, kind):
    scene.open(layout, kind)
    scene.plug()
    kinds = {MAC1: 0x88B5, MAC2: 0x88B6, MacAddress.from_octets(made.STRANGER): 0x88B7}
    at_storage = Sniffer(_StorageStack(scene), "storage0", _is_made_up)
    at_system = Sniffer(scene.system, "eth0", _is_made_up)
    wire = raw_socket(scene.control, "br0")
    with wire:
        for mac, kind in kinds.items():
            for number in range(10):
                wire.send(ethernet(made.PEER, kind, bytes([number]), destination=mac.to_octets()))
        until(lambda: len(at_storage.seen) >= 10 and len(at_system.seen) >= 10, "both have theirs")
        until(lambda: scene.nic.bus.separation.drops[Dropped.FOREIGN] >= 10, "the others are counted")
    for sniffer, mac in ((at_storage, MAC1), (at_system, MAC2)):
        frames = [frame for _, frame in sniffer.close()]
        assert {frame[:6] for frame in frames} == {mac.to_octets()}
        assert [frame[14] for frame in frames] == list(range(10))


class _StorageStack:
    """The namespace of the disk's own stack, for a sniffer."""

    def __init__(self, scene):
        self._scene = scene

    def socket(self, make):
        async def work():
            with within(self._scene.nic.disk._namespace):
                return make()

        return self._scene.call(work())


def _is_made_up(frame, _direction):
    return frame[12:13] == b"\x88"


@LAYOUTS
def test_cap_008_each_address_is_answered_for_by_its_own_mac(scene, layout):
    scene.open(layout)
    scene.plug()
    answers = Sniffer(scene.control, "br0", lambda frame, _: frame[12:14] == b"\x08\x06" and frame[21] == 2)
    asker = bytes.fromhex(scene.control.mac("br0").replace(":", ""))
    wire = raw_socket(scene.control, "br0")
    with wire:
        for address, own in ((STORAGE, PORTAL), (FRONT, GATEWAY)):
            for _ in range(3):
                wire.send(arp(asker, asker, IPv4Interface(own).ip, address.ip))
        until(lambda: len(answers.seen) >= 6, "six answers")
    found = [decode_reply(frame) for _, frame in answers.close()]
    assert {(reply.sender, reply.sender_mac) for reply in found} == {(STORAGE.ip, MAC1), (FRONT.ip, MAC2)}


@LAYOUTS
def test_cap_009_separated_by_port_two_stacks_have_one_address(scene, layout):
    scene.open(layout, by_port=True)
    scene.plug(mac=MAC1, address=STORAGE)
    before = scene.identity()
    until_pinged(scene.system, PORTAL)
    (connection,) = scene.manager.connections.values()
    assert int(connection.facts.peer.rsplit(":", 1)[1]) in PORTS
    for port in PORTS:
        with pytest.raises(OSError, match="in use"):
            scene.system.socket(lambda port=port: socket.create_server(("", port)))
    # The same target for the system, and one that is not listed, at the same port: its own connections.
    for target in (PORTAL, OTHER_TARGET):
        with scene.system.socket(lambda target=target: socket.create_connection((target, PORT), 10)) as connected:
            assert connected.getsockname()[0] == str(STORAGE.ip)
            assert connected.getsockname()[1] not in PORTS
    scene.start_load()
    scene.system.ip("link set eth0 down")
    newest = scene.newest()
    until(lambda: scene.newest() > newest + 20, "the load goes on", seconds=30)
    assert not ping(scene.system, PORTAL)
    scene.control.ip("neigh flush dev br0")  # somebody has to answer for the address, and the system cannot
    until(lambda: scene.newest() > newest + 60, "the load goes on", seconds=30)
    scene.system.ip("link set eth0 up")
    until_pinged(scene.system, PORTAL)
    assert scene.end_load() == []
    assert scene.identity() == before


def test_cap_009_fragments_of_the_disks_packets_reach_its_stack(scene):
    scene.open("split", by_port=True)
    scene.plug(mac=MAC1, address=STORAGE)
    at_storage = Sniffer(_StorageStack(scene), "storage0", lambda frame, way: way != OUTGOING and _is_fragment(frame))
    at_system = Sniffer(scene.system, "eth0", lambda frame, way: way != OUTGOING and _is_fragment(frame))
    ours = made.fragments(77, b"z" * 90, destination=MAC1.to_octets(), theirs=PORT, ours=PORTS[-1])
    other = made.fragments(78, b"z" * 90, destination=MAC1.to_octets(), theirs=PORT, ours=40000)
    wire = raw_socket(scene.control, "br0")
    with wire:
        for frame in (*reversed(ours), *other):
            wire.send(frame)
        until(lambda: len(at_storage.seen) >= len(ours) and len(at_system.seen) >= len(other), "all fragments")
    assert {frame for _, frame in at_storage.close()} == set(ours)
    assert [frame for _, frame in at_system.close()] == other


def _is_fragment(frame):
    return frame[12:14] == b"\x08\x00" and frame[18:20] in (struct.pack("!H", 77), struct.pack("!H", 78))


def test_a_storage_port_that_the_system_has_is_told(scene):
    scene.open("split", by_port=True)
    taken = scene.system.socket(lambda: socket.create_server(("", PORTS[1])))
    with taken, pytest.raises(KernelError, match=f"TCP port {PORTS[1]}"):
        scene.plug(mac=MAC1)
    scene.plug(mac=MAC1, address=STORAGE)


@LAYOUTS
def test_cap_011_split_is_two_objects_and_merged_is_one(scene, layout):
    scene.open(layout)
    scene.plug()
    driver = Part("storage driver", "eth0", None)
    assert (
        scene.nic.parts()
        == {
            "split": (
                Part("bus driver", "eth0", None),
                Part("storage driver", None, "bus driver"),
                Part("virtual NIC eth0", None, "bus driver"),
            ),
            "merged": (driver, Part("virtual NIC eth0", None, "storage driver")),
        }[layout]
    )
    objects = [scene.nic.bus, scene.nic.disk, scene.nic._nics["os"]]
    assert [holds(one, Card) for one in objects] == [True, layout == "merged", False]
    assert scene.nic._nics["os"]._bus is (scene.nic.disk if layout == "merged" else scene.nic.bus)
    assert (scene.nic.bus is scene.nic.disk) == (layout == "merged")


@LAYOUTS
def test_cap_012_a_read_and_an_echo_show_the_five_steps(scene, layout):
    scene.open(layout)
    sniffer = Sniffer(scene.control, "br0", lambda frame, _: frame[12:14] == b"\x08\x00")
    del scene.steps[:]
    scene.plug()
    assert (Step.OFFER, "os") in scene.steps
    del scene.steps[:]
    scene.read(8, 2)
    steps = scene.steps[scene.steps.index((Step.ENCAPSULATE, "READ of 1024 octets at 4096 of unit 0")) :]
    sent = steps.index((Step.SEND_COMMAND, "storage"))
    assert (Step.DISTINGUISH, "storage") in steps[sent:]
    del scene.steps[:]
    until_pinged(scene.system)
    assert (Step.SEND_NETWORK, "os") in scene.steps
    assert (Step.DISTINGUISH, "os") in scene.steps
    frames = [frame for _, frame in sniffer.close()]
    reads = [frame for frame in frames if _read_of(frame) == (8, 2)]
    echoes = [frame for frame in frames if frame[23] == 1 and frame[34] in (0, 8)]
    assert [frame[6:12] for frame in reads] == [MAC1.to_octets()]
    assert {frame[34] for frame in echoes} == {0, 8}
    assert {frame[6:12] for frame in echoes if frame[34] == 8} == {MAC2.to_octets()}


def _read_of(frame):
    """Return LBA and blocks of an iSCSI READ(10) in a frame, None for anything else."""
    tcp = frame[34:]
    if frame[23] != 6 or tcp[2:4] != struct.pack("!H", PORT):
        return None
    pdu = tcp[(tcp[12] >> 4) * 4 :]
    if len(pdu) < 48 or pdu[0] & 0x3F != 1 or pdu[32] != 0x28:
        return None
    return struct.unpack_from("!IxH", pdu, 34)


def test_cap_020_elements_share_a_platforms_card_and_go_without_a_trace(scene):
    """Three elements under one MAC, told apart by their addresses; a fourth with a MAC of its own."""
    scene.open("split")
    with namespace("e1") as one, namespace("e2") as two, namespace("e3") as three, namespace("e4") as four:
        shared = {one: "10.1.0.21/24", two: "10.1.0.22/24", three: "10.1.0.23/24"}
        for number, (system, address) in enumerate(shared.items(), start=1):
            interface = IPv4Interface(address)
            scene.plug(system=system, address=interface, stack=f"e{number}", addresses=[interface.ip])
        own = MacAddress.parse("02:50:4c:00:00:04")
        scene.plug(system=four, address=IPv4Interface("10.1.0.24/24"), stack="e4", mac=own)
        before = scene.identity()
        scene.start_load()
        listeners = {}
        for system, address in (*shared.items(), (four, "10.1.0.24/24")):
            until_pinged(system)
            listeners[address] = system.socket(lambda: socket.create_server(("", 80)))
        visitor = scene.control.socket(lambda: socket.create_connection(("10.1.0.21", 80), 10))
        staying, _ = listeners["10.1.0.21/24"].accept()
        for _ in range(3):
            scene.unplug("e2")
            visitor.sendall(b"still there?")
            assert staying.recv(100) == b"still there?"
            assert not ping(scene.control, "10.1.0.22")
            scene.plug(
                system=two, address=IPv4Interface(shared[two]), stack="e2", addresses=[IPv4Interface(shared[two]).ip]
            )
            until_pinged(two)
        for sock in (visitor, staying, *listeners.values()):
            sock.close()
        assert scene.end_load() == []
        assert scene.identity() == before
        neighbours = scene.control.run("ip", "neigh", "show", "dev", "br0").stdout.decode()
        assert f"10.1.0.21 lladdr {MAC2}" in neighbours
        assert f"10.1.0.24 lladdr {own}" in neighbours


@LAYOUTS
def test_cap_021_any_protocol_passes_the_virtual_nic_unchanged(scene, layout):
    scene.open(layout)
    scene.plug(address=None)
    mine = MAC2.to_octets()
    theirs = made.PEER
    coming = [
        udp(theirs, NOBODY, FRONT.ip, 1000, 2000, b"longer than any padding", destination=mine),
        made.to(mine, IPV6, made.ipv6(made.TARGET6, made.OURS6, 59, b"nothing")),
        arp(theirs, theirs, made.TARGET, FRONT.ip),
        made.to(mine, 0x88B5, b"made up"),
        made.llc(mine),
        tagged(made.to(mine, 0x88B5, b"tagged")),
    ]
    going = [mine.join((frame[:6].replace(mine, theirs), frame[12:])) for frame in coming]
    directions = (
        ((scene.control, "br0"), (scene.system, "eth0"), coming),
        ((scene.system, "eth0"), (scene.control, "br0"), going),
    )
    for (sender, outlet), (receiver, inlet), frames in directions:
        listener = receiver.socket(lambda inlet=inlet: Card(None, inlet))
        wire = raw_socket(sender, outlet)
        with wire, closing(listener):
            for frame in frames:
                wire.send(frame)
            missing = list(frames)

            def arrive(listener=listener, missing=missing):
                while (frame := listener.receive()) is not None:
                    if frame.octets in missing:
                        missing.remove(frame.octets)
                return not missing

            until(arrive, f"all frames pass to {inlet}, tags included")


def test_cap_021_a_pxe_exchange_passes_the_virtual_nic(scene, tmp_path):
    """DHCP with the vendor class of PXE (option 60), by MAC 2, from the boot services."""
    scene.open("split")
    scene.plug(address=None)
    script = tmp_path / "bound"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && echo "$ip" > {tmp_path}/leased\nexit 0\n')
    script.chmod(0o755)
    asked = Sniffer(scene.control, "br0", lambda frame, _: b"\x3c\x20PXEClient:Arch:00000:UNDI:002001" in frame)
    with running_in(scene.chassis, tmp_path, table(n1=server(chap=False))):
        done = scene.system.run(
            *(busybox(), "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-t", "10", "-T", "1", "-s", script),
            *("-V", "PXEClient:Arch:00000:UNDI:002001"),
        )
    assert done.returncode == 0
    assert IPv4Address((tmp_path / "leased").read_text().strip()) in FRONT_RANGE
    assert {frame[6:12] for _, frame in asked.close()} == {VIRTUAL_MAC.to_octets()}


def _drop_everything(system):
    """Set a firewall that lets nothing pass."""
    table = {"family": "inet", "name": "worst"}
    kind = {"family": "inet", "table": "worst", "type": "filter", "prio": 0, "policy": "drop"}
    chains = [{"add": {"chain": {**kind, "name": hook, "hook": hook}}} for hook in ("input", "output")]
    firewall = Nftables(Path("/run/netns") / system.name)
    firewall.run({"nftables": [{"add": {"table": table}}, *chains]})
    firewall.close()


@LAYOUTS
def test_cap_018_a_wrong_address_route_or_firewall_is_no_fatal_error(scene, layout):
    scene.open(layout)
    scene.plug()
    until_pinged(scene.system)
    before = scene.identity()
    scene.start_load()
    misuses = (
        lambda: scene.system.ip(f"address add {PORTAL}/32 dev eth0"),
        lambda: scene.system.ip(f"address add {STORAGE} dev eth0"),
        lambda: scene.system.ip("route add blackhole 10.77.0.0/25"),
        lambda: scene.system.ip("link set eth0 mtu 68"),
        lambda: scene.system.ip("link set eth0 arp off"),
        lambda: _drop_everything(scene.system),
    )
    for misuse in misuses:
        misuse()
        newest = scene.newest()
        until(lambda newest=newest: scene.newest() > newest + 5, "the load goes on", seconds=30)
        assert len(scene.read(0, 16)) == 16 * 512
    assert not ping(scene.system)
    assert scene.end_load() == []
    assert scene.identity() == before


def link_of(inside, interface):
    """Return carrier, MTU and speed of an interface that is up, as its kernel tells them."""
    told = (f"/sys/class/net/{interface}/{fact}" for fact in ("carrier", "mtu", "speed"))
    return tuple(int(word) for word in inside.run("cat", *told).stdout.split())


def set_speed(inside, interface, speed):
    with inside.socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
        frame_ports._set_speed(asker, interface.encode(), speed)


def test_cap_208_passed_through_the_cards_link_is_the_virtual_nics(scene):
    scene.open("split", "passthrough")
    scene.plug()
    assert link_of(scene.system, "eth0") == link_of(scene.machine, "eth0") == (1, 1500, 10_000)  # a veth says 10 Gbit/s
    scene.machine.ip("link set eth0 mtu 1400")
    until(lambda: link_of(scene.system, "eth0") == (1, 1400, 10_000), "the MTU is the card's")
    scene.system.ip("link set eth0 down")
    scene.system.ip("link set eth0 name lan")
    scene.system.ip("link set lan up")
    scene.control.ip("link set port-n1 down")
    until(lambda: link_of(scene.system, "lan")[0] == 0, "no carrier")
    scene.machine.ip("link set eth0 mtu 1500")
    scene.control.ip("link set port-n1 up")
    until(lambda: link_of(scene.system, "lan") == (1, 1500, 10_000), "carrier and MTU are there again")
    until_pinged(scene.system)


def test_cap_208_as_a_layer_of_the_system_the_virtual_nic_has_a_link_of_its_own(scene):
    scene.open("split", "integration")
    scene.plug()
    set_speed(scene.system, "eth0", 100)
    own = link_of(scene.system, "eth0")
    assert own == (1, 1500, 100)
    scene.machine.ip("link set eth0 mtu 1400")
    scene.control.ip("link set port-n1 down")
    until(lambda: link_of(scene.machine, "eth0")[:2] == (0, 1400), "the card's link is another")
    assert link_of(scene.system, "eth0") == own
    scene.control.ip("link set port-n1 up")
    until_pinged(scene.system)
    assert link_of(scene.system, "eth0") == own


def test_cap_208_a_speed_that_is_set_on_the_card_is_the_virtual_nics(scene):
    """Of a card whose speed can be set, as a veth's cannot."""
    with namespace("lower") as lower:
        where = Path("/run/netns") / lower.name

        async def make():
            below = Tap(where, "eth0", MAC1)
            lower.ip("link set eth0 up")
            bus = BusDriver(Card(where, "eth0"), ByMac())
            nic = VirtualNic(
                bus, Path("/run/netns") / scene.system.name, "eth0", Identity("os", MAC2), mtu=1500, kind="passthrough"
            )
            return below, bus, nic

        below, bus, nic = scene.call(make())
        scene.system.ip("link set eth0 up")
        for speed in (1000, 100_000):
            set_speed(lower, "eth0", speed)
            lower.ip("link set eth0 down")  # a real card loses its carrier meanwhile
            lower.ip("link set eth0 up")
            until(lambda speed=speed: link_of(scene.system, "eth0") == (1, 1500, speed), f"{speed} Mbit/s")

        async def close():
            for part in (nic, bus, below):
                part.close()

        scene.call(close())
