"""What the kernel of each host should hold, so that the virtual LANs are what the documents say.

A LAN has a VNI, and each member one more, by which the control node knows who speaks.  Frames for a known member go
straight to its node; all others go to the control node, whose bridge clones them to every member but the sender:

      node n1                                                                              node n2
     ┌───────────────────┐    VNI of the LAN, on leg A or B of the RVI to n2              ┌──────────┐
     │ lan-00000a (vxlan)│ ═══════════════════════════════════════════════════════════▶   │lan-00000a│
     │   Peer: MAC ▶ RVI │                 control node                                   │          │
     │   Default ────────┼─── VNI of ────▶ mem-00000b ┐                                   │          │
     └───────────────────┘    the member              ├ lan-00000a (bridge)               │          │
                                           mem-00000c ┘   Default ── VNI of the LAN ───▶  │          │
                                                                                          └──────────┘

A ``Guard`` on each host lets in what an ``Admission`` names and counts the rest: outer source, VNI and inner source
MAC belong together, so that who forges one of them is heard by nobody.

    states(fabric)[place] ─▶ wanted ┐
    observe() ─────────────▶ have   ┴▶ changes ─▶ apply ─▶ observe: the difference is empty
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address
from typing import Final

import msgspec

from panloom.decide.rvi import Place
from panloom.values import MacAddress, Vni

LARGEST_MTU: Final = 16896  # octets, of what a member may send in one frame
ENCAPSULATION_OCTETS: Final = 50  # IPv4, UDP, VXLAN and the inner Ethernet header: RFC 7348 section 5
VXLAN_PORT: Final = 4789  # RFC 7348 section 5

# ── what is wanted ───────────────────────────────────────────────────────────────────────────────────────────────────


class Host(msgspec.Struct, frozen=True):
    """A node or the control node; first what it has on fabric A, then on B."""

    place: Place
    interfaces: tuple[str, str]
    addresses: tuple[IPv4Address, IPv4Address]


class Member(msgspec.Struct, frozen=True):
    """A server's NIC in a LAN.  ``place``: the node that carries the server, None for no node."""

    mac: MacAddress
    vni: Vni
    place: Place | None


class Lan(msgspec.Struct, frozen=True):
    """A virtual LAN."""

    vni: Vni
    members: tuple[Member, ...]


class Fabric(msgspec.Struct, frozen=True):
    """The hosts, the LANs between them, and the largest packet that both fabrics carry."""

    control: Host
    nodes: tuple[Host, ...]
    lans: tuple[Lan, ...]
    mtu: int = 1500


# ── what a kernel holds ──────────────────────────────────────────────────────────────────────────────────────────────


