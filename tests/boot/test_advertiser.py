"""Router solicitations on a real cable."""

import socket
from ipaddress import IPv6Address

import pytest

from panloom.values import MacAddress
from panloom.wire.internet import ETHERTYPE_IPV6
from panloom.wire.router_advertisement import (
    ALL_NODES,
    Solicitation,
    decode_advertisement,
    encode_solicitation,
    link_local,
)
from support.boot_chassis import MACS, boot_services, table
from support.waiting import until

N1, STRANGER = MacAddress.parse(MACS["n1"]), MacAddress.parse(MACS["stranger"])


@pytest.fixture
def cable(tmp_path):
    """A packet socket of n1's, and the MAC of the control node."""
    with boot_services(tmp_path, table()) as services:
        wire = services.chassis["n1"].socket(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        with wire:
            wire.bind(("eth0", ETHERTYPE_IPV6))
            wire.setblocking(False)
            yield wire, MacAddress.parse(services.chassis.control.mac("br0"))


def advertisements(wire):
    """Return the advertisements that have come."""
    found = []
    while True:
        try:
            octets = wire.recv(2048)
        except BlockingIOError:
            return found
        if octets[20] == 58 and octets[54] == 134:
            found.append(decode_advertisement(octets))


def test_a_known_node_is_answered_alone_with_nothing_to_configure(cable):
    wire, control = cable
    wire.send(encode_solicitation(Solicitation(N1, link_local(N1), N1)))
    (answer,) = until(lambda: advertisements(wire), "an advertisement")
    assert (answer.destination_mac, answer.destination) == (N1, link_local(N1))
    assert (answer.source_mac, answer.source) == (control, link_local(control))
    assert answer.router_lifetime_seconds == 0


def test_a_node_without_an_address_is_answered_in_a_frame_of_its_own(cable):
    wire, _ = cable
    wire.send(encode_solicitation(Solicitation(N1, IPv6Address("::"))))
    (answer,) = until(lambda: advertisements(wire), "an advertisement")
    assert (answer.destination_mac, answer.destination) == (N1, ALL_NODES)


def test_strangers_and_nonsense_are_not_answered(cable):
    wire, _ = cable
    good = encode_solicitation(Solicitation(N1, link_local(N1), N1))
    wire.send(encode_solicitation(Solicitation(STRANGER, link_local(STRANGER), STRANGER)))
    wire.send(good[:56] + b"\xff\xff" + good[58:])
    wire.send(good[:21] + b"\x40" + good[22:])
    wire.send(good)
    (answer,) = until(lambda: advertisements(wire), "an advertisement")
    assert answer.destination_mac == N1
