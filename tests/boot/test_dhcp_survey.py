"""Who offers addresses, as it is read of the wire: whoever answers us, and no more of them than tell something."""

import asyncio
import socket
from ipaddress import IPv4Address

import pytest

from panloom.boot.dhcp_survey import MOST_SERVERS, listen
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option
from panloom.wire.internet import BROADCAST_MAC, UdpFrame, encode_udp_frame

MAC = MacAddress.parse("52:54:00:77:00:09")
XID = 7


def offer(server, *, xid=XID, kind=MessageType.OFFER):
    options = {Option.MESSAGE_TYPE: bytes((kind,)), Option.SERVER_IDENTIFIER: server.packed}
    return encode_udp_frame(
        UdpFrame(
            destination_mac=BROADCAST_MAC,
            source_mac=MAC,
            destination=dhcp.BROADCAST,
            source=server,
            destination_port=dhcp.CLIENT_PORT,
            source_port=dhcp.SERVER_PORT,
            payload=dhcp.encode(Message(op=Op.REPLY, xid=xid, chaddr=MAC, options=options)),
        )
    )


@pytest.fixture
def wire():
    """Two ends, the second ours."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs, ours:
        ours.setblocking(False)
        yield theirs, ours


def test_only_offers_that_answer_us_count(wire):
    theirs, ours = wire
    first, other = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
    for frame in (b"", offer(other, xid=8), offer(other, kind=MessageType.ACK), offer(first)[:-1], offer(first)):
        theirs.send(frame)
    found = set()
    asyncio.run(listen(ours, XID, 0.5, found))
    assert found == {first}


def test_who_says_that_he_is_many_is_heard_to_an_end(wire):
    theirs, ours = wire

    async def flood():
        for number in range(10 * MOST_SERVERS):
            await asyncio.get_running_loop().sock_sendall(theirs, offer(IPv4Address("10.77.1.0") + number))

    async def work():
        found, flooding = set(), asyncio.create_task(flood())
        await listen(ours, XID, 60.0, found)  # far longer than what it takes to hear so many
        flooding.cancel()
        return found

    theirs.setblocking(False)
    found = asyncio.run(work())
    assert found == {IPv4Address("10.77.1.0") + number for number in range(MOST_SERVERS)}
