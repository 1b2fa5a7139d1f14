"""Which stack gets a frame: one network card carries a disk's stack and an operating system's, and each sees its own.

Separated by address, each stack has a MAC of its own (``ByMac``):

    to                                    for
    a stack's MAC                         that stack
    a MAC of stacks with IP addresses     the one whose address the packet, or the ARP, is for; else nobody
    broadcast, multicast                  each stack, a copy; but TCP, which is between two hosts, for nobody
    any other MAC                         nobody

Separated by port, both stacks have one MAC and one IP address (``ByPort``):

    TCP from a storage target, at its     storage
    port, to a storage port
    later fragments of that               storage; held until the first has come
    an ICMP error about that              storage
    ARP that asks for the address         storage, which is always there
    ARP replies and announcements,        both, as each has neighbours of its own
    IPv6 neighbour discovery
    any other MAC                         nobody
    everything else                       the operating system

A frame from one of our own MACs has come back, and is for nobody.  The stacks of one card never hear each other: what
one sends goes out, and only under its own MAC, or from its own ports.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

import msgspec

from panloom.errors import MalformedError
from panloom.protocol.fragments import Fragments
from panloom.values import MacAddress
from panloom.wire.ethernet import (
    ARP_REPLY,
    ARP_REQUEST,
    HEADER_OCTETS,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    Packet,
    arp_of,
    ethertype_of,
    is_neighbour_discovery,
    packet_of,
    ports_of,
    quoted_packet,
)
from panloom.wire.internet import ETHERTYPE_IPV4, ETHERTYPE_IPV6

Address = IPv4Address | IPv6Address


class Dropped(Enum):
    """Why nobody got a frame, or why it did not leave."""

    MALFORMED = "malformed"
    FOREIGN = "foreign"  # for a MAC that is nobody's here
    REFLECTED = "reflected"  # one of ours, come back
    NO_ADDRESS = "no address"  # for a MAC that stacks share, and the IP address of none of them
    TCP_TO_GROUP = "TCP to a group"
    NOT_ITS_OWN = "not its own"  # a stack sent as somebody else


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A frame for a stack."""

    stack: str
    frame: bytes


class Separation(Protocol):
    """How stacks are told apart; ``drops`` counts what nobody got."""

    drops: Counter[Dropped]

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""

    def receive(self, frame: bytes, *, now: float) -> tuple[Delivery, ...]:
        """Take a frame off the wire; return who gets what now."""

    def may_send(self, stack: str, frame: bytes) -> bool:
        """Whether a frame of a stack may leave; one that may not is counted."""

    def handle_timer(self, *, now: float) -> None:
        """Give up what has waited too long."""


class Identity(msgspec.Struct, frozen=True):
    """Who a stack is on the wire; one with ``addresses`` may share its MAC, and gets what is for these alone."""

    stack: str
    mac: MacAddress
    addresses: frozenset[Address] = frozenset()


