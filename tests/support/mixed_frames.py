"""Frames of all kinds made by the octet, each with who should get it: what a demultiplexer is judged by.

The judgement is the maker's: it knows what it has made, and reads no frame.
"""

import itertools
import random
import struct
from ipaddress import IPv4Address, IPv6Address

from fabric.frames import ARP, BROADCAST, IPV4, IPV6, arp, ethernet, icmpv6, tagged, udp
from panloom.wire.internet import internet_checksum

MAC1, MAC2 = bytes.fromhex("525400770001"), bytes.fromhex("02504c000001")
PEER, STRANGER = bytes.fromhex("525400770099"), bytes.fromhex("525400770042")
GROUP = bytes.fromhex("01005e0000fb")
OURS, ELSE = IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12")
TARGET, NO_TARGET = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
OURS6, TARGET6 = IPv6Address("fd77::11"), IPv6Address("fd77::1")
PORT, PORTS = 3260, range(860, 864)
STORAGE, OS, BOTH, NOBODY = {"storage"}, {"os"}, {"storage", "os"}, set()


def to(destination, kind, payload, *, source=PEER):
    return ethernet(source, kind, payload, destination=destination)


def ipv4(source, destination, protocol, payload, *, datagram=1, offset=0, more=False, options=b""):
    fragment = offset // 8 | (0x2000 if more else 0)
    octets = 20 + len(options) + len(payload)
    first = 0x40 | (20 + len(options)) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", first, 0, octets, datagram, fragment, 64, protocol, 0, source.packed, destination.packed
    )
    head += options
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + payload


def ipv6(source, destination, protocol, payload, *, fragment=None):
    """``fragment`` is (identification, offset in octets, whether more follow)."""
    if fragment is not None:
        number, offset, more = fragment
        payload = struct.pack("!BxHI", protocol, offset | more, number) + payload
        protocol = 44
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source.packed + destination.packed + payload


def tcp(theirs, ours, payload=b"", *, ack=1):
    return struct.pack("!HHIIBBHHH", theirs, ours, 1, ack, 0x50, 0x10, 1024, 0, 0) + payload


def segment(destination=MAC1, *, source=TARGET, theirs=PORT, ours=PORTS[0], payload=b"x" * 48, **how):
    return to(destination, IPV4, ipv4(source, OURS, 6, tcp(theirs, ours, payload), **how))


def ping(destination):
    return to(destination, IPV4, ipv4(TARGET, OURS, 1, struct.pack("!BBHHH", 8, 0, 0, 1, 1)))


def unreachable(destination, *, theirs=PORT, ours=PORTS[0], about=TARGET):
    quoted = ipv4(OURS, about, 6, tcp(ours, theirs))[:28]
    return to(destination, IPV4, ipv4(NO_TARGET, OURS, 1, struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted))


def reply(destination, sender=TARGET):
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + PEER + sender.packed + destination + OURS.packed
    return to(destination, ARP, body)


def llc(destination, payload=b"\xe0\xe0\x03" + b"IPX" * 10):
    """An IEEE 802.3 frame: a length in place of a type, and LLC (here of IPX)."""
    return destination + PEER + struct.pack("!H", len(payload)) + payload.ljust(46, b"\0")


def fragments(number, payload, *, destination=MAC1, theirs=PORT, ours=PORTS[0], source=TARGET):
    """A TCP segment in pieces of 24 octets, in order."""
    whole = tcp(theirs, ours, payload)
    pieces = [whole[at : at + 24] for at in range(0, len(whole), 24)]
    if isinstance(source, IPv4Address):
        return [
            to(
                destination,
                IPV4,
                ipv4(source, OURS, 6, piece, datagram=number, offset=24 * at, more=at + 1 < len(pieces)),
            )
            for at, piece in enumerate(pieces)
        ]
    return [
        to(destination, IPV6, ipv6(source, OURS6, 6, piece, fragment=(number, 24 * at, at + 1 < len(pieces))))
        for at, piece in enumerate(pieces)
    ]


