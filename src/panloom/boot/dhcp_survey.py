"""Which DHCP servers answer on an interface: a DISCOVER from its own MAC, and whoever offers (RFC 2131 section 4.4.1).

No lease is taken: an offer that nobody requests is forgotten.  What this machine itself serves there is not heard,
since frames that it sends do not come in.
"""

import asyncio
import contextlib
import secrets
import socket
from ipaddress import IPv4Address

from panloom.boot.interface import (
    DROP,
    JUMP_IF_EQUAL,
    KEEP,
    LARGEST_DATAGRAM,
    LOAD_HALF_WORD_AFTER_X,
    LOAD_OCTET,
    LOAD_X_IPV4_HEAD,
    Instruction,
    mac_of,
    packet_socket,
    receive_frame,
    tell_checksums,
)
from panloom.errors import MalformedError, UnavailableError
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option
from panloom.wire.internet import (
    BROADCAST_MAC,
    ETHERTYPE_IPV4,
    PROTOCOL_UDP,
    UdpFrame,
    decode_udp_frame,
    encode_udp_frame,
)

SURVEY_SECONDS = 6.0  # dnsmasq pings an address for 3 s before it offers it
MOST_SERVERS = 16
"""One of them is wrong already, and anybody on the wire can say that he is many."""
_ASKS = 2
_ONLY_TO_CLIENTS: tuple[Instruction, ...] = (
    (LOAD_OCTET, 0, 0, 23),  # the protocol of IPv4
    (JUMP_IF_EQUAL, 0, 4, PROTOCOL_UDP),
    (LOAD_X_IPV4_HEAD, 0, 0, 14),
    (LOAD_HALF_WORD_AFTER_X, 0, 0, 16),  # the destination port
    (JUMP_IF_EQUAL, 0, 1, dhcp.CLIENT_PORT),
    KEEP,
    DROP,
)


async def offering(interface: str, seconds: float = SURVEY_SECONDS) -> frozenset[IPv4Address]:
    """Return the servers that offer an address within some seconds, by their identifiers, at most ``MOST_SERVERS``.

    UnavailableError when the interface is not there or is down: nobody can be asked.
    """
    found: set[IPv4Address] = set()
    xid = secrets.randbits(32)
    with packet_socket(interface, ETHERTYPE_IPV4, wanted=_ONLY_TO_CLIENTS) as sock:
        tell_checksums(sock)
        mac = mac_of(sock)
        for _ in range(_ASKS):
            try:
                sock.send(_discover(mac, xid))
                await listen(sock, xid, seconds / _ASKS, found)
            except OSError as error:
                raise UnavailableError(f"frames on {interface}: {error.strerror}") from error
    return frozenset(found)


async def listen(sock: socket.socket, xid: int, seconds: float, found: set[IPv4Address]) -> None:
    """Add to ``found`` who offers within a time, until there are ``MOST_SERVERS``; OSError of the socket."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while len(found) < MOST_SERVERS:
                if server := _server_of(await _frame(sock), xid):
                    found.add(server)
                await asyncio.sleep(0)  # a socket at which frames wait gives way to nobody


def _discover(mac: MacAddress, xid: int) -> bytes:
    options: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes((MessageType.DISCOVER,))}
    message = Message(op=Op.REQUEST, xid=xid, chaddr=mac, broadcast=True, options=options)
    return encode_udp_frame(
        UdpFrame(
            destination_mac=BROADCAST_MAC,
            source_mac=mac,
            destination=dhcp.BROADCAST,
            source=dhcp.UNSPECIFIED,
            destination_port=dhcp.SERVER_PORT,
            source_port=dhcp.CLIENT_PORT,
            payload=dhcp.encode(message),
        )
    )


async def _frame(sock: socket.socket) -> tuple[bytes, bool]:
    """Return the next frame, and whether its checksum is there."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
        return receive_frame(sock, LARGEST_DATAGRAM)
    finally:
        loop.remove_reader(sock)


def _server_of(received: tuple[bytes, bool], xid: int) -> IPv4Address | None:
    frame, has_checksum = received
    try:
        reply = dhcp.decode(decode_udp_frame(frame, has_checksum=has_checksum).payload)
    except MalformedError:
        return None
    if reply.op is not Op.REPLY or reply.xid != xid or reply.message_type is not MessageType.OFFER:
        return None
    return reply.address(Option.SERVER_IDENTIFIER)
