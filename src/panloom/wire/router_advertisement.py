"""Router solicitation and advertisement, from the Ethernet frame up: RFC 4861 sections 4.1, 4.2, 4.6, over RFC 8200.

     0        6        12     14           54
     +--------+--------+------+------------+------+------+----------+----------+---------
     | to     | from   | 86dd | IPv6,      | type | code | checksum | reserved | options     type 133: solicitation
     | MAC    | MAC    |      | hop limit  +------+------+----------+-----+----+--------
     |        |        |      | 255        | type | code | checksum | hop | MO | lifetime …  type 134: advertisement
     +--------+--------+------+------------+------+------+----------+-----+----+--------

iPXE waits for an advertisement before it boots, even where IPv6 is not used.
"""

from ipaddress import IPv6Address, IPv6Network
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import ETHERTYPE_IPV6, internet_checksum

ALL_NODES = IPv6Address("ff02::1")
ALL_ROUTERS = IPv6Address("ff02::2")
ALL_ROUTERS_MAC = MacAddress.parse("33:33:00:00:00:02")  # RFC 2464 section 7

_ETHERNET = Struct("!6s6sH")
_IPV6 = Struct("!IHBB16s16s")
_ICMP = Struct("!BBH")
_SOLICITATION = Struct("!4x")
_ADVERTISEMENT = Struct("!BBHII")
_START = _ETHERNET.size + _IPV6.size
_ICMPV6, _HOP_LIMIT = 58, 255
_TYPE_SOLICITATION, _TYPE_ADVERTISEMENT = 133, 134
_SOURCE_LINK_ADDRESS, _PREFIX_INFORMATION = 1, 3
_PREFIX = Struct("!BBBBII4x16s")  # RFC 4861 section 4.6.2
_MANAGED, _OTHER, _ON_LINK = 0x80, 0x40, 0x80
_FOR_EVER = 0xFFFFFFFF


class Solicitation(msgspec.Struct, frozen=True, gc=False):
    """A host asks for routers; ``source`` may be ``::``, and ``link_address`` (option 1) is then None."""

    source_mac: MacAddress
    source: IPv6Address
    link_address: MacAddress | None = None


class Advertisement(msgspec.Struct, frozen=True, gc=False):
    """A router answers; a lifetime of 0 says "no default router here".

    ``link`` is a prefix whose addresses are all on the link, and come from DHCPv6 alone: no host makes itself one.
    None: nobody gets an address.
    """

    destination_mac: MacAddress
    source_mac: MacAddress
    destination: IPv6Address
    source: IPv6Address
    router_lifetime_seconds: int = 0
    link: IPv6Network | None = None


def link_local(mac: MacAddress) -> IPv6Address:
    """Return the link-local address with the modified EUI-64 of ``mac``, RFC 4291 appendix A."""
    octets = mac.to_octets()
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:])


def encode_solicitation(solicitation: Solicitation) -> bytes:
    """Return the frame to all routers."""
    body = _SOLICITATION.pack() + _link_option(solicitation.link_address)
    return _encode(ALL_ROUTERS_MAC, solicitation.source_mac, ALL_ROUTERS, solicitation.source, _TYPE_SOLICITATION, body)


def decode_solicitation(octets: bytes) -> Solicitation:
    """Read a frame; MalformedError unless it is valid by RFC 4861 section 6.1.1."""
    _, source_mac, _, source, body = _decode(octets, _TYPE_SOLICITATION, _SOLICITATION.size)
    link_address = _options(body[_SOLICITATION.size :])
    if not int(source) and link_address is not None:
        raise MalformedError("a solicitation from :: carries a link-layer address")
    return Solicitation(source_mac, source, link_address)