def by_mac(chance: random.Random):
    """Return a frame and who gets it where each stack has its own MAC."""
    destination, right = chance.choice(
        [(MAC1, STORAGE), (MAC2, OS), (BROADCAST, BOTH), (GROUP, BOTH), (STRANGER, NOBODY)]
    )
    payload = chance.randbytes(chance.randrange(1, 200))
    kind = chance.randrange(9)
    group = destination[0] & 1
    if kind == 0:
        return segment(destination, payload=payload), NOBODY if group else right
    if kind == 1:
        return to(destination, IPV6, ipv6(TARGET6, OURS6, 6, tcp(PORT, 860, payload))), NOBODY if group else right
    if kind == 2:
        return to(destination, chance.randrange(0x0900, 0x8000), payload), right
    if kind == 3:
        return reply(destination), right
    if kind == 4:
        return arp(PEER, PEER, TARGET, OURS), BOTH
    if kind == 5:
        return to(destination, chance.choice((ARP, IPV4, 0x88B5)), payload, source=chance.choice((MAC1, MAC2))), NOBODY
    if kind == 6:
        return llc(destination), right
    if kind == 7:
        return udp(PEER, TARGET, OURS, 67, 68, payload, destination=destination), right
    return tagged(segment(destination, payload=payload)), right


def by_port(chance: random.Random, numbers=itertools.count(1)):  # noqa: B008 -- one count for all
    """Return a frame and who gets it where both stacks have one MAC; fragments come in whole families."""
    payload = chance.randbytes(chance.randrange(1, 200))
    any_port = chance.choice((22, 80, 859, 864, 40000))
    port = chance.choice(PORTS)
    cases = (
        lambda: (segment(payload=payload, ours=port), STORAGE),
        lambda: (segment(payload=payload, ours=port, options=b"\1\1\1\0"), STORAGE),
        lambda: (to(MAC1, IPV6, ipv6(TARGET6, OURS6, 6, tcp(PORT, port, payload))), STORAGE),
        lambda: (segment(payload=payload, ours=any_port), OS),
        lambda: (segment(payload=payload, ours=port, theirs=80), OS),
        lambda: (segment(payload=payload, ours=port, source=NO_TARGET), OS),
        lambda: (segment(BROADCAST, payload=payload, ours=port), NOBODY),
        lambda: (segment(STRANGER, payload=payload, ours=port), NOBODY),
        lambda: (udp(PEER, TARGET, OURS, PORT, port, payload, destination=MAC1), OS),
        lambda: (ping(MAC1), OS),
        lambda: (unreachable(MAC1, ours=port), STORAGE),
        lambda: (unreachable(MAC1, ours=any_port), OS),
        lambda: (unreachable(MAC1, ours=port, about=NO_TARGET), OS),
        lambda: (arp(PEER, PEER, TARGET, OURS), STORAGE),
        lambda: (arp(PEER, PEER, TARGET, ELSE), OS),
        lambda: (arp(PEER, PEER, TARGET, TARGET), BOTH),
        lambda: (reply(MAC1), BOTH),
        lambda: (icmpv6(PEER, TARGET6, chance.choice((133, 134, 135, 136))), BOTH),
        lambda: (to(MAC1, chance.randrange(0x0900, 0x8000), payload), OS),
        lambda: (tagged(segment(payload=payload, ours=port)), OS),
        lambda: (llc(MAC1), OS),
        lambda: (to(GROUP, 0x88B5, payload), OS),
        lambda: (segment(payload=payload, ours=port)[:6] + MAC1 + segment()[12:], NOBODY),
        lambda: (fragments(next(numbers) & 0xFFFF, payload, ours=port), STORAGE),
        lambda: (fragments(next(numbers) & 0xFFFF, payload, ours=any_port), OS),
        lambda: (fragments(next(numbers), payload, ours=port, source=TARGET6), STORAGE),
        lambda: (fragments(next(numbers) & 0xFFFF, payload, ours=port, source=NO_TARGET), OS),
    )
    return chance.choice(cases)()
