"""The client against our own server over a link that loses, repeats and delays: it is bound in the end."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.dhcp_client import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, DhcpClient
from panloom.protocol.dhcp_leases import Assignment
from panloom.protocol.dhcp_server import DhcpServer
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType, Op, Option

MAC, OTHER = MacAddress.parse("52:54:00:77:00:01"), MacAddress.parse("52:54:00:77:00:02")
SERVER, ADDRESS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.11")


class Desk:
    """Gives everybody one address, behind a router, where nobody is asked whether it is in use."""

    def assignment(self, request):
        return Assignment(ADDRESS, ADDRESS, frozenset(), {Option.SUBNET_MASK: b"\xff\xff\xff\0"})

    def acknowledged(self, request, address, *, now):
        return b"http://10.77.0.1/boot/T"

    def serves(self, address):
        return False


def answers(server, octets, now):
    """Return what the server says to a datagram; its store never fails."""
    server.receive(octets, now=now)
    for write in server.leases_to_store():
        server.stored(write, now=now)
    return [packet.octets for packet in server.packets_to_send()]


def reply(kind, client_packet, *, xid=None, mac=None, op=Op.REPLY, server=SERVER):
    asked = dhcp.decode(client_packet)
    options = {Option.MESSAGE_TYPE: bytes((kind,))}
    if server is not None:
        options[Option.SERVER_IDENTIFIER] = server.packed
    return dhcp.encode(
        dhcp.Message(
            op=op, xid=asked.xid if xid is None else xid, chaddr=mac or asked.chaddr, yiaddr=ADDRESS, options=options
        )
    )


def started(options=None):
    client = DhcpClient(MAC, 7, options)
    client.start(now=0.0)
    (discover,) = client.packets_to_send()
    return client, discover


def test_an_undisturbed_exchange():
    client, discover = started({Option.USER_CLASS: b"iPXE"})
    server = DhcpServer(SERVER, Desk())
    assert dhcp.decode(discover).options[Option.USER_CLASS] == b"iPXE"
    for octets in answers(server, discover, 0.0):
        client.receive(octets, now=0.0)
    (request,) = client.packets_to_send()
    assert dhcp.decode(request).address(Option.REQUESTED_ADDRESS) == ADDRESS
    for octets in answers(server, request, 0.0):
        client.receive(octets, now=0.0)
    assert (client.lease.yiaddr, client.lease.file) == (ADDRESS, b"http://10.77.0.1/boot/T")
    assert (client.deadline, client.packets_to_send()) == (None, ())


@given(st.lists(st.sampled_from(["deliver", "lose", "repeat", "old"]), max_size=40))
def test_whatever_the_link_does_it_is_bound_once_the_link_is_good(faults):
    client, server = DhcpClient(MAC, 99), DhcpServer(SERVER, Desk())
    now, faults, heard = 0.0, iter(faults), []
    client.start(now=now)
    for _ in range(200):
        while packets := client.packets_to_send():
            for octets in [answer for packet in packets for answer in answers(server, packet, now)]:
                heard.append(octets)
                fault = next(faults, "deliver")
                for copy in {"deliver": [octets], "lose": [], "repeat": [octets] * 2, "old": [heard[0]]}[fault]:
                    client.receive(copy, now=now)
        if client.lease is not None:
            break
        now = client.deadline
        client.handle_timer(now=now)
    assert client.lease is not None
    assert client.lease.yiaddr == ADDRESS


def test_it_asks_ever_later():
    client, _ = started()
    waits, at = [], 0.0
    for _ in range(6):
        waits.append(client.deadline - at)
        at = client.deadline
        client.handle_timer(now=at - 0.01)
        assert client.packets_to_send() == ()
        client.handle_timer(now=at)
        (again,) = client.packets_to_send()
        assert dhcp.decode(again).message_type is MessageType.DISCOVER
        assert dhcp.decode(again).secs == int(at)
    assert (waits[0], waits[1], waits[-1]) == (FIRST_RETRY_SECONDS, 2.0, LAST_RETRY_SECONDS)


@pytest.mark.parametrize("how", [{"xid": 1}, {"mac": OTHER}, {"op": Op.REQUEST}, {"server": None}])
def test_an_offer_for_somebody_else_or_from_nobody_changes_nothing(how):
    client, discover = started()
    client.receive(reply(MessageType.OFFER, discover, **how), now=0.0)
    assert client.packets_to_send() == ()


def test_an_acknowledgement_that_was_not_asked_for_gives_no_address():
    client, discover = started()
    client.receive(reply(MessageType.ACK, discover), now=0.0)
    assert client.lease is None


def test_a_refusal_or_a_server_that_falls_silent_makes_it_begin_anew():
    client, discover = started()
    client.receive(reply(MessageType.OFFER, discover), now=0.0)
    (request,) = client.packets_to_send()
    client.receive(reply(MessageType.NAK, request), now=0.0)
    (again,) = client.packets_to_send()
    assert dhcp.decode(again).message_type is MessageType.DISCOVER
    client.receive(reply(MessageType.OFFER, again), now=0.0)
    kinds = [dhcp.decode(packet).message_type for packet in client.packets_to_send()]
    while kinds[-1] is not MessageType.DISCOVER:
        client.handle_timer(now=client.deadline)
        kinds += [dhcp.decode(packet).message_type for packet in client.packets_to_send()]
    assert kinds == [MessageType.REQUEST] * 4 + [MessageType.DISCOVER]


@given(st.binary(max_size=600))
def test_any_octets_are_taken_or_dropped(octets):
    client, _ = started()
    client.receive(octets, now=0.0)
    assert client.lease is None
