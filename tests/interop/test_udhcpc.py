"""busybox udhcpc, and frames read octet by octet, against the real boot services: the two scopes of one machine."""

import signal
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest

from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType, Option
from support.boot_chassis import FRONT, MACS, SECRET, VIRTUAL_MAC, boot_services, running_in, server, table
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.foreign import busybox
from support.namespaces import Namespace, machines
from support.waiting import until

N1, N2 = IPv4Address("10.77.0.51"), IPv4Address("10.77.0.52")
FRONT_RANGE = [FRONT[number] for number in range(10, 20)]
BOOT_OPTIONS = {Option.ROOT_PATH, Option.IPXE_INITIATOR, Option.BOOT_FILE_NAME, Option.TFTP_SERVER_NAME}


def start_udhcpc(machine: Namespace, directory: Path, interface: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start udhcpc on an interface; what it is given lands in ``directory/INTERFACE.bound``."""
    script = directory / f"{interface}.sh"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1" = bound ] && ip address replace "$ip/$mask" dev "$interface"\n'
        f'cd "{directory}" && env > {interface}.new && mv {interface}.new {interface}.$1\n'
    )
    script.chmod(0o755)
    wanted = [word for option in ("rootpath", "bootfile", "router", "dns", "domain", "203") for word in ("-O", option)]
    command = ["udhcpc", "-f", "-n", "-i", interface, "-t", "5", "-T", "1", "-s", str(script), *wanted, *arguments]
    return machine.start(busybox(), *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def given_to(directory: Path, interface: str = "eth0") -> dict[str, str]:
    """Return the variables that udhcpc's script was bound with."""
    lines = (directory / f"{interface}.bound").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def udhcpc(machine: Namespace, directory: Path, *arguments: str, interface: str = "eth0") -> dict[str, str] | None:
    """Run udhcpc once; return what it was given, None if nothing."""
    bound = directory / f"{interface}.bound"
    bound.unlink(missing_ok=True)
    start_udhcpc(machine, directory, interface, "-q", *arguments).wait(30)
    return given_to(directory, interface) if bound.exists() else None


def add_virtual_nic(machine: Namespace) -> None:
    """Give a machine its second identity on the same cable."""
    machine.ip(f"link add link eth0 os0 address {VIRTUAL_MAC} type macvlan")
    machine.ip("link set os0 up")


def with_nic(**changes):
    """Return a table of n1 as shop/web1, its NIC changed."""
    return msgspec.structs.replace(
        table(n1=server(chap=False)), nics=(msgspec.structs.replace(table().nics[0], **changes),)
    )


@pytest.fixture
def services(tmp_path):
    with boot_services(tmp_path, table(n1=server(chap=False))) as running:
        yield running


def test_cap_022_scope_1_is_one_address_for_one_mac(services, tmp_path):
    chassis = services.chassis
    add_virtual_nic(chassis["n1"])
    assert [udhcpc(chassis["n1"], tmp_path)["ip"] for _ in range(2)] == [str(N1)] * 2
    # Nobody else is ever given it: neither for asking, nor while its owner is away.
    with DhcpWire(chassis["n1"], "eth0") as wire:
        others = (DhcpClient(MACS["n2"]), DhcpClient(VIRTUAL_MAC), DhcpClient(MACS["stranger"], IPXE))
        for other in others:
            assert wire.ask(other.discover(N1)).yiaddr != N1
            assert wire.ask(other.reboot(N1)).message_type is MessageType.NAK
        owner = DhcpClient(MACS["n1"])
        wire.bind(owner)
        wire.send(dhcp.encode(owner.release()), owner.mac)
        services.wait_for("released")
        for other in others:
            assert wire.ask(other.discover(N1)).yiaddr != N1
        assert wire.bind(owner).yiaddr == N1


def test_cap_023_a_hardware_mac_never_has_an_address_of_scope_2(services, tmp_path):
    chassis, nic = services.chassis, DhcpClient(VIRTUAL_MAC)
    with DhcpWire(chassis["n1"]) as wire:
        assert wire.bind(nic).yiaddr in FRONT_RANGE
        hardware = DhcpClient(MACS["n1"], IPXE)
        assert wire.ask(hardware.discover(FRONT_RANGE[3])).yiaddr == N1
        assert wire.ask(hardware.reboot(FRONT_RANGE[3])).message_type is MessageType.NAK
        # Busy: n2's address was acknowledged to n1 before the documents were swapped round.
        wire.bind(hardware)
        swapped = table(n1=server(chap=False))
        nodes = tuple(msgspec.structs.replace(node, address={N1: N2, N2: N1}[node.address]) for node in swapped.nodes)
        services.replace(msgspec.structs.replace(swapped, nodes=nodes))
        second = DhcpClient(MACS["n2"], IPXE)
        assert wire.is_unanswered(second.discover(), nic)
        assert wire.is_unanswered(second.discover(FRONT_RANGE[3]), nic)
        assert services.wait_for("refused").why
        # Disabled: the machines are in no document any more; they are strangers, and scope 2 stays shut to them.
        services.replace(msgspec.structs.replace(swapped, nodes=()))
        for client in (hardware, second):
            assert str(wire.ask(client.discover(FRONT_RANGE[3])).yiaddr).startswith("10.77.0.20")
        services.replace(msgspec.structs.replace(swapped, nodes=(), discovery=None))
        for client in (hardware, second):
            # Its address is asked for on the wire before it is offered, as that of the others would be.
            later = DhcpClient(VIRTUAL_MAC, {Option.CLIENT_IDENTIFIER: str(client.mac).encode()})
            assert wire.is_unanswered(client.discover(FRONT_RANGE[3]), later)
    acknowledged = [event for event in services.events if event.kind in ("dhcp", "discovered")]
    assert not [event for event in acknowledged if event.mac == hardware.mac and event.address in FRONT]


def test_cap_023_scope_2_goes_to_the_virtual_mac(services, tmp_path):
    add_virtual_nic(services.chassis["n1"])
    assert IPv4Address(udhcpc(services.chassis["n1"], tmp_path, interface="os0")["ip"]) in FRONT_RANGE


def test_cap_024_a_virtual_mac_has_an_address_for_each_client_identifier(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    given = []
    for identifier in ("0x3d:01aa", "0x3d:ff0000000100", "0x3d:00706f64"):
        given.append(IPv4Address(udhcpc(machine, tmp_path, "-x", identifier, interface="os0")["ip"]))
        machine.ip("address flush dev os0")
    assert len({*given} & {*FRONT_RANGE}) == 3
    with DhcpWire(machine) as wire:
        clients = [
            DhcpClient(VIRTUAL_MAC, {Option.CLIENT_IDENTIFIER: bytes.fromhex(identifier)})
            for identifier in ("01aa", "ff0000000100", "00706f64")
        ]
        for number, client in enumerate(clients):
            client.xid = number << 16
        assert [wire.bind(client).yiaddr for client in clients] == given
        assert wire.ask(clients[0].reboot(given[1])).message_type is MessageType.NAK
        # All three are held at once: what the first gives back, the others keep.
        wire.bind(clients[0])
        wire.send(dhcp.encode(clients[0].release()), VIRTUAL_MAC)
        assert services.wait_for("released").address == given[0]
        assert [wire.bind(client).yiaddr for client in clients[1:]] == given[1:]
        # The hardware MAC has its one address, whatever its clients call themselves.
        for number, identifier in enumerate((b"\1a", b"\1b")):
            hardware = DhcpClient(MACS["n1"], {Option.CLIENT_IDENTIFIER: identifier})
            hardware.xid = number << 20
            assert wire.bind(hardware).yiaddr == N1


def test_cap_025_boot_variables_are_handed_out_in_scope_1_only(services, tmp_path):
    chassis = services.chassis
    add_virtual_nic(chassis["n1"])
    given = udhcpc(chassis["n1"], tmp_path)
    assert given["rootpath"] == "iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1"
    assert bytes.fromhex(given["opt203"]) == b"iqn.2026-11.dev.panloom:node.n1"
    nic = udhcpc(chassis["n1"], tmp_path, interface="os0")
    assert not {"rootpath", "opt203", "bootfile", "boot_file", "sname"} & nic.keys()
    with DhcpWire(chassis["n1"]) as wire:
        first, second = DhcpClient(MACS["n1"], IPXE), DhcpClient(VIRTUAL_MAC, IPXE)
        offer, ack = wire.ask(first.discover()), wire.bind(first)
        for reply in (offer, ack):
            assert reply.options[Option.ROOT_PATH] == given["rootpath"].encode()
            assert reply.options[Option.IPXE_INITIATOR] == b"iqn.2026-11.dev.panloom:node.n1"
            assert reply.options[Option.IPXE] == bytes((176, 1, 1))
            assert not reply.file
        for reply in (wire.ask(second.discover()), wire.bind(second)):
            assert not BOOT_OPTIONS & reply.options.keys()
            assert (reply.siaddr, reply.file, reply.sname) == (dhcp.UNSPECIFIED, b"", b"")


def test_cap_025_under_chap_the_boot_variable_is_a_file_name_of_its_own(services):
    services.replace(table(n1=server()))
    with DhcpWire(services.chassis["n1"]) as wire:
        client = DhcpClient(MACS["n1"], IPXE)
        ack = wire.bind(client)
        assert ack.siaddr == IPv4Address("10.77.0.1")
        assert ack.file.startswith(b"http://10.77.0.1:8080/boot/")
        assert ack.options[Option.BOOT_FILE_NAME] == ack.file
        assert len(ack.file.rpartition(b"/")[2]) == 24
        assert not {Option.ROOT_PATH, Option.IPXE_INITIATOR} & ack.options.keys()
        assert wire.bind(client).file != ack.file
        nic = wire.bind(DhcpClient(VIRTUAL_MAC, IPXE))
        assert not BOOT_OPTIONS & nic.options.keys()
        assert not any(SECRET.encode() in frame.payload for frame in wire.heard)


def test_cap_026_network_variables_are_handed_out_in_scope_2(services, tmp_path):
    add_virtual_nic(services.chassis["n1"])
    nic = udhcpc(services.chassis["n1"], tmp_path, interface="os0")
    assert (nic["subnet"], nic["router"]) == ("255.255.255.0", "10.99.0.1")
    assert (nic["dns"], nic["domain"]) == ("10.99.0.2 10.99.0.3", "front.example")
    with DhcpWire(services.chassis["n1"]) as wire:
        offer = wire.ask(DhcpClient(VIRTUAL_MAC).discover())
        assert offer.options[Option.ROUTER] == IPv4Address("10.99.0.1").packed
        assert offer.options[Option.DOMAIN_NAME_SERVER] == bytes((10, 99, 0, 2, 10, 99, 0, 3))
        assert offer.options[Option.DOMAIN_NAME] == b"front.example"
        node = wire.ask(DhcpClient(MACS["n1"]).discover())
        assert not {Option.ROUTER, Option.DOMAIN_NAME_SERVER, Option.DOMAIN_NAME} & node.options.keys()


def test_cap_026_a_nic_with_an_address_of_its_own_has_that_one(services, tmp_path):
    services.replace(with_nic(address=IPv4Address("10.99.0.80")))
    add_virtual_nic(services.chassis["n1"])
    assert udhcpc(services.chassis["n1"], tmp_path, interface="os0")["ip"] == "10.99.0.80"


def test_cap_027_one_machine_is_served_through_both_its_addresses_at_once(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    both = [start_udhcpc(machine, tmp_path, interface, "-q", "-x", "0x3d:01aa") for interface in ("eth0", "os0")]
    assert [client.wait(30) for client in both] == [0, 0]
    assert given_to(tmp_path, "eth0")["ip"] == str(N1)
    assert IPv4Address(given_to(tmp_path, "os0")["ip"]) in FRONT_RANGE
    # Step by step: each message of one exchange between two of the other.
    with DhcpWire(machine) as wire:
        hardware, virtual = DhcpClient(MACS["n1"], IPXE), DhcpClient(VIRTUAL_MAC)
        offers = [wire.ask(client.discover()) for client in (hardware, virtual)]
        for client, offer in zip((hardware, virtual), offers, strict=True):
            client.receive(dhcp.encode(offer))
        acks = [wire.ask(client.request()) for client in (virtual, hardware)]
        assert acks[0].yiaddr in FRONT_RANGE
        assert acks[1].yiaddr == N1


def test_who_neither_boots_nor_is_known_hears_nothing(services, tmp_path):
    assert udhcpc(services.chassis["stranger"], tmp_path, "-t", "1") is None
    assert not services.events


def test_a_stranger_that_boots_is_discovered_and_given_nobodys_disk(services, tmp_path):
    given = udhcpc(
        services.chassis["stranger"], tmp_path, *("-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x4d:69505845")
    )
    assert given["ip"] == "10.77.0.200"
    assert not {"rootpath", "opt203"} & given.keys()
    assert str(services.wait_for("discovered").mac) == MACS["stranger"]


def test_a_machine_that_wants_a_broadcast_is_answered_by_one(services, tmp_path):
    assert udhcpc(services.chassis["n1"], tmp_path, "-B")["ip"] == str(N1)


def test_release_and_decline_of_a_real_client(services, tmp_path):
    client = start_udhcpc(services.chassis["n1"], tmp_path, "eth0")
    bound = tmp_path / "eth0.bound"
    until(bound.exists, "udhcpc is bound")
    bound.unlink()
    client.send_signal(signal.SIGUSR2)
    assert services.wait_for("released").address == N1
    # Somebody sits down on n2's address while n2 is away with its lease: udhcpc finds it by ARP and declines.
    assert udhcpc(services.chassis["n2"], tmp_path)["ip"] == str(N2)
    services.chassis["n2"].ip("address flush dev eth0")
    bound.unlink()
    services.chassis["stranger"].ip("address add 10.77.0.52/24 dev eth0")
    start_udhcpc(services.chassis["n2"], tmp_path, "eth0", "-a200")
    declined = services.wait_for("declined")
    assert (str(declined.mac), declined.address) == (MACS["n2"], N2)
    assert not bound.exists()


def test_an_address_that_somebody_sits_on_is_lent_to_nobody(services, tmp_path):
    """The squatter took it without asking: only the wire knows of it."""
    chassis = services.chassis
    add_virtual_nic(chassis["n1"])
    chassis["stranger"].ip("address add 10.99.0.10/24 dev eth0")
    assert udhcpc(chassis["n1"], tmp_path, interface="os0")["ip"] == "10.99.0.11"
    refused = services.wait_for("refused")
    assert refused.why == f"10.99.0.10 is in use by {MACS['stranger']}, not by lease"
    # A node's own address is given to it all the same, or anybody could keep it from booting.
    chassis["stranger"].ip("address add 10.77.0.52/24 dev eth0")
    with DhcpWire(chassis["n2"]) as wire:
        assert wire.bind(DhcpClient(MACS["n2"], IPXE)).yiaddr == N2


def test_a_machine_that_has_its_address_already_is_in_nobodys_way(services, tmp_path):
    """A system that restarted the network has it still; that is no second machine, whichever of its NICs answers."""
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    machine.ip("address add 10.77.0.51/24 dev eth0")
    machine.ip("address add 10.99.0.10/24 dev eth0")
    assert udhcpc(machine, tmp_path)["ip"] == str(N1)
    assert udhcpc(machine, tmp_path, interface="os0")["ip"] == "10.99.0.10"


def test_a_node_that_another_server_serves_is_told_of_and_a_strangers_choice_is_its_own(services):
    with DhcpWire(services.chassis["n1"]) as wire:
        node, other = DhcpClient(MACS["n1"], IPXE), DhcpClient(MACS["stranger"])
        for client in (other, node):
            client.offer = wire.ask(node.discover())
            theirs = {Option.SERVER_IDENTIFIER: bytes((10, 77, 0, 9)), Option.REQUESTED_ADDRESS: bytes((10, 77, 0, 99))}
            assert wire.is_unanswered(client.message(MessageType.REQUEST, theirs), DhcpClient(MACS["n2"], IPXE))
    (refused,) = [event for event in services.events if event.kind == "refused"]
    assert (refused.node, refused.why) == ("n1", "it chose another DHCP server, 10.77.0.9")


def test_leases_outlive_the_services(tmp_path):
    with machines(MACS) as chassis:
        with running_in(chassis, tmp_path, table()), DhcpWire(chassis["n1"]) as wire:
            stranger = DhcpClient(MACS["stranger"], IPXE)
            assert wire.bind(stranger).yiaddr == IPv4Address("10.77.0.200")
        with running_in(chassis, tmp_path, table()), DhcpWire(chassis["n1"]) as wire:
            other = DhcpClient("52:54:00:77:00:98", IPXE)
            assert wire.bind(other).yiaddr == IPv4Address("10.77.0.201")
            assert wire.ask(other.reboot(IPv4Address("10.77.0.200"))).message_type is MessageType.NAK
            assert wire.bind(stranger).yiaddr == IPv4Address("10.77.0.200")


def test_bad_input_disturbs_nobody_and_leaves_a_line(services, caplog):
    good = dhcp.encode(DhcpClient(MACS["n1"], IPXE).discover())
    options = 240
    bad = [
        *(good[:length] for length in (0, 1, 100, 239, 240)),
        good[:236] + b"\0\0\0\0" + good[options:],
        *(good[:2] + bytes((hlen,)) + good[3:] for hlen in (0, 17, 255)),
        good[:options] + b"\x35\x01\x01",
        good[:options] + b"\x35\x01\x01\x34\x01\x03\xff",
        good[:options] + b"\x35\x01\x01\x3d\xff" + bytes(100),
        good[:options] + b"\x35\x01\x01\x5d\x01\0\xff",
        good[:options] + b"\x35\x01\xfe\xff",
        bytes(1400),
    ]
    caplog.set_level("INFO", "panloom.boot")
    with DhcpWire(services.chassis["n1"]) as wire:
        witness = DhcpClient(MACS["n2"])
        for octets in bad:
            caplog.clear()
            assert wire.is_unanswered(octets, witness)
            lines = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
            assert len(lines) == 1, octets
            assert lines[0].startswith("dhcp=ignored")
        assert wire.bind(DhcpClient(MACS["n1"], IPXE)).yiaddr == N1


def test_the_services_hear_no_other_interface(tmp_path):
    with machines(MACS) as chassis:
        chassis.control.ip("link set port-n2 nomaster")
        chassis.control.ip("address add 10.78.0.1/24 dev port-n2")
        chassis.control.ip("link set port-n2 up")
        with running_in(chassis, tmp_path, table()) as services:
            assert udhcpc(chassis["n2"], tmp_path, "-t", "2") is None
            chassis["n2"].ip("address add 10.78.0.52/24 dev eth0")
            chassis["n2"].ip("route add 10.77.0.1 via 10.78.0.1")
            refused = chassis["n2"].run("curl", "-s", "-m", "3", "http://10.77.0.1:8080/files/x", check=False)
            assert refused.returncode == 7
            until(lambda: udhcpc(chassis["n1"], tmp_path), "n1 is served")
            assert all(event.node == "n1" for event in services.events)
