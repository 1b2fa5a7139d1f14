"""Boot information beside another DHCP server: what it says, to whom, and that it gives no address."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.dhcp_proxy import Boot, DhcpProxy
from panloom.protocol.lease_server import DhcpEventKind
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import UNSPECIFIED, MessageType, Option
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_site import OURS, RELAY, A, B

N1 = IPv4Address("10.77.0.51")
FILE = b"http://10.77.0.1:8080/boot/token"


class Desk:
    """Knows one machine."""

    def proxied(self, request, *, now):
        return Boot(b"PXEClient", FILE, {}) if request.chaddr == MacAddress.parse(A) else None

    def relays(self, address):
        return address == RELAY


def answers(message, *, pxe=None):
    """Return what a proxy sends after a message."""
    proxy = DhcpProxy(OURS, Desk())
    proxy.receive(message if isinstance(message, bytes) else dhcp.encode(message), pxe=pxe, now=1.0)
    return proxy.packets_to_send()


def test_an_offer_has_a_file_and_no_address():
    client = DhcpClient(A, {**IPXE, Option.CLIENT_MACHINE: bytes(17)})
    (datagram,) = answers(client.discover())
    assert (str(datagram.mac), str(datagram.address), datagram.port) == (A, "255.255.255.255", 68)
    offer = dhcp.decode(datagram.octets)
    assert (offer.message_type, offer.yiaddr, offer.siaddr) == (MessageType.OFFER, UNSPECIFIED, OURS)
    assert offer.file == offer.options[Option.BOOT_FILE_NAME] == FILE
    assert offer.options[Option.VENDOR_CLASS] == b"PXEClient"
    assert offer.options[Option.VENDOR_SPECIFIC] == b"\6\1\x08\xff"
    assert offer.options[Option.CLIENT_MACHINE] == bytes(17)
    assert not {Option.LEASE_TIME, Option.SUBNET_MASK, Option.ROUTER} & offer.options.keys()


def test_who_asks_port_4011_is_answered_where_it_asks_from():
    client = DhcpClient(A, IPXE)
    (datagram,) = answers(client.message(MessageType.REQUEST, ciaddr=N1), pxe=(N1, 4011))
    assert (datagram.mac, datagram.address, datagram.port) == (None, N1, 4011)
    ack = dhcp.decode(datagram.octets)
    assert (ack.message_type, ack.ciaddr, ack.yiaddr, ack.file) == (MessageType.ACK, N1, UNSPECIFIED, FILE)


def test_a_relay_brings_the_answer():
    client = DhcpClient(A, {**IPXE, Option.RELAY_AGENT: b"\1\4port"})
    (datagram,) = answers(client.message(MessageType.DISCOVER, giaddr=RELAY))
    assert (datagram.mac, datagram.address, datagram.port) == (None, RELAY, 67)
    assert dhcp.decode(datagram.octets).options[Option.RELAY_AGENT] == b"\1\4port"
    assert answers(client.message(MessageType.DISCOVER, giaddr=RELAY + 1)) == ()


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind is not MessageType.DISCOVER])
def test_what_concerns_the_other_servers_leases_is_its_own(kind):
    client = DhcpClient(A, IPXE)
    assert answers(client.message(kind, {Option.REQUESTED_ADDRESS: N1.packed}, ciaddr=N1)) == ()


def test_who_is_not_known_or_means_another_server_hears_nothing():
    assert answers(DhcpClient(B, IPXE).discover()) == ()
    elsewhere = {Option.SERVER_IDENTIFIER: bytes((10, 77, 0, 9))}
    assert answers(DhcpClient(A, IPXE).message(MessageType.REQUEST, elsewhere), pxe=(N1, 68)) == ()
    assert answers(DhcpClient(A, IPXE).message(MessageType.DISCOVER), pxe=(N1, 68)) == ()


@given(st.binary(max_size=400), st.booleans())
def test_any_octets_are_one_event_at_most_and_never_an_exception(octets, to_pxe_port):
    proxy = DhcpProxy(OURS, Desk())
    proxy.receive(octets, pxe=(N1, 1) if to_pxe_port else None, now=1.0)
    events = proxy.events()
    assert [event.kind for event in events] in ([], [DhcpEventKind.IGNORED])
    assert proxy.packets_to_send() == ()
