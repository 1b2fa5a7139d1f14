"""Who has an address?  ARP probes on one interface, and whoever answers: RFC 5227 section 2.1.1."""

import asyncio
import contextlib
import socket
from collections.abc import Collection
from ipaddress import IPv4Address

from panloom.boot.interface import LARGEST_DATAGRAM, mac_of, packet_socket
from panloom.errors import MalformedError, UnavailableError
from panloom.values import MacAddress
from panloom.wire.arp import ETHERTYPE_ARP, ArpReply, decode_reply, encode_probe

PROBE_SECONDS = 0.1
_PROBES = 2


async def answering(interface: str, addresses: Collection[IPv4Address]) -> frozenset[IPv4Address]:
    """Return those of the addresses that somebody has, after ``PROBE_SECONDS``.

    UnavailableError when the interface is not there or is down: nobody can be asked.
    """
    return frozenset(await owners(interface, addresses))


async def owners(
    interface: str, addresses: Collection[IPv4Address], seconds: float = PROBE_SECONDS
) -> dict[IPv4Address, frozenset[MacAddress]]:
    """Return address → who says that it has it, after some seconds; errors as ``answering``."""
    found: dict[IPv4Address, set[MacAddress]] = {}
    with packet_socket(interface, ETHERTYPE_ARP) as sock:
        mac = mac_of(sock)
        for _ in range(_PROBES):
            for address in addresses:
                with contextlib.suppress(OSError):  # one that is lost on the wire is no other
                    sock.send(encode_probe(address, mac))
            try:
                for reply in await replies(sock, seconds / _PROBES):
                    found.setdefault(reply.sender, set()).add(reply.sender_mac)
            except OSError as error:
                raise UnavailableError(f"frames on {interface}: {error.strerror}") from error
    return {address: frozenset(macs) for address, macs in found.items() if address in addresses}


async def replies(sock: socket.socket, seconds: float) -> set[ArpReply]:
    """Return the replies that come in within a time, however many frames do."""
    loop, found = asyncio.get_running_loop(), set[ArpReply]()
    end = loop.time() + seconds
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(end):
            while loop.time() < end:
                octets = await loop.sock_recv(sock, LARGEST_DATAGRAM)
                with contextlib.suppress(MalformedError):  # most of them: questions of others
                    found.add(decode_reply(octets))
                await asyncio.sleep(0)  # sock_recv gives way to nobody while there are frames
    return found
