"""Kea's perfdhcp against the real boot services: many machines at once, behind a relay that it plays itself."""

import re
from ipaddress import IPv4Address, IPv4Network

import msgspec

from panloom.decide.boot_answer import BootNode, BootRelay
from panloom.values import MacAddress
from support.boot_chassis import boot_services, table

RELAY, FIRST = IPv4Address("10.88.0.1"), IPv4Address("10.88.0.10")
FIRST_MAC = MacAddress.parse("00:0c:01:02:03:04")  # perfdhcp's own first
COUNT, ASKED = 20, 100


def test_twenty_machines_ask_again_and_again_and_each_exchange_comes_to_its_end(tmp_path):
    nodes = tuple(BootNode(f"m{i}", MacAddress(FIRST_MAC.number + i), FIRST + i) for i in range(COUNT))
    relay = BootRelay(RELAY, IPv4Network("10.88.0.0/24"), RELAY)
    here = msgspec.structs.replace(table(), relays=(relay,), nodes=nodes)
    with boot_services(tmp_path, here, macs={"relay": "52:54:00:77:00:09"}) as services:
        machine = services.chassis["relay"]
        machine.ip(f"address add {RELAY}/24 dev eth0")
        machine.ip("route add 10.77.0.0/24 dev eth0")
        services.chassis.control.ip("route add 10.88.0.0/24 dev br0")
        options = ("-4", "-l", "eth0", "-r", "20", "-R", str(COUNT), "-n", str(ASKED), "-W", "5000000")
        told = machine.run("perfdhcp", *options, "10.77.0.1", seconds=60, check=False).stdout.decode()
        sent, received = (re.findall(rf"^{way} packets: (\d+)", told, re.MULTILINE) for way in ("sent", "received"))
        assert sent == received, told  # of DISCOVER and OFFER, and of REQUEST and ACK
        assert [int(number) >= ASKED for number in received] == [True, True], told
        leases = {(event.mac, event.address) for event in services.events if event.kind == "dhcp"}
        assert leases == {(node.mac, node.address) for node in nodes}
