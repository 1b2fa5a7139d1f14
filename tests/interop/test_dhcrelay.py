"""ISC's dhcrelay between udhcpc and the real boot services: a node on a network of its own, behind a router.

control 10.77.0.1 ═══ 10.77.0.9 relay 10.88.0.1 ═══ far (10.88.0.51)
"""

import os
import signal
import subprocess
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest

from interop.test_udhcpc import start_udhcpc, udhcpc
from panloom.decide.boot_answer import BootNode, BootRelay
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType, Option
from support.boot_chassis import MACS, SECRET, boot_services, server, table
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.namespaces import namespace
from support.waiting import until

RELAY, FAR = IPv4Address("10.88.0.1"), IPv4Address("10.88.0.51")
MAC = "52:54:00:88:00:01"
HOSTS = {"relay": "52:54:00:77:00:09", "n1": MACS["n1"]}


def relayed_table():
    """Return a table with one node behind the relay, which carries shop/web1."""
    here = table()
    return msgspec.structs.replace(
        here,
        relays=(BootRelay(RELAY, IPv4Network("10.88.0.0/24"), RELAY),),
        nodes=(*here.nodes, BootNode("far", MacAddress.parse(MAC), FAR, server())),
    )


@contextmanager
def behind_a_relay(directory: Path, files: Path | None = None):
    """Yield the services and the far node's namespace, with dhcrelay running on the router between them."""
    with boot_services(directory, relayed_table(), macs=HOSTS, files=files) as services, namespace("far") as far:
        relay = services.chassis["relay"]
        relay.ip("address add 10.77.0.9/24 dev eth0")
        relay.ip(f"link add south type veth peer name eth0 address {MAC} netns {far.name}")
        relay.ip("address add 10.88.0.1/24 dev south")
        relay.ip("link set south up")
        relay.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        far.ip("link set eth0 up")
        services.chassis.control.ip("route add 10.88.0.0/24 via 10.77.0.9")
        said = directory / "dhcrelay.log"
        with said.open("wb") as log:
            relay.start(
                *("dhcrelay", "-4", "-d", "--no-pid", "-a", "-id", "south", "-iu", "eth0", "10.77.0.1"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            until(lambda: b"Sending on   Socket/fallback" in said.read_bytes(), "dhcrelay listens")
            yield services, far


def test_a_node_behind_a_relay_has_its_address_its_router_and_its_script(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "kernel").write_bytes(bytes(100_000))
    with behind_a_relay(tmp_path, files) as (services, far):
        given = udhcpc(far, tmp_path, "-x", "0x4d:69505845", "-V", "PXEClient:Arch:00000:UNDI:002001")
        assert (given["ip"], given["mask"], given["router"]) == (str(FAR), "24", str(RELAY))
        assert services.wait_for("dhcp").address == FAR
        far.ip(f"route add default via {RELAY}")
        script = far.run("curl", "-s", "-m", "10", given["boot_file"])
        assert f"set password {SECRET}".encode() in script.stdout
        far.run("curl", "-s", "-m", "10", "-o", tmp_path / "kernel", "tftp://10.77.0.1/kernel")
        assert (tmp_path / "kernel").read_bytes() == bytes(100_000)


def test_a_lease_behind_a_relay_is_renewed_without_it(tmp_path):
    with behind_a_relay(tmp_path) as (services, far):
        client = start_udhcpc(far, tmp_path, "eth0")
        until(lambda: (tmp_path / "eth0.bound").exists(), "udhcpc is bound")
        far.ip(f"route add default via {RELAY}")
        services.chassis["relay"].end_processes()  # who renews asks the server itself
        # udhcpc renews from a socket that it closes once it has sent.  Where no cable lies between, the server may
        # answer before that, if it is scheduled first on the same processor, and the answer goes with the socket.
        os.sched_setscheduler(client.pid, os.SCHED_FIFO, os.sched_param(1))
        client.send_signal(signal.SIGUSR1)
        until(lambda: (tmp_path / "eth0.renew").exists(), "the lease is renewed")
        assert f"ip={FAR}" in (tmp_path / "eth0.renew").read_text().splitlines()


def test_a_forged_relay_has_nothing_and_takes_nothing_away(tmp_path):
    """A machine of the storage network says that it is the relay, or another one."""
    with behind_a_relay(tmp_path) as (services, far), DhcpWire(services.chassis["n1"]) as wire:
        n1, far_client = DhcpClient(MACS["n1"], IPXE), DhcpClient(MAC, {**IPXE, Option.RELAY_AGENT: b"\1\1x"})
        for forged in ("10.77.0.51", "10.77.0.9", "10.88.0.2", "192.0.2.1", str(RELAY)):
            message = far_client.message(MessageType.DISCOVER, giaddr=IPv4Address(forged))
            assert wire.is_unanswered(dhcp.encode(message), n1)
        assert not [event for event in services.events if event.node == "far"]
        assert udhcpc(far, tmp_path)["ip"] == str(FAR)


@pytest.mark.parametrize("mac", [MACS["n1"], MACS["stranger"]])
def test_machines_of_elsewhere_have_no_address_behind_the_relay(tmp_path, mac):
    with behind_a_relay(tmp_path) as (services, far), DhcpWire(far) as wire:
        assert wire.is_unanswered(DhcpClient(mac, IPXE).discover(), DhcpClient(MAC))
        assert not services.events or services.events[0].node == "far"
