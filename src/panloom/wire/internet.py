"""UDP in IPv4 in an Ethernet frame, made whole: the way to speak to a machine that has no address yet.

RFC 768, RFC 791, RFC 894, RFC 1071.

     0        6        12     14            34          42
     +--------+--------+------+-------------+-----------+---------+
     | to     | from   | 0800 | IPv4, no    | UDP       | payload |
     | MAC    | MAC    |      | options     |           |         |
     +--------+--------+------+-------------+-----------+---------+
"""

from ipaddress import IPv4Address
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress

ETHERTYPE_IPV4 = 0x0800
PROTOCOL_UDP = 17
HOP_LIMIT = 64  # RFC 1700, "recommended default TTL"
BROADCAST_MAC = MacAddress(0xFFFFFFFFFFFF)

_ETHERNET = Struct("!6s6sH")
_IPV4 = Struct("!BBHHHBBH4s4s")
_UDP = Struct("!HHHH")
_HEADERS = _ETHERNET.size + _IPV4.size + _UDP.size


class UdpFrame(msgspec.Struct, frozen=True, gc=False):
    """One unfragmented UDP datagram with its addresses at both layers."""

    destination_mac: MacAddress
    source_mac: MacAddress
    destination: IPv4Address
    source: IPv4Address
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


def encode_udp_frame(frame: UdpFrame) -> bytes:
    """Return the frame with both checksums; ValueError if the payload exceeds 65,507 octets."""
    udp_octets = _UDP.size + len(frame.payload)
    if udp_octets > 0xFFFF - _IPV4.size:
        raise ValueError(f"{len(frame.payload)} octets do not fit into one UDP datagram")
    source, destination = frame.source.packed, frame.destination.packed
    head = _IPV4.pack(0x45, 0, _IPV4.size + udp_octets, 0, 0, HOP_LIMIT, PROTOCOL_UDP, 0, source, destination)
    head = head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:]
    udp = _UDP.pack(frame.source_port, frame.destination_port, udp_octets, 0)
    pseudo = source + destination + bytes((0, PROTOCOL_UDP)) + udp_octets.to_bytes(2, "big")
    checksum = internet_checksum(pseudo + udp + frame.payload) or 0xFFFF  # RFC 768: 0 means "none"
    ethernet = _ETHERNET.pack(frame.destination_mac.to_octets(), frame.source_mac.to_octets(), ETHERTYPE_IPV4)
    return b"".join((ethernet, head, udp[:6], checksum.to_bytes(2, "big"), frame.payload))


def decode_udp_frame(octets: bytes) -> UdpFrame:
    """Read a frame, trailing Ethernet padding allowed; MalformedError if it is anything else, or damaged."""
    if len(octets) < _HEADERS:
        raise MalformedError(f"{len(octets)} octets are too few for UDP in IPv4")
    destination_mac, source_mac, ethertype = _ETHERNET.unpack_from(octets)
    start = _ETHERNET.size
    version, _, length, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(octets, start)
    if (ethertype, version, protocol, fragment & 0x3FFF) != (ETHERTYPE_IPV4, 0x45, PROTOCOL_UDP, 0):
        raise MalformedError("no whole UDP datagram in IPv4 without options")
    if not _IPV4.size + _UDP.size <= length <= len(octets) - start:
        raise MalformedError(f"IPv4 says {length} octets, the frame has {len(octets) - start}")
    if internet_checksum(octets[start : start + _IPV4.size]):
        raise MalformedError("IPv4 header checksum is wrong")
    udp = octets[start + _IPV4.size : start + length]
    source_port, destination_port, udp_octets, checksum = _UDP.unpack_from(udp)
    if udp_octets != len(udp):
        raise MalformedError(f"UDP says {udp_octets} octets, IPv4 leaves {len(udp)}")
    pseudo = source + destination + bytes((0, PROTOCOL_UDP)) + udp_octets.to_bytes(2, "big")
    if checksum and internet_checksum(pseudo + udp):
        raise MalformedError("UDP checksum is wrong")
    return UdpFrame(
        destination_mac=MacAddress.from_octets(destination_mac),
        source_mac=MacAddress.from_octets(source_mac),
        destination=IPv4Address(destination),
        source=IPv4Address(source),
        destination_port=destination_port,
        source_port=source_port,
        payload=udp[_UDP.size :],
    )