def encode_advertisement(advertisement: Advertisement) -> bytes:
    """Return the frame; its link-layer option names the sender."""
    link = advertisement.link
    flags = _MANAGED | _OTHER if link is not None else 0
    body = _ADVERTISEMENT.pack(0, flags, advertisement.router_lifetime_seconds, 0, 0)
    body += _link_option(advertisement.source_mac)
    if link is not None:
        prefix = (link.prefixlen, _ON_LINK, _FOR_EVER, _FOR_EVER, link.network_address.packed)
        body += _PREFIX.pack(_PREFIX_INFORMATION, _PREFIX.size // 8, *prefix)
    return _encode(
        advertisement.destination_mac,
        advertisement.source_mac,
        advertisement.destination,
        advertisement.source,
        _TYPE_ADVERTISEMENT,
        body,
    )


def decode_advertisement(octets: bytes) -> Advertisement:
    """Read a frame; MalformedError unless it is valid by RFC 4861 section 6.1.2.

    Of prefixes, the first that is on the link counts, where addresses come from DHCPv6.
    """
    destination_mac, source_mac, destination, source, body = _decode(octets, _TYPE_ADVERTISEMENT, _ADVERTISEMENT.size)
    if not source.is_link_local:
        raise MalformedError(f"an advertisement from {source}, which is not link-local")
    _, flags, lifetime, _, _ = _ADVERTISEMENT.unpack_from(body)
    options = body[_ADVERTISEMENT.size :]
    _options(options)
    link = _on_link(options) if flags & _MANAGED else None
    return Advertisement(destination_mac, source_mac, destination, source, lifetime, link)


def _on_link(options: bytes) -> IPv6Network | None:
    at = 0
    while at < len(options):
        length = 8 * options[at + 1]
        if options[at] == _PREFIX_INFORMATION and length == _PREFIX.size:
            _, _, bits, flags, _, _, address = _PREFIX.unpack_from(options, at)
            if flags & _ON_LINK and bits <= 128:
                return IPv6Network((address, bits), strict=False)
        at += length
    return None


def _link_option(mac: MacAddress | None) -> bytes:
    return bytes((_SOURCE_LINK_ADDRESS, 1)) + mac.to_octets() if mac is not None else b""


def _encode(
    to_mac: MacAddress, from_mac: MacAddress, to: IPv6Address, source: IPv6Address, kind: int, body: bytes
) -> bytes:
    length = _ICMP.size + len(body)
    pseudo = source.packed + to.packed + length.to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6))
    checksum = internet_checksum(pseudo + _ICMP.pack(kind, 0, 0) + body)
    return b"".join(
        (
            _ETHERNET.pack(to_mac.to_octets(), from_mac.to_octets(), ETHERTYPE_IPV6),
            _IPV6.pack(6 << 28, length, _ICMPV6, _HOP_LIMIT, source.packed, to.packed),
            _ICMP.pack(kind, 0, checksum),
            body,
        )
    )


def _decode(octets: bytes, kind: int, least: int) -> tuple[MacAddress, MacAddress, IPv6Address, IPv6Address, bytes]:
    if len(octets) < _START + _ICMP.size + least:
        raise MalformedError(f"{len(octets)} octets are too few for ICMPv6 type {kind}")
    to_mac, from_mac, ethertype = _ETHERNET.unpack_from(octets)
    word, length, protocol, hop_limit, source, to = _IPV6.unpack_from(octets, _ETHERNET.size)
    if (ethertype, word >> 28, protocol, hop_limit) != (ETHERTYPE_IPV6, 6, _ICMPV6, _HOP_LIMIT):
        raise MalformedError("no ICMPv6 from this link")
    packet = octets[_START : _START + length]
    if len(packet) != length or length < _ICMP.size + least:
        raise MalformedError(f"IPv6 says {length} octets, the frame has {len(packet)}")
    if packet[0] != kind or packet[1]:
        raise MalformedError(f"ICMPv6 type {packet[0]} code {packet[1]}")
    if internet_checksum(source + to + length.to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6)) + packet):
        raise MalformedError("ICMPv6 checksum is wrong")
    return (
        MacAddress.from_octets(to_mac),
        MacAddress.from_octets(from_mac),
        IPv6Address(to),
        IPv6Address(source),
        packet[_ICMP.size :],
    )


def _options(octets: bytes) -> MacAddress | None:
    link_address = None
    while octets:
        length = octets[1] * 8 if len(octets) > 1 else 0
        if not 0 < length <= len(octets):
            raise MalformedError(f"option {octets[0]} has a length of {length} in {len(octets)} octets")
        if octets[0] == _SOURCE_LINK_ADDRESS and length == 8:
            link_address = MacAddress.from_octets(octets[2:8])
        octets = octets[length:]
    return link_address
