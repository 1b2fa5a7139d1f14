"""ARP for IPv4 over Ethernet, as much of it as a probe needs: RFC 826, RFC 5227 section 1.1.

     0        6        12     14                        22           28          32           38
     +--------+--------+------+------+------+-----+-----+------------+-----------+------------+-----------+
     | to     | from   | 0806 | 0001 | 0800 | 6 4 | op  | sender MAC | sender IP | target MAC | target IP |
     +--------+--------+------+------+------+-----+-----+------------+-----------+------------+-----------+

A probe asks for an address in the name of 0.0.0.0, so that nobody learns anything from the question.
"""

from ipaddress import IPv4Address
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import BROADCAST_MAC

ETHERTYPE_ARP = 0x0806
OPERATION_AT = 20  # in the frame, 2 octets
REQUEST, REPLY = 1, 2

_FRAME = Struct("!6s6sHHHBBH6s4s6s4s")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)  # hardware type, protocol type, their lengths
_SMALLEST = 60  # IEEE 802.3 clause 3.2.8, without the check sequence


class ArpReply(msgspec.Struct, frozen=True, gc=False):
    """Who says that it has an address."""

    sender_mac: MacAddress
    sender: IPv4Address


def encode_probe(address: IPv4Address, source_mac: MacAddress) -> bytes:
    """Return the frame that asks all who has ``address``."""
    mac = source_mac.to_octets()
    head = (BROADCAST_MAC.to_octets(), mac, ETHERTYPE_ARP, *_ETHERNET_IPV4, REQUEST)
    return _FRAME.pack(*head, mac, bytes(4), bytes(6), address.packed).ljust(_SMALLEST, b"\0")


def decode_reply(octets: bytes) -> ArpReply:
    """Read a frame that holds a reply; MalformedError says what is wrong with it."""
    if len(octets) < _FRAME.size:
        raise MalformedError(f"{len(octets)} octets are too few for ARP")
    _, _, ethertype, *kind, operation, sender_mac, sender, _, _ = _FRAME.unpack_from(octets)
    if ethertype != ETHERTYPE_ARP or tuple(kind) != _ETHERNET_IPV4 or operation != REPLY:
        raise MalformedError("this is no ARP reply for IPv4 over Ethernet")
    mac = MacAddress.from_octets(sender_mac)
    if mac.is_multicast or not mac.number:
        raise MalformedError(f"sender {mac} is nobody's own address")
    return ArpReply(mac, IPv4Address(sender))
