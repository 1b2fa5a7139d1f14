"""What may enter from a node's port: the nftables table that makes a fence of it, as a value and as nft's JSON.

Each node's cable ends at a port of the control node's bridge.  A frame from a managed port passes only if it is

    an IPv4 packet   from a MAC and address that live at this port, but no DHCP server's reply (UDP source port 67)
    a DHCP request   0.0.0.0:68 → port 67, from a MAC that lives at this port
    an ARP packet    whose Ethernet source and sender are one MAC of this port, with its address or 0.0.0.0 (a probe)
    an IPv6 packet   from a MAC and address that live at this port, but no DHCPv6 server's (UDP source port 547), and no
                     router advertisement or redirect
    an ICMPv6        router or neighbour solicitation from a MAC that may use IPv6, with hop limit 255 and a link-local
                     or unspecified source; neighbour advertisement of its own address, or of a link-local one
                     (RFC 4861 sections 4.1, 4.3 and 4.4)
    a DHCPv6 request from such a MAC's link-local address, port 546 → 547

All else from it, 802.1Q tags included, is dropped and counted at the port.  Other ports, and what is sent to the nodes,
are left alone.  The sets carry the fence; the chains are always the same:

    chain ingress (prerouting)         chain port                                      chain refuse
    iifname @managed ──► goto port ──► accept what is listed above, in this order ──►  iifname @refused drop
                                       neighbour advertisements: chain advertised ──►

    managed    port                               stations        port . MAC
    refused    port, with a counter               addresses       port . MAC . IPv4 address
    neighbours port . MAC that may use IPv6       ipv6_addresses  port . MAC . IPv6 address
    senders    port . Ethernet source . ARP sender MAC . sender address
    targets    port . MAC . last 32 bits of an IPv6 address, which are those of the IPv4 address beside it

nft 1.0.6 cannot look the target of an advertisement up as an address; 32 bits of it can pass through the packet's mark.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import msgspec

from panloom.values import IpAddress, MacAddress

TABLE: Final = {"family": "bridge", "name": "panloom"}

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")  # nft reads a trailing * as a wildcard
_WITHIN: Final = {"family": "bridge", "table": "panloom"}
_SET_TYPES: Final[Mapping[str, str | list[str]]] = {
    "managed": "ifname",
    "refused": "ifname",
    "stations": ["ifname", "ether_addr"],
    "addresses": ["ifname", "ether_addr", "ipv4_addr"],
    "senders": ["ifname", "ether_addr", "ether_addr", "ipv4_addr"],
    "neighbours": ["ifname", "ether_addr"],
    "ipv6_addresses": ["ifname", "ether_addr", "ipv6_addr"],
    "targets": ["ifname", "ether_addr", "mark"],
}
_NO_ADDRESS: Final = "0.0.0.0"  # the source of who has none yet (RFC 2131 section 4.1, RFC 5227 section 1.1)


def is_filterable(port: str) -> bool:
    """Whether an interface's name can be written in a filter; the kernel allows many that cannot."""
    return _INTERFACE.match(port) is not None


class PortRule(msgspec.Struct, frozen=True, gc=False, order=True):
    """One MAC that lives at a port, and the address it may use there."""

    port: str
    mac: MacAddress
    address: IpAddress | None  # None: none yet, so DHCP and ARP probes only
    discovers: bool = False  # may ask for routers, neighbours and addresses by IPv6, as who has one may in any case