class ByMac:
    """Stacks with MACs; they may come and go while frames are under way."""

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        self.drops: Counter[Dropped] = Counter()
        self._stacks: tuple[str, ...] = ()
        self._mac_of: Mapping[str, bytes] = {}
        self._macs: frozenset[bytes] = frozenset()
        self._by_mac: Mapping[bytes, str] = {}
        self._by_address: Mapping[tuple[bytes, bytes], str] = {}
        self.replace(identities)

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next: never."""
        return None

    def replace(self, identities: Iterable[Identity]) -> None:
        """Take these stacks for all there are; ValueError if a frame could be for two of them."""
        chosen = tuple(identities)
        mac_of = {identity.stack: identity.mac.to_octets() for identity in chosen}
        if len(mac_of) != len(chosen):
            raise ValueError("a stack has one MAC")
        by_mac: dict[bytes, str] = {}
        by_address: dict[tuple[bytes, bytes], str] = {}
        for identity in chosen:
            mac, stack = mac_of[identity.stack], identity.stack
            if identity.mac.is_multicast:
                raise ValueError(f"{identity.mac} is a group's address; {stack} needs one of its own")
            if not identity.addresses and list(mac_of.values()).count(mac) > 1:
                raise ValueError(f"{stack} shares {identity.mac}: it needs IP addresses to be told apart by")
            if not identity.addresses:
                by_mac[mac] = stack
            for address in identity.addresses:
                if by_address.setdefault((mac, address.packed), stack) != stack:
                    raise ValueError(
                        f"{by_address[mac, address.packed]} and {stack} both have {identity.mac} and {address}"
                    )
        self._stacks = tuple(mac_of)
        self._mac_of, self._macs, self._by_mac, self._by_address = (
            mac_of,
            frozenset(mac_of.values()),
            by_mac,
            by_address,
        )

    def receive(self, frame: bytes, *, now: float) -> tuple[Delivery, ...]:  # noqa: ARG002 - as all separations
        """Take a frame off the wire; return who gets it."""
        try:
            found = self._stacks_for(frame)
        except MalformedError:
            found = Dropped.MALFORMED
        if isinstance(found, Dropped):
            self.drops[found] += 1
            return ()
        return tuple([Delivery(stack, frame) for stack in found])

    def may_send(self, stack: str, frame: bytes) -> bool:
        """Whether a frame bears its stack's MAC."""
        if frame[6:12] == self._mac_of.get(stack) and len(frame) >= HEADER_OCTETS:
            return True
        self.drops[Dropped.NOT_ITS_OWN] += 1
        return False

    def handle_timer(self, *, now: float) -> None:
        """Do nothing: nothing waits."""

    def _stacks_for(self, frame: bytes) -> Collection[str] | Dropped:
        destination, source = frame[:6], frame[6:12]
        if len(frame) < HEADER_OCTETS or source[0] & 1:
            return Dropped.MALFORMED
        if source in self._macs:
            return Dropped.REFLECTED
        if destination[0] & 1:
            return Dropped.TCP_TO_GROUP if _carries_tcp(frame) else self._stacks
        stack = self._by_mac.get(destination)
        if stack is not None:
            return (stack,)
        if destination not in self._macs:
            return Dropped.FOREIGN
        address = _address_asked(frame)
        stack = self._by_address.get((destination, address)) if address is not None else None
        return Dropped.NO_ADDRESS if stack is None else (stack,)


class StoragePorts(msgspec.Struct, frozen=True):
    """What tells storage traffic from all other: who the targets are, and which ports are kept for them."""

    mac: MacAddress
    addresses: frozenset[Address]  # of both stacks
    targets: frozenset[tuple[Address, int]]  # addresses and ports
    ports: range  # TCP ports of ours

    def __post_init__(self) -> None:
        if not (self.ports and self.ports.step == 1 and 1 <= self.ports.start <= self.ports[-1] <= 0xFFFF):
            raise ValueError(f"storage ports are a range from 1 to 65535, not {self.ports}")
        if not self.addresses or not self.targets:
            raise ValueError("separation by port needs an address and a target")


