"""UDP in IPv6 in an Ethernet frame, made and read whole: who sent it is its MAC, not what the sender says it is.

RFC 768, RFC 2464, RFC 8200 sections 3 and 8.1.

     0        6        12     14            54          62
     +--------+--------+------+-------------+-----------+---------+
     | to     | from   | 86dd | IPv6, no    | UDP       | payload |
     | MAC    | MAC    |      | extensions  |           |         |
     +--------+--------+------+-------------+-----------+---------+
"""

from ipaddress import IPv6Address
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import HOP_LIMIT, PROTOCOL_UDP, internet_checksum

ETHERTYPE_IPV6 = 0x86DD
NEXT_HEADER_AT, DESTINATION_PORT_AT = 20, 56  # of a frame, for a socket's filter

_ETHERNET = Struct("!6s6sH")
_IPV6 = Struct("!IHBB16s16s")
_UDP = Struct("!HHHH")
_HEADERS = _ETHERNET.size + _IPV6.size + _UDP.size
_VERSION = 6 << 28


class Ipv6UdpFrame(msgspec.Struct, frozen=True, gc=False):
    """One unfragmented UDP datagram with its addresses at both layers."""

    destination_mac: MacAddress
    source_mac: MacAddress
    destination: IPv6Address
    source: IPv6Address
    destination_port: int
    source_port: int
    payload: bytes


def encode_ipv6_udp_frame(frame: Ipv6UdpFrame) -> bytes:
    """Return the frame with its checksum; ValueError if the payload exceeds 65,527 octets."""
    udp_octets = _UDP.size + len(frame.payload)
    if udp_octets > 0xFFFF:
        raise ValueError(f"{len(frame.payload)} octets do not fit into one UDP datagram")
    source, destination = frame.source.packed, frame.destination.packed
    udp = _UDP.pack(frame.source_port, frame.destination_port, udp_octets, 0)
    checksum = internet_checksum(_pseudo_header(source, destination, udp_octets) + udp + frame.payload) or 0xFFFF
    return b"".join(
        (
            _ETHERNET.pack(frame.destination_mac.to_octets(), frame.source_mac.to_octets(), ETHERTYPE_IPV6),
            _IPV6.pack(_VERSION, udp_octets, PROTOCOL_UDP, HOP_LIMIT, source, destination),
            udp[:6],
            checksum.to_bytes(2, "big"),
            frame.payload,
        )
    )


def decode_ipv6_udp_frame(octets: bytes, *, has_checksum: bool = True) -> Ipv6UdpFrame:
    """Read a frame, trailing Ethernet padding allowed; MalformedError if it is anything else, or damaged.

    ``has_checksum`` False: its sender left that to a card, and it never passed one.
    """
    if len(octets) < _HEADERS:
        raise MalformedError(f"{len(octets)} octets are too few for UDP in IPv6")
    destination_mac, source_mac, ethertype = _ETHERNET.unpack_from(octets)
    word, length, protocol, _, source, destination = _IPV6.unpack_from(octets, _ETHERNET.size)
    if (ethertype, word >> 28, protocol) != (ETHERTYPE_IPV6, 6, PROTOCOL_UDP):
        raise MalformedError("no UDP datagram in IPv6 without extensions")
    start = _ETHERNET.size + _IPV6.size
    udp = octets[start : start + length]
    source_port, destination_port, udp_octets, checksum = _UDP.unpack_from(octets, start)
    if not len(udp) == length == udp_octets:
        raise MalformedError(f"UDP says {udp_octets} octets, IPv6 {length}, the frame has {len(udp)}")
    if has_checksum and not (checksum and internet_checksum(_pseudo_header(source, destination, length) + udp) == 0):
        raise MalformedError("UDP checksum is wrong")  # RFC 8200 section 8.1: 0 is no checksum
    return Ipv6UdpFrame(
        destination_mac=MacAddress.from_octets(destination_mac),
        source_mac=MacAddress.from_octets(source_mac),
        destination=IPv6Address(destination),
        source=IPv6Address(source),
        destination_port=destination_port,
        source_port=source_port,
        payload=udp[_UDP.size :],
    )


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, PROTOCOL_UDP))