class PortFilter(msgspec.Struct, frozen=True, gc=False):
    """The whole fence; made by ``of``, so that equal fences are equal values."""

    ports: tuple[str, ...]  # managed; nothing enters from one without a rule
    rules: tuple[PortRule, ...]

    @classmethod
    def of(cls, ports: Iterable[str], rules: Iterable[PortRule]) -> "PortFilter":
        """Return the fence around ``ports``, which may not lack the port of a rule; ``ValueError`` if it does."""
        managed, wanted = sorted(set(ports)), set(rules)
        for port in managed:
            if not is_filterable(port):
                raise ValueError(f"{port!r} is no name of an interface")
        for rule in wanted:
            if rule.port not in managed:
                raise ValueError(f"{rule.mac} is placed at {rule.port}, which is not managed")
        discovering = {
            (rule.port, rule.mac) for rule in wanted if rule.discovers or isinstance(rule.address, IPv6Address)
        }
        addressed = {(rule.port, rule.mac) for rule in wanted if rule.address}
        merged = {
            PortRule(rule.port, rule.mac, rule.address, (rule.port, rule.mac) in discovering)
            for rule in wanted
            if rule.address or (rule.port, rule.mac) not in addressed
        }
        return cls(tuple(managed), tuple(sorted(merged, key=_order)))


class ReplaceTable(msgspec.Struct, frozen=True, gc=False):
    """Put this fence in place of whatever the table holds, in one transaction."""

    wanted: PortFilter


def changes(observed: PortFilter | None, wanted: PortFilter) -> tuple[ReplaceTable, ...]:
    """Return what brings ``observed`` (None: no table, or not as we made it) to ``wanted``."""
    return () if observed == wanted else (ReplaceTable(wanted),)


def render(wanted: PortFilter) -> dict[str, Any]:
    """Return nft's JSON commands, one transaction, that replace the table (libnftables-json(5))."""
    sets = _sets(wanted)
    return {
        "nftables": [
            {"add": {"table": TABLE}},  # so that the deletion finds one
            {"delete": {"table": TABLE}},
            {"add": {"table": TABLE}},
            *({"add": {"set": _declare(name, members)}} for name, members in sets.items()),
            {"add": {"chain": {**_WITHIN, "name": "refuse"}}},
            {"add": {"chain": {**_WITHIN, "name": "advertised"}}},
            {"add": {"chain": {**_WITHIN, "name": "port"}}},
            {"add": {"chain": {**_WITHIN, "name": "ingress", **_HOOK}}},
            *({"add": {"rule": {**_WITHIN, "chain": chain, "expr": list(rule)}}} for chain, rule in _CHAINS),
        ]
    }


def parse(listing: Mapping[str, Any]) -> PortFilter | None:
    """Return the fence that nft's listing of the table shows; None if its sets are not as ``render`` makes them."""
    sets: dict[str, frozenset[tuple[str, ...]]] = {}
    for item in listing["nftables"]:
        if "set" in item:
            sets[item["set"]["name"]] = frozenset(_member(element) for element in item["set"].get("elem", ()))
    if sets.keys() != _SET_TYPES.keys():
        return None
    try:
        found = _from_sets(sets)
    except ValueError:  # a member that we never write, or at a port that is not managed
        return None
    return found if _sets(found) == sets else None


