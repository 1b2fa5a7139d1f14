"""dhclient, dhcpcd, dhcrelay and curl against the real boot services by IPv6, beside IPv4 on the same cable.

control 10.77.0.1                ═══ n1 10.77.0.51
        2001:db8:77::a4d:1               2001:db8:77::a4d:33
"""

import subprocess
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import msgspec
import pytest

from interop.test_dhclient import Dhclient
from interop.test_dhcpcd import START
from interop.test_dhcpcd import given as hook_said
from interop.test_udhcpc import add_virtual_nic
from panloom.decide.boot_answer import BootNode, BootRelay
from panloom.values import MacAddress, beside
from support.boot_chassis import (
    FRONT_PREFIX,
    IPV6,
    MACS,
    boot_services,
    running_in,
    server,
    speak_ipv6,
    table,
    with_ipv6,
)
from support.namespaces import machines, namespace
from support.waiting import until

OURS = IPv6Address("2001:db8:77::a4d:1")
FRONT = [beside(FRONT_PREFIX, IPv4Address("10.99.0.10")) + number for number in range(10)]
FAR_MAC, FAR_PREFIX = "52:54:00:88:00:01", IPv6Network("2001:db8:88::/64")
FAR = beside(FAR_PREFIX, IPv4Address("10.88.0.51"))
HOOK = '#!/bin/sh\ncd "$(dirname "$0")"\nenv > new && mv new "$interface.$reason"\n'


@pytest.fixture
def services(tmp_path):
    with boot_services(tmp_path, with_ipv6(table(n1=server()))) as running:
        yield running


def dhclient(machine, directory, interface="eth0", *options):
    speak_ipv6(machine, interface)
    return Dhclient(machine, directory, interface, *options, family="-6")