class ByPort:
    """Two stacks, ``storage`` and ``system``, with one MAC and one address."""

    def __init__(self, rule: StoragePorts, *, storage: str = "storage", system: str = "os") -> None:
        self.drops: Counter[Dropped] = Counter()
        self._mac = rule.mac.to_octets()
        self._addresses = {address.packed for address in rule.addresses}
        self._targets = {(address.packed, port) for address, port in rule.targets}
        self._target_addresses = {address for address, _ in self._targets}
        self._ports = rule.ports
        self._storage, self._system, self._both = (storage,), (system,), (storage, system)
        self._fragments: Fragments[tuple[str, ...]] = Fragments()

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""
        return self._fragments.deadline

    @property
    def lost_fragments(self) -> int:
        """How many frames were given up whose first fragment never came."""
        return self._fragments.lost

    def receive(self, frame: bytes, *, now: float) -> tuple[Delivery, ...]:
        """Take a frame off the wire; return who gets what now, fragments that waited for this one included."""
        try:
            found = self._stacks_for(frame, now)
        except MalformedError:
            found = Dropped.MALFORMED
        if isinstance(found, Dropped):
            self.drops[found] += 1
            return ()
        stacks, frames = found
        return tuple([Delivery(stack, one) for one in frames for stack in stacks])

    def may_send(self, stack: str, frame: bytes) -> bool:
        """Whether a frame bears our MAC and is of the ports that are its stack's."""
        try:
            is_its_own = frame[6:12] == self._mac and self._is_of(stack, frame)
        except (MalformedError, IndexError):
            is_its_own = False
        if not is_its_own:
            self.drops[Dropped.NOT_ITS_OWN] += 1
        return is_its_own

    def handle_timer(self, *, now: float) -> None:
        """Give up fragments whose first has not come."""
        self._fragments.handle_timer(now=now)

    def _stacks_for(self, frame: bytes, now: float) -> tuple[tuple[str, ...], tuple[bytes, ...]] | Dropped:
        if len(frame) < HEADER_OCTETS or frame[6] & 1:
            return Dropped.MALFORMED
        if frame[6:12] == self._mac:
            return Dropped.REFLECTED
        if not frame[0] & 1 and frame[:6] != self._mac:
            return Dropped.FOREIGN
        arp = arp_of(frame)
        if arp is not None:
            if arp.operation == ARP_REPLY or arp.sender == arp.target:
                return self._both, (frame,)
            is_for_us = arp.operation == ARP_REQUEST and arp.target in self._addresses
            return self._storage if is_for_us else self._system, (frame,)
        packet = packet_of(frame)
        if packet is None:
            return self._system, (frame,)
        if packet.protocol == PROTOCOL_TCP:
            return self._tcp(frame, packet, now)
        if packet.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
            if is_neighbour_discovery(frame, packet):
                return self._both, (frame,)
            about = quoted_packet(frame, packet)
            if about is not None and about.protocol == PROTOCOL_TCP and not about.offset:
                ours, theirs = ports_of(frame, about)
                if self._is_storage(about.destination, theirs, ours):
                    return self._storage, (frame,)
        return self._system, (frame,)

    def _tcp(self, frame: bytes, packet: Packet, now: float) -> tuple[tuple[str, ...], tuple[bytes, ...]] | Dropped:
        if frame[0] & 1:
            return Dropped.TCP_TO_GROUP
        if packet.source not in self._target_addresses:
            return self._system, (frame,)
        if packet.offset:
            fate = self._fragments.fate_of(packet, frame, now=now)
            return ((), ()) if fate is None else (fate, (frame,))
        theirs, ours = ports_of(frame, packet)
        stacks = self._storage if self._is_storage(packet.source, theirs, ours) else self._system
        if packet.datagram is None:
            return stacks, (frame,)
        return stacks, (frame, *self._fragments.decide(packet, stacks, now=now))

    def _is_of(self, stack: str, frame: bytes) -> bool:
        packet = packet_of(frame) if ethertype_of(frame) in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) else None
        if packet is None:
            return stack in self._system or arp_of(frame) is not None
        if packet.protocol == PROTOCOL_TCP and packet.destination in self._target_addresses:
            if packet.offset:  # its first has been judged, and without that nobody can put it together
                return True
            ours, theirs = ports_of(frame, packet)
            return self._is_storage(packet.destination, theirs, ours) == (stack in self._storage)
        return stack in self._system or is_neighbour_discovery(frame, packet)

    def _is_storage(self, target: bytes, theirs: int, ours: int) -> bool:
        return (target, theirs) in self._targets and ours in self._ports


def _carries_tcp(frame: bytes) -> bool:
    if ethertype_of(frame) not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        return False
    packet = packet_of(frame)
    return packet is not None and packet.protocol == PROTOCOL_TCP


def _address_asked(frame: bytes) -> bytes | None:
    """Return the IP address that a frame is for, None if it says none."""
    arp = arp_of(frame)
    if arp is not None:
        return arp.target
    packet = packet_of(frame)
    return packet.destination if packet is not None else None
