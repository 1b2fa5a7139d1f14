"""UDP in IPv4 or IPv6 in an Ethernet frame, made and read whole: the way to speak to a machine that has no address yet.

RFC 768, RFC 791, RFC 894, RFC 1071, RFC 2464, RFC 8200 sections 3 and 8.1.

     0        6        12     14            34          42
     +--------+--------+------+-------------+-----------+---------+
     | to     | from   | 0800 | IPv4, no    | UDP       | payload |
     | MAC    | MAC    |      | options     |           |         |
     +--------+--------+------+-------------+-----------+---------+
     0        6        12     14            54          62
     +--------+--------+------+-------------+-----------+---------+
     | to     | from   | 86dd | IPv6, no    | UDP       | payload |
     | MAC    | MAC    |      | extensions  |           |         |
     +--------+--------+------+-------------+-----------+---------+
"""

from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Generic, TypeVar

import msgspec

from panloom.errors import MalformedError
from panloom.values import IpAddress, MacAddress

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
NEXT_HEADER_AT, DESTINATION_PORT_AT = 20, 56  # of a frame with IPv6, for a socket's filter
PROTOCOL_UDP = 17
HOP_LIMIT = 64  # RFC 1700, "recommended default TTL"
BROADCAST_MAC = MacAddress(0xFFFFFFFFFFFF)

_ETHERNET = Struct("!6s6sH")
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_IPV6_VERSION = 6 << 28
_UDP = Struct("!HHHH")
_Address = TypeVar("_Address", bound=IpAddress)


class UdpFrame(msgspec.Struct, Generic[_Address], frozen=True, gc=False):
    """One unfragmented UDP datagram with its addresses at both layers."""

    destination_mac: MacAddress
    source_mac: MacAddress
    destination: _Address
    source: _Address
    destination_port: int
    source_port: int
    payload: bytes


def internet_checksum(octets: bytes) -> int:
    """Return the ones' complement sum of RFC 1071; 0 over octets that carry their own right checksum."""
    if len(octets) % 2:
        octets += b"\0"
    # 2^16 is 1 modulo 2^16-1, so the folded sum of all words is the whole number modulo 0xFFFF, with 0xFFFF for "0".
    total = int.from_bytes(octets, "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def encode_udp_frame(frame: UdpFrame[_Address]) -> bytes:
    """Return the frame with its checksums; ValueError if the payload exceeds 65,507 octets, by IPv6 65,527."""
    udp_octets = _UDP.size + len(frame.payload)
    source, destination = frame.source.packed, frame.destination.packed
    if udp_octets > 0xFFFF - (_IPV4.size if frame.source.version == 4 else 0):
        raise ValueError(f"{len(frame.payload)} octets do not fit into one UDP datagram")
    if frame.source.version == 4:
        ethertype = ETHERTYPE_IPV4
        head = _IPV4.pack(0x45, 0, _IPV4.size + udp_octets, 0, 0, HOP_LIMIT, PROTOCOL_UDP, 0, source, destination)
        head = head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:]
    else:
        ethertype = ETHERTYPE_IPV6
        head = _IPV6.pack(_IPV6_VERSION, udp_octets, PROTOCOL_UDP, HOP_LIMIT, source, destination)
    udp = _UDP.pack(frame.source_port, frame.destination_port, udp_octets, 0)
    pseudo = _pseudo_header(source, destination, udp_octets)
    checksum = internet_checksum(pseudo + udp + frame.payload) or 0xFFFF  # RFC 768: 0 means "none"
    ethernet = _ETHERNET.pack(frame.destination_mac.to_octets(), frame.source_mac.to_octets(), ethertype)
    return b"".join((ethernet, head, udp[:6], checksum.to_bytes(2, "big"), frame.payload))


def decode_udp_frame(octets: bytes, *, has_checksum: bool = True) -> UdpFrame[IPv4Address]:
    """Read a frame with IPv4, trailing Ethernet padding allowed; MalformedError if it is anything else, or damaged.

    ``has_checksum`` False: its sender left that to a card, and it never passed one.
    """
    start = _ETHERNET.size
    if len(octets) < start + _IPV4.size + _UDP.size:
        raise MalformedError(f"{len(octets)} octets are too few for UDP in IPv4")
    _, _, ethertype = _ETHERNET.unpack_from(octets)
    version, _, length, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(octets, start)
    if (ethertype, version, protocol, fragment & 0x3FFF) != (ETHERTYPE_IPV4, 0x45, PROTOCOL_UDP, 0):
        raise MalformedError("no whole UDP datagram in IPv4 without options")
    if not _IPV4.size + _UDP.size <= length <= len(octets) - start:
        raise MalformedError(f"IPv4 says {length} octets, the frame has {len(octets) - start}")
    if internet_checksum(octets[start : start + _IPV4.size]):
        raise MalformedError("IPv4 header checksum is wrong")
    udp = octets[start + _IPV4.size : start + length]
    has_checksum = has_checksum and udp[6:8] != b"\0\0"  # RFC 768
    return _decode_udp(octets, udp, IPv4Address(source), IPv4Address(destination), has_checksum=has_checksum)


def decode_ipv6_udp_frame(octets: bytes, *, has_checksum: bool = True) -> UdpFrame[IPv6Address]:
    """Read a frame with IPv6, trailing Ethernet padding allowed; MalformedError if it is anything else, or damaged.

    ``has_checksum`` False: its sender left that to a card, and it never passed one.
    """
    start = _ETHERNET.size + _IPV6.size
    if len(octets) < start + _UDP.size:
        raise MalformedError(f"{len(octets)} octets are too few for UDP in IPv6")
    _, _, ethertype = _ETHERNET.unpack_from(octets)
    word, length, protocol, _, source, destination = _IPV6.unpack_from(octets, _ETHERNET.size)
    if (ethertype, word >> 28, protocol) != (ETHERTYPE_IPV6, 6, PROTOCOL_UDP):
        raise MalformedError("no UDP datagram in IPv6 without extensions")
    udp = octets[start : start + length]
    if not _UDP.size <= length == len(udp):
        raise MalformedError(f"IPv6 says {length} octets, the frame has {len(udp)}")
    if has_checksum and udp[6:8] == b"\0\0":
        raise MalformedError("UDP checksum is missing")  # RFC 8200 section 8.1
    return _decode_udp(octets, udp, IPv6Address(source), IPv6Address(destination), has_checksum=has_checksum)


def _decode_udp(
    octets: bytes, udp: bytes, source: _Address, destination: _Address, *, has_checksum: bool
) -> UdpFrame[_Address]:
    source_port, destination_port, udp_octets, _ = _UDP.unpack_from(udp)
    if udp_octets != len(udp):
        raise MalformedError(f"UDP says {udp_octets} octets, IP leaves {len(udp)}")
    if has_checksum and internet_checksum(_pseudo_header(source.packed, destination.packed, udp_octets) + udp):
        raise MalformedError("UDP checksum is wrong")
    return UdpFrame(
        destination_mac=MacAddress.from_octets(octets[:6]),
        source_mac=MacAddress.from_octets(octets[6:12]),
        destination=destination,
        source=source,
        destination_port=destination_port,
        source_port=source_port,
        payload=udp[_UDP.size :],
    )


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    """Return what the checksum covers beside the datagram; that of IPv4 holds the same words, and zeros add nothing."""
    return source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, PROTOCOL_UDP))