def dhcpcd(machine, directory: Path, interface: str, *lines: str) -> "subprocess.Popen[bytes]":
    (directory / "hook").write_text(HOOK)
    (directory / "hook").chmod(0o755)
    (directory / "conf").write_text("\n".join(("duid ll", "slaac hwaddr", *lines)) + "\n")
    with (directory / "log").open("ab") as log:
        return machine.start(
            *("unshare", "--mount", "sh", "-c", START, "sh"),
            *("dhcpcd", "-6", "-B", "-d", "-f", directory / "conf", "-c", directory / "hook", "-t", "30", interface),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def test_dhclient_has_the_nodes_own_address_and_gives_it_back(services, tmp_path):
    client = dhclient(services.chassis["n1"], tmp_path / "n1")
    process = client.run()
    assert client.given("BOUND6")["new_ip6_address"] == str(IPV6["n1"])
    event = services.wait_for("dhcp")
    assert (event.node, event.server, event.address) == ("n1", "shop/web1", IPV6["n1"])
    remembered = client.directory / "leases"
    until(lambda: remembered.read_text().endswith("}\n"), "the lease is written down", seconds=30)
    process.kill()
    process.wait(10)
    client.run("-r").wait(30)
    assert services.wait_for("released", seconds=30).address == IPV6["n1"]


def test_dhclient_declines_an_address_that_somebody_uses(services, tmp_path):
    client = dhclient(services.chassis["n2"], tmp_path / "n2")
    (client.directory / "taken").write_text(f"{IPV6['n2']}\n")
    client.run()
    declined = services.wait_for("declined", seconds=30)
    assert (str(declined.mac), declined.address) == (MACS["n2"], IPV6["n2"])


def test_a_servers_nic_has_an_address_of_its_lan_beside_the_nodes(services, tmp_path):
    machine = services.chassis["n1"]
    add_virtual_nic(machine)
    client = dhclient(machine, tmp_path / "os0", "os0")
    client.run()
    given = client.given("BOUND6")
    assert IPv6Address(given["new_ip6_address"]) in FRONT
    assert given["new_dhcp6_domain_search"].rstrip(".") == "front.example"
    assert "new_dhcp6_bootfile_url" not in given


def test_leases_outlive_the_services(tmp_path):
    """A client that names itself anew has another address; the one before, whose lease is in the store, has its own."""
    with machines(MACS) as chassis:
        chassis.control.ip(f"address add {OURS}/64 dev br0 nodad")
        machine = chassis["n1"]
        add_virtual_nic(machine)
        start, addresses = with_ipv6(table(n1=server())), []
        for name, duid in (("first", "LL"), ("second", "LLT"), ("third", "LL")):
            with running_in(chassis, tmp_path, start):
                client = dhclient(machine, tmp_path / name, "os0")
                process = client.run("-D", duid)
                addresses.append(client.given("BOUND6")["new_ip6_address"])
                process.kill()
                process.wait(10)
                machine.ip("address flush dev os0")
        assert addresses[0] == addresses[2] != addresses[1]


def test_dhcpcd_is_told_by_the_router_advertisement_to_ask_dhcpv6(services, tmp_path):
    """It asks for an address only where the advertisement is managed (RFC 4861 section 4.2)."""
    machine = services.chassis["n1"]
    dhcpcd(machine, tmp_path, "eth0")
    assert "M" in hook_said(tmp_path, "eth0", "ROUTERADVERT")["nd1_flags"]
    bound = hook_said(tmp_path, "eth0", "BOUND6")
    assert str(IPV6["n1"]) in bound.values()
    route = until(
        lambda: machine.run("ip", "-6", "route", "get", str(OURS), check=False).stdout, "the prefix is on the link"
    )
    assert b"dev eth0" in route
    assert b" via " not in route


def test_scripts_and_files_come_by_ipv6(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "kernel").write_bytes(bytes(range(256)) * 500)
    with boot_services(tmp_path, with_ipv6(table(n1=server())), files=files) as services:
        machine = services.chassis["n1"]
        machine.ip(f"address add {IPV6['n1']}/64 dev eth0 nodad")
        for url in (f"http://[{OURS}]:8080/files/kernel", f"tftp://[{OURS}]/kernel"):
            machine.run("curl", "-s", "-g", "-m", "10", "-o", tmp_path / "got", url)
            assert (tmp_path / "got").read_bytes() == (files / "kernel").read_bytes()
        assert services.wait_for("file").address == IPV6["n1"]
        refused = machine.run("curl", "-s", "-g", "-m", "10", "-w", "%{http_code}", f"http://[{OURS}]:8080/boot/none")
        assert refused.stdout.endswith(b"404")


def test_a_node_behind_a_dhcpv6_relay_has_its_address(tmp_path):
    """ISC's dhcrelay stands between; the node is known by the MAC in its DUID."""
    here = with_ipv6(table())
    relay = BootRelay(IPv4Address("10.88.0.1"), IPv4Network("10.88.0.0/24"), IPv4Address("10.88.0.1"), FAR_PREFIX)
    node = BootNode("far", MacAddress.parse(FAR_MAC), IPv4Address("10.88.0.51"))
    start = msgspec.structs.replace(here, relays=(relay,), nodes=(*here.nodes, node))
    hosts = {"relay": "52:54:00:77:00:09", "n1": MACS["n1"]}
    with boot_services(tmp_path, start, macs=hosts) as services, namespace("far") as far:
        router = services.chassis["relay"]
        router.ip("address add 2001:db8:77::9/64 dev eth0 nodad")
        router.ip(f"link add south type veth peer name eth0 address {FAR_MAC} netns {far.name}")
        router.ip("link set south up")
        router.ip("address add fe80::1/64 dev south nodad")
        router.ip("address add 2001:db8:88::1/64 dev south nodad")
        far.ip("link set eth0 addrgenmode none up")
        with (tmp_path / "dhcrelay.log").open("wb") as log:
            router.start(
                *("dhcrelay", "-6", "-d", "--no-pid", "-l", "south", "-u", f"{OURS}%eth0"), stdout=log, stderr=log
            )
        until(lambda: b"Listening on" in (tmp_path / "dhcrelay.log").read_bytes(), "dhcrelay listens")
        client = dhclient(far, tmp_path / "far")
        client.run("-D", "LL")
        assert client.given("BOUND6")["new_ip6_address"] == str(FAR)
        assert services.wait_for("dhcp").node == "far"
