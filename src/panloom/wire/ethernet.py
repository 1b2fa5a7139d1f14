"""Where a frame goes and what it carries, read from any frame without a copy: enough to choose who gets it.

IEEE 802.3 clause 3.2, RFC 791 section 3.1, RFC 8200 section 4, RFC 792, RFC 4443 section 2.1, RFC 826.

     0        6        12     14
     +--------+--------+------+----------------------------------------------------+---------------+
     | to     | from   | type | IPv4 or IPv6 header, options or extension headers  | TCP, ICMP …   |
     | MAC    | MAC    |      |                                                    ▲ payload_at    ▲ end
     +--------+--------+------+----------------------------------------------------+---------------+

A type below 0600h is a length (IEEE 802.3, with an LLC header); such frames carry no packet.
"""

from struct import Struct
from typing import Final

import msgspec

from panloom.errors import MalformedError
from panloom.wire.arp import ETHERTYPE_ARP
from panloom.wire.internet import ETHERTYPE_IPV4, ETHERTYPE_IPV6

HEADER_OCTETS: Final = 14
ARP_REQUEST, ARP_REPLY = 1, 2
PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_ICMPV6 = 1, 6, 58
NEIGHBOUR_TYPES: Final = range(133, 138)  # RFC 4861 section 4: router and neighbour discovery, redirect
TCP_HEADER_OCTETS: Final = 20

_IPV4 = Struct("!BBHHHBB2x4s4s")
_IPV6 = Struct("!IHBB16s16s")
_EXTENSION = Struct("!BB")
_FRAGMENT = Struct("!BxHI")
_PORTS = Struct("!HH")
_ARP = Struct("!HHBBH6s4s6s4s")
_ARP_OF_IPV4 = (1, ETHERTYPE_IPV4, 6, 4)
_MORE_FRAGMENTS_V4, _OFFSET_V4 = 0x2000, 0x1FFF
_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60
_MOST_EXTENSIONS = 8
_ICMP_ERRORS: Final = {PROTOCOL_ICMP: frozenset((3, 4, 5, 11, 12)), PROTOCOL_ICMPV6: frozenset((1, 2, 3, 4))}
_QUOTE_AT: Final = 8  # in an ICMP error


class Packet(msgspec.Struct, frozen=True, gc=False):
    """An IPv4 or IPv6 packet in a frame; addresses are of 4 or 16 octets."""

    source: bytes
    destination: bytes
    protocol: int
    payload_at: int  # in the frame
    end: int  # in the frame, without its padding
    datagram: int | None = None  # the identification of what this is a fragment of; None: it is whole
    offset: int = 0  # of this fragment's payload, in units of 8 octets


class ArpHead(msgspec.Struct, frozen=True, gc=False):
    """What ARP asks or says."""

    operation: int
    sender: bytes
    target: bytes


def ethertype_of(frame: bytes | memoryview) -> int:
    """Return type or length of a frame of 14 octets or more."""
    return frame[12] << 8 | frame[13]


def packet_of(frame: bytes) -> Packet | None:
    """Return the packet in a frame, None if it carries none; MalformedError: it says that it does, and does not."""
    kind = ethertype_of(frame)
    if kind == ETHERTYPE_IPV4:
        return _ipv4(frame, HEADER_OCTETS, is_quoted=False)
    if kind == ETHERTYPE_IPV6:
        return _ipv6(frame, HEADER_OCTETS, is_quoted=False)
    return None


def ports_of(frame: bytes, packet: Packet) -> tuple[int, int]:
    """Return source and destination port of TCP or UDP; MalformedError if they are not in this packet."""
    if packet.offset or packet.payload_at + _PORTS.size > packet.end:
        raise MalformedError("the ports are not in this packet")
    source, destination = _PORTS.unpack_from(frame, packet.payload_at)
    return source, destination


def quoted_packet(frame: bytes, packet: Packet) -> Packet | None:
    """Return the packet that an ICMP error is about, None for anything else."""
    at = packet.payload_at + _QUOTE_AT
    if packet.offset or packet.payload_at >= packet.end:
        return None
    if frame[packet.payload_at] not in _ICMP_ERRORS.get(packet.protocol, ()):
        return None
    read = _ipv4 if packet.protocol == PROTOCOL_ICMP else _ipv6
    return read(frame[: packet.end], at, is_quoted=True)


def is_neighbour_discovery(frame: bytes, packet: Packet) -> bool:
    """Whether it is what IPv6 has in place of ARP."""
    return (
        packet.protocol == PROTOCOL_ICMPV6
        and not packet.offset
        and packet.payload_at < packet.end
        and frame[packet.payload_at] in NEIGHBOUR_TYPES
    )


def arp_of(frame: bytes) -> ArpHead | None:
    """Return the ARP of a frame, None if it is none for IPv4 over Ethernet; MalformedError: it is cut short."""
    if ethertype_of(frame) != ETHERTYPE_ARP:
        return None
    if len(frame) < HEADER_OCTETS + _ARP.size:
        raise MalformedError(f"{len(frame)} octets are too few for ARP")
    *kind, operation, _, sender, _, target = _ARP.unpack_from(frame, HEADER_OCTETS)
    return ArpHead(operation, sender, target) if tuple(kind) == _ARP_OF_IPV4 else None


def _ipv4(frame: bytes, at: int, *, is_quoted: bool) -> Packet:
    if len(frame) < at + _IPV4.size:
        raise MalformedError("too few octets for IPv4")
    version, _, octets, datagram, fragment, _, protocol, source, destination = _IPV4.unpack_from(frame, at)
    header_octets = (version & 15) * 4
    end = len(frame) if is_quoted else at + octets
    if version >> 4 != 4 or header_octets < _IPV4.size or not at + header_octets <= end <= len(frame):
        raise MalformedError("no IPv4 header")
    is_whole = not fragment & (_MORE_FRAGMENTS_V4 | _OFFSET_V4)
    return Packet(
        source,
        destination,
        protocol,
        at + header_octets,
        end,
        None if is_whole else datagram,
        fragment & _OFFSET_V4,
    )


def _ipv6(frame: bytes, at: int, *, is_quoted: bool) -> Packet:
    if len(frame) < at + _IPV6.size:
        raise MalformedError("too few octets for IPv6")
    version, octets, kind, _, source, destination = _IPV6.unpack_from(frame, at)
    place = at + _IPV6.size
    end = len(frame) if is_quoted else place + octets
    if version >> 28 != 6 or end > len(frame):
        raise MalformedError("no IPv6 header")
    datagram, offset = None, 0
    for _ in range(_MOST_EXTENSIONS):
        if kind not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _AUTHENTICATION, _OPTIONS) or offset:
            return Packet(source, destination, kind, place, end, datagram, offset)
        if place + _FRAGMENT.size > end:
            raise MalformedError("an extension header is cut short")
        if kind == _FRAGMENT_HEADER:
            kind, fragment, identification = _FRAGMENT.unpack_from(frame, place)
            if fragment & 0xFFF9:  # RFC 6946: an atomic fragment is whole
                datagram, offset = identification, fragment >> 3
            place += _FRAGMENT.size
        else:
            of, (kind, units) = kind, _EXTENSION.unpack_from(frame, place)
            place += (units + 2) * 4 if of == _AUTHENTICATION else (units + 1) * 8
        if place > end:
            raise MalformedError("an extension header is cut short")
    raise MalformedError(f"more than {_MOST_EXTENSIONS} extension headers")
