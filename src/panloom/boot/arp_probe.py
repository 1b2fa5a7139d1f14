"""Who has an address?  ARP probes on one interface, and whoever answers: RFC 5227 section 2.1.1."""

import asyncio
import contextlib
from collections.abc import Collection
from ipaddress import IPv4Address

from panloom.boot.interface import mac_of, packet_socket
from panloom.errors import MalformedError
from panloom.wire.arp import ETHERTYPE_ARP, decode_reply, encode_probe

PROBE_SECONDS = 0.1
_PROBES = 2
_LARGEST_FRAME = 65535


async def answering(interface: str, addresses: Collection[IPv4Address]) -> frozenset[IPv4Address]:
    """Return those of the addresses that somebody has, after ``PROBE_SECONDS``; UnavailableError without interface."""
    found: set[IPv4Address] = set()
    with packet_socket(interface, ETHERTYPE_ARP) as sock:
        mac = mac_of(sock)
        for _ in range(_PROBES):
            for address in addresses:
                with contextlib.suppress(OSError):  # the interface is down: nobody could answer
                    sock.send(encode_probe(address, mac))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS / _PROBES):
                    while True:
                        octets = await asyncio.get_running_loop().sock_recv(sock, _LARGEST_FRAME)
                        with contextlib.suppress(MalformedError):  # most of them: questions of others
                            found.add(decode_reply(octets).sender)
    return frozenset(found.intersection(addresses))