class _Item(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What a kernel holds of the virtual LANs; tagged, since nodes are told of theirs in messages."""


class Guard(_Item, frozen=True):
    """The filter that lets VXLAN in from ``FabricPort``s alone, and there only what an ``Admission`` names."""


class FabricPort(_Item, frozen=True):
    """An interface where VXLAN may come in."""

    interface: str


class Source(_Item, frozen=True):
    """An address whose refused frames are counted apart from those of strangers."""

    address: IPv4Address


class Admission(_Item, frozen=True):
    """Who may send what: outer source, VNI, inner source MAC.  ``mac`` None: any, as the control node relays."""

    address: IPv4Address
    vni: Vni
    mac: MacAddress | None


class Leg(_Item, frozen=True):
    """One leg of an RVI: a nexthop for FDB entries."""

    number: int
    address: IPv4Address


class Rvi(_Item, frozen=True):
    """The group of these legs: a flow of frames takes one of them."""

    number: int
    legs: tuple[int, ...]


class Bridge(_Item, frozen=True):
    """The control node's bridge of a LAN, which takes no part in it: no address, no ARP, no IPv6, no learning."""

    name: str
    whole: bool = True  # False: it is there, but not wholly as said here


class Vxlan(_Item, frozen=True):
    """A VXLAN device that learns nothing: a member's NIC with its MAC, or a port of ``bridge``.

    Such a port floods no unicast, and neither it nor the bridge has an IPv6 address.
    """

    name: str
    vni: Vni
    mtu: int
    mac: MacAddress | None = None  # None: nobody's, it sends nothing of its own
    bridge: str | None = None
    whole: bool = True


class Station(_Item, frozen=True):
    """A bridge's entry: this MAC is at this port."""

    port: str
    mac: MacAddress


class Peer(_Item, frozen=True):
    """A VXLAN device's entry: this MAC is reached by this RVI, with the VNI of the device."""

    device: str
    mac: MacAddress
    rvi: int


class Default(_Item, frozen=True):
    """Where a VXLAN device sends broadcast, multicast and whatever no ``Peer`` names, and with which VNI."""

    device: str
    address: IPv4Address
    vni: Vni


Item = Guard | FabricPort | Source | Admission | Leg | Rvi | Bridge | Vxlan | Station | Peer | Default
_ORDER: Final = (Guard, FabricPort, Source, Admission, Leg, Rvi, Bridge, Vxlan, Station, Peer, Default)


def lan_device(vni: Vni) -> str:
    """Return the name of a LAN's NIC on a node, and of its bridge on the control node."""
    return f"lan-{vni.number:06x}"


def member_port(vni: Vni) -> str:
    """Return the name of a member's port on the control node."""
    return f"mem-{vni.number:06x}"


def states(fabric: Fabric) -> dict[Place, frozenset[Item]]:
    """Return what the kernel of each host should hold.

    ValueError if two members of a LAN are on one node, if one is at a place without a host, or if two VNIs are alike.
    """
    _check(fabric)
    hosts = {host.place: host for host in (fabric.control, *fabric.nodes)}
    wanted: dict[Place, set[Item]] = {
        place: {Guard(), *map(FabricPort, host.interfaces)} for place, host in hosts.items()
    }
    wanted[fabric.control.place].update(Source(address) for node in fabric.nodes for address in node.addresses)
    mtu = min(LARGEST_MTU, fabric.mtu - ENCAPSULATION_OCTETS)
    for lan in fabric.lans:
        placed = [(member, hosts[member.place]) for member in lan.members if member.place is not None]
        if placed:
            wanted[fabric.control.place].update(_served(lan, placed, mtu))
        for member, host in placed:
            others = [(other, away) for other, away in placed if other is not member]
            wanted[host.place].update(_joined(lan, member, others, fabric.control, mtu))
    return {place: frozenset(items) for place, items in wanted.items()}


def _check(fabric: Fabric) -> None:
    vnis = Counter(vni for lan in fabric.lans for vni in (lan.vni, *(member.vni for member in lan.members)))
    for vni, times in vnis.items():
        if times > 1:
            raise ValueError(f"VNI {vni} is given to {times}")
    nodes = {node.place for node in fabric.nodes}
    for lan in fabric.lans:
        places = Counter(member.place for member in lan.members if member.place is not None)
        for place, times in places.items():
            if place not in nodes:
                raise ValueError(f"a member of LAN {lan.vni} is at {place}, where no node is")
            if times > 1:
                raise ValueError(f"{times} members of LAN {lan.vni} are on one node, at {place}")


def _served(lan: Lan, placed: Iterable[tuple[Member, Host]], mtu: int) -> Iterator[Item]:
    """Return the control node's side: a bridge with a port for each member."""
    bridge = lan_device(lan.vni)
    yield Bridge(bridge)
    for member, host in placed:
        port = member_port(member.vni)
        yield Vxlan(port, member.vni, mtu, bridge=bridge)
        yield Station(port, member.mac)
        yield Default(port, _channel(member, host), lan.vni)
        yield from (Admission(address, member.vni, member.mac) for address in host.addresses)


def _joined(lan: Lan, member: Member, others: Iterable[tuple[Member, Host]], control: Host, mtu: int) -> Iterator[Item]:
    """Return a node's side: a NIC, and the way to each other member."""
    nic = lan_device(lan.vni)
    yield Vxlan(nic, lan.vni, mtu, mac=member.mac)
    yield Default(nic, _channel(member, control), member.vni)
    yield from (Admission(address, lan.vni, None) for address in control.addresses)
    for other, host in others:
        yield from _rvi(host)
        yield Peer(nic, other.mac, host.place.rvi)
        yield from (Admission(address, lan.vni, other.mac) for address in host.addresses)


def _rvi(to: Host) -> Iterator[Item]:
    legs = tuple(Leg(to.place.leg(fabric), address) for fabric, address in enumerate(to.addresses))
    yield from legs
    yield Rvi(to.place.rvi, tuple(leg.number for leg in legs))


def _channel(member: Member, far: Host) -> IPv4Address:
    """Return where a member's frames through the control node go.

    An entry with a VNI of its own has one address: half of the members have theirs on fabric A and half on B.
    """
    return far.addresses[member.vni.number % len(far.addresses)]


# ── from one to the other ────────────────────────────────────────────────────────────────────────────────────────────


class Make(msgspec.Struct, frozen=True, gc=False):
    """Let this be so, whether it is missing, half there or another."""

    item: Item


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Let this be no more."""

    item: Item


Change = Make | Remove


def changes(observed: Collection[Item], wanted: Collection[Item]) -> tuple[Change, ...]:
    """Return what brings ``observed`` to ``wanted``.

    What is not to come in any more is shut out before anything else changes.  RVIs go last: the kernel takes a group
    away with its last leg, and every entry with its group.
    """
    stays = {_identity(item) for item in wanted}
    gone = sorted((item for item in observed if _identity(item) not in stays), key=_rank, reverse=True)
    known = set(observed)
    new = {item for item in wanted if item not in known}
    while hanging := {item for item in wanted if item not in new and not _devices(new).isdisjoint(_hangs_on(item))}:
        new |= hanging  # what is made anew takes with it what hangs on it
    shut = [item for item in gone if isinstance(item, Admission)]
    last = [item for item in gone if isinstance(item, Guard | FabricPort | Source | Leg | Rvi)]
    between = [item for item in gone if isinstance(item, Bridge | Vxlan | Station | Peer | Default)]
    return (*map(Remove, shut), *map(Remove, between), *map(Make, sorted(new, key=_rank)), *map(Remove, last))


def _devices(items: Iterable[Item]) -> frozenset[str]:
    return frozenset(item.name for item in items if isinstance(item, Bridge | Vxlan))


def _rank(item: Item) -> tuple[int, str]:
    return _ORDER.index(type(item)), str(item)


def _identity(item: Item) -> object:
    """Return what two versions of the same thing share."""
    match item:
        case Leg() | Rvi():
            return type(item), item.number
        case Bridge() | Vxlan():
            return type(item), item.name
        case Peer():
            return Peer, item.device, item.mac
        case _:
            return item


def _hangs_on(item: Item) -> tuple[str, ...]:
    """Return the names of the devices without which an item cannot be."""
    match item:
        case Vxlan(bridge=str(bridge)):
            return (bridge,)
        case Station():
            return (item.port,)
        case Peer() | Default():
            return (item.device,)
        case _:
            return ()
