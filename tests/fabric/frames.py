"""Ethernet frames made octet by octet, and the plain twin of the port filter that says which of them may enter."""

import struct
from ipaddress import IPv4Address, IPv6Address

BROADCAST = bytes([255] * 6)
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ALL_ROUTERS = IPv6Address("ff02::2")
NO_ADDRESS = IPv4Address(0)


def ethernet(source, kind, payload, *, destination=BROADCAST):
    return (destination + source + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def tagged(frame, vid=5):
    return frame[:12] + struct.pack("!HH", VLAN, vid) + frame[12:]


def arp(source, sender_mac, sender, target, *, operation=1, hlen=6):
    body = struct.pack("!HHBBH", 1, IPV4, hlen, 4, operation) + sender_mac + sender.packed + bytes(6) + target.packed
    return ethernet(source, ARP, body)


def udp(source, sender, receiver, sport, dport, payload=b"", *, destination=BROADCAST):
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, sender.packed, receiver.packed)
    total = sum(struct.unpack("!10H", head))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return ethernet(source, IPV4, head[:10] + struct.pack("!H", total) + head[12:] + datagram, destination=destination)


def icmpv6(source, sender, kind, *, hop_limit=255, receiver=ALL_ROUTERS, next_header=58, target=None):
    body = struct.pack("!BBHI", kind, 0, 0, 0) + (target.packed if target else b"")
    head = struct.pack("!IHBB", 6 << 28, len(body), next_header, hop_limit) + sender.packed + receiver.packed
    return ethernet(source, IPV6, head + body)


def ipv6_udp(source, sender, receiver, sport, dport, payload=b""):
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + sender.packed + receiver.packed
    return ethernet(source, IPV6, head + datagram)


def may_enter(fence, port, frame):
    """Return what the port filter should decide, by reading the frame from left to right."""
    if port not in fence.ports:
        return True
    source = frame[6:12]
    here = [rule for rule in fence.rules if rule.port == port and rule.mac.to_octets() == source]
    if not here:
        return False
    addresses = {rule.address for rule in here}
    (kind,) = struct.unpack_from("!H", frame, 12)
    payload = frame[14:]
    if kind == IPV4:
        sender = IPv4Address(payload[12:16])
        sport, dport = struct.unpack_from("!HH", payload, 20) if payload[9] == 17 else (None, None)
        if sport == 67:
            return False
        return sender in addresses or (sender == NO_ADDRESS and (sport, dport) == (68, 67))
    if kind == ARP:
        hardware, protocol, hlen, plen = struct.unpack_from("!HHBB", payload)
        sender_mac, sender = payload[8:14], IPv4Address(payload[14:18])
        right_form = (hardware, protocol, hlen, plen) == (1, IPV4, 6, 4)
        return right_form and sender_mac == source and (sender in addresses or sender == NO_ADDRESS)
    if kind == IPV6:
        return may_enter_ipv6(payload, addresses, discovers=any(rule.discovers for rule in here))
    return False


def may_enter_ipv6(packet, addresses, *, discovers):
    next_header, hop_limit, sender = packet[6], packet[7], IPv6Address(packet[8:24])
    body = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
    kind = body[0] if next_header == 58 and body else None
    sport, dport = struct.unpack_from("!HH", body) if next_header == 17 and len(body) >= 4 else (None, None)
    if sport == 547 or kind in (134, 137):
        return False
    if kind == 136:
        target = IPv6Address(body[8:24]) if len(body) >= 24 else None
        ends = {int(address) & 0xFFFFFFFF for address in addresses if isinstance(address, IPv6Address)}
        is_its_own = target is not None and (target.is_link_local or int(target) & 0xFFFFFFFF in ends)
        return hop_limit == 255 and is_its_own and (sender in addresses or (discovers and sender.is_link_local))
    if sender in addresses:
        return True
    if kind in (133, 135):
        return discovers and hop_limit == 255 and (sender.is_link_local or sender == IPv6Address(0))
    return discovers and sender.is_link_local and (sport, dport) == (546, 547)
