"""Which DHCP servers answer on an interface: a DISCOVER from its own MAC, and whoever offers (RFC 2131 section 4.4.1).

No lease is taken: an offer that nobody requests is forgotten.  What this machine itself serves there is not heard,
since frames that it sends do not come in.
"""

import asyncio
import contextlib
import secrets
import socket
from ipaddress import IPv4Address

from panloom.boot.interface import Instruction, mac_of, packet_socket, receive_frame, tell_checksums
from panloom.errors import MalformedError, UnavailableError
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option
from panloom.wire.internet import UdpFrame, decode_udp_frame, encode_udp_frame

SURVEY_SECONDS = 6.0  # dnsmasq pings an address for 3 s before it offers it
_ASKS = 2
_ETHERTYPE_IPV4 = 0x0800
_LARGEST_FRAME = 65535
_CLIENT_PORT, _SERVER_PORT = 68, 67
_BROADCAST = IPv4Address("255.255.255.255")
_ONLY_TO_CLIENTS: tuple[Instruction, ...] = (
    (0x30, 0, 0, 23),  # the protocol of IPv4
    (0x15, 0, 4, 17),  # UDP
    (0xB1, 0, 0, 14),  # X: the length of the IPv4 head
    (0x48, 0, 0, 16),  # the destination port
    (0x15, 0, 1, _CLIENT_PORT),
    (0x06, 0, 0, _LARGEST_FRAME),
    (0x06, 0, 0, 0),
)


async def offering(interface: str, seconds: float = SURVEY_SECONDS) -> frozenset[IPv4Address]:
    """Return the servers that offer an address within some seconds, by their identifiers.

    UnavailableError when the interface is not there or is down: nobody can be asked.
    """
    found: set[IPv4Address] = set()
    xid = secrets.randbits(32)
    with packet_socket(interface, _ETHERTYPE_IPV4, wanted=_ONLY_TO_CLIENTS) as sock:
        tell_checksums(sock)
        mac = mac_of(sock)
        for _ in range(_ASKS):
            try:
                sock.send(_discover(mac, xid))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds / _ASKS):
                        while True:
                            if server := _server_of(await _frame(sock), xid):
                                found.add(server)
                            await asyncio.sleep(0)  # sock_recv gives way to nobody while there are frames
            except OSError as error:
                raise UnavailableError(f"frames on {interface}: {error.strerror}") from error
    return frozenset(found)


def _discover(mac: MacAddress, xid: int) -> bytes:
    options: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes((MessageType.DISCOVER,))}
    message = Message(op=Op.REQUEST, xid=xid, chaddr=mac, broadcast=True, options=options)
    return encode_udp_frame(
        UdpFrame(
            destination_mac=MacAddress.parse("ff:ff:ff:ff:ff:ff"),
            source_mac=mac,
            destination=_BROADCAST,
            source=dhcp.UNSPECIFIED,
            destination_port=_SERVER_PORT,
            source_port=_CLIENT_PORT,
            payload=dhcp.encode(message),
        )
    )


async def _frame(sock: socket.socket) -> tuple[bytes, bool]:
    """Return the next frame, and whether its checksum is there."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
        return receive_frame(sock, _LARGEST_FRAME)
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