def form(listing: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the chains of nft's listing without their handles: equal as long as nobody has changed them."""
    return tuple(
        {name: value for name, value in item[kind].items() if name != "handle"}
        for item in listing["nftables"]
        for kind in ("chain", "rule")
        if kind in item
    )


def refused(listing: Mapping[str, Any]) -> dict[str, int]:
    """Return how many frames from each managed port were dropped since the table was made."""
    counts = {}
    for item in listing["nftables"]:
        if item.get("set", {}).get("name") == "refused":
            for element in item["set"].get("elem", ()):
                counts[element["elem"]["val"]] = element["elem"]["counter"]["packets"]
    return counts


def _order(rule: PortRule) -> tuple[str, MacAddress, int, int]:
    return (
        (rule.port, rule.mac, rule.address.version, int(rule.address)) if rule.address else (rule.port, rule.mac, 0, 0)
    )


def _sets(wanted: PortFilter) -> dict[str, frozenset[tuple[str, ...]]]:
    """Return the members of each set."""
    ports = frozenset((port,) for port in wanted.ports)
    stations = frozenset((rule.port, str(rule.mac)) for rule in wanted.rules)
    addresses = _addresses(wanted, 4)
    probes = frozenset((port, mac, _NO_ADDRESS) for port, mac in stations)
    return {
        "managed": ports,
        "refused": ports,
        "stations": stations,
        "addresses": addresses,
        "senders": frozenset((port, mac, mac, address) for port, mac, address in addresses | probes),
        "neighbours": frozenset((rule.port, str(rule.mac)) for rule in wanted.rules if rule.discovers),
        "ipv6_addresses": (ipv6 := _addresses(wanted, 6)),
        "targets": frozenset((port, mac, str(end)) for port, mac, each in ipv6 for end in _ends(IPv6Address(each))),
    }


def _ends(address: IPv6Address) -> tuple[int, int]:
    """Return the last 32 bits as a mark may show them: nft 1.0.6 leaves their octets in the order of the wire."""
    octets = address.packed[-4:]
    return int.from_bytes(octets, "big"), int.from_bytes(octets, "little")


def _addresses(wanted: PortFilter, version: int) -> frozenset[tuple[str, ...]]:
    rules = (rule for rule in wanted.rules if rule.address is not None and rule.address.version == version)
    return frozenset((rule.port, str(rule.mac), str(rule.address)) for rule in rules)


def _from_sets(sets: Mapping[str, frozenset[tuple[str, ...]]]) -> PortFilter:
    addresses: dict[tuple[str, str], list[IpAddress | None]] = {(port, mac): [] for port, mac in sets["stations"]}
    for port, mac, address in sets["addresses"]:
        addresses.setdefault((port, mac), []).append(IPv4Address(address))
    for port, mac, address in sets["ipv6_addresses"]:
        addresses.setdefault((port, mac), []).append(IPv6Address(address))
    return PortFilter.of(
        (port for (port,) in sets["managed"]),
        (
            PortRule(port, MacAddress.parse(mac), address, (port, mac) in sets["neighbours"])
            for (port, mac), places in addresses.items()
            for address in places or [None]
        ),
    )


def _declare(name: str, members: frozenset[tuple[str, ...]]) -> dict[str, Any]:
    declaration: dict[str, Any] = {**_WITHIN, "name": name, "type": _SET_TYPES[name]}
    if name == "refused":
        declaration["stmt"] = [{"counter": None}]
    if members:  # nft refuses an empty list
        declaration["elem"] = [{"concat": member} if len(member) > 1 else member[0] for member in sorted(members)]
    return declaration


def _member(element: Any) -> tuple[str, ...]:  # noqa: ANN401 - nft writes "p1", {"concat": […]} or {"elem": {"val": "p1", …}}
    if isinstance(element, str):
        return (element,)
    if "elem" in element:
        return _member(element["elem"]["val"])
    return tuple(map(str, element["concat"]))


def _field(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def _raw(offset: int, bits: int) -> dict[str, Any]:
    """Return bits of the transport layer; an advertisement has its target from bit 64 on, RFC 4861 section 4.4."""
    return {"payload": {"base": "th", "offset": offset, "len": bits}}


def _match(left: object, right: object, *, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def _in_set(name: str, *fields: object, op: str = "==") -> dict[str, Any]:
    return _match({"concat": [_PORT, *fields]} if fields else _PORT, f"@{name}", op=op)


_PORT: Final = {"meta": {"key": "iifname"}}
_SOURCE: Final = _field("ether", "saddr")
_TYPE: Final = _field("ether", "type")
_ICMPV6: Final = 58  # RFC 4443; a number, since hosts without /etc/protocols know no names
_REFUSE: Final = {"goto": {"target": "refuse"}}
_ACCEPT: Final = {"accept": None}
_HOOK: Final = {"type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}
_ARP_OF_IPV4_ON_ETHERNET: Final = (
    _match(_TYPE, "arp"),
    _match(_field("arp", "htype"), 1),
    _match(_field("arp", "ptype"), "ip"),
    _match(_field("arp", "hlen"), 6),
    _match(_field("arp", "plen"), 4),
)
_IPV6_SOURCE: Final = _field("ip6", "saddr")
_LINK: Final = {"prefix": {"addr": "fe80::", "len": 10}}
_ND: Final = _field("icmpv6", "type")
_ADVERT: Final = (
    _match(_field("ip6", "nexthdr"), _ICMPV6),
    _match(_field("ip6", "hoplimit"), 255),
    _match(_ND, "nd-neighbor-advert"),
)
_MARK: Final = {"meta": {"key": "mark"}}
_ADVERTISED: Final = {"goto": {"target": "advertised"}}
_CHAINS: Final[tuple[tuple[str, tuple[dict[str, Any], ...]], ...]] = (
    ("refuse", (_in_set("refused"), {"drop": None})),
    ("port", (_in_set("stations", _SOURCE, op="!="), _REFUSE)),
    ("port", (_match(_TYPE, {"set": ["8021q", "8021ad"]}), _REFUSE)),
    ("port", (_match(_TYPE, "ip"), _match(_field("udp", "sport"), 67), _REFUSE)),
    ("port", (_match(_TYPE, "ip"), _in_set("addresses", _SOURCE, _field("ip", "saddr")), _ACCEPT)),
    (
        "port",
        (
            _match(_TYPE, "ip"),
            _match(_field("ip", "saddr"), _NO_ADDRESS),
            _match(_field("udp", "sport"), 68),
            _match(_field("udp", "dport"), 67),
            _ACCEPT,
        ),
    ),
    (
        "port",
        (
            *_ARP_OF_IPV4_ON_ETHERNET,
            _in_set("senders", _SOURCE, _field("arp", "saddr ether"), _field("arp", "saddr ip")),
            _ACCEPT,
        ),
    ),
    ("port", (_match(_TYPE, "ip6"), _match(_field("udp", "sport"), 547), _REFUSE)),
    ("port", (_match(_TYPE, "ip6"), _match(_ND, {"set": ["nd-router-advert", "nd-redirect"]}), _REFUSE)),
    (
        "port",
        (_match(_TYPE, "ip6"), *_ADVERT, _in_set("neighbours", _SOURCE), _match(_IPV6_SOURCE, _LINK), _ADVERTISED),
    ),
    ("port", (_match(_TYPE, "ip6"), *_ADVERT, _in_set("ipv6_addresses", _SOURCE, _IPV6_SOURCE), _ADVERTISED)),
    ("port", (_match(_TYPE, "ip6"), _match(_ND, "nd-neighbor-advert"), _REFUSE)),
    ("port", (_match(_TYPE, "ip6"), _in_set("ipv6_addresses", _SOURCE, _IPV6_SOURCE), _ACCEPT)),
    (
        "port",
        (
            _match(_TYPE, "ip6"),
            _in_set("neighbours", _SOURCE),
            _match(_field("ip6", "nexthdr"), _ICMPV6),
            _match(_field("ip6", "hoplimit"), 255),
            _match(_IPV6_SOURCE, {"set": ["::", _LINK]}),
            _match(_ND, {"set": ["nd-router-solicit", "nd-neighbor-solicit"]}),
            _ACCEPT,
        ),
    ),
    (
        "port",
        (
            _match(_TYPE, "ip6"),
            _in_set("neighbours", _SOURCE),
            _match(_IPV6_SOURCE, _LINK),
            _match(_field("udp", "sport"), 546),
            _match(_field("udp", "dport"), 547),
            _ACCEPT,
        ),
    ),
    ("port", (_REFUSE,)),
    ("advertised", (_match(_raw(64, 10), 0x3FA), _ACCEPT)),
    ("advertised", ({"mangle": {"key": _MARK, "value": _raw(160, 32)}},)),
    ("advertised", (_in_set("targets", _SOURCE, _MARK), {"mangle": {"key": _MARK, "value": 0}}, _ACCEPT)),
    ("advertised", (_REFUSE,)),
    ("ingress", (_in_set("managed"), {"goto": {"target": "port"}})),
)
