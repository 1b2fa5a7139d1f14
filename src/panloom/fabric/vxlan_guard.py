"""The filter before a host's VXLAN devices: who may send into which virtual LAN, and who tried what he may not.

    UDP port 4789 ─▶ from a fabric's interface?
                       ─▶ outer source · VNI · inner source MAC  in admitted, or  outer source · VNI  in relays: let in
                       ─▶ else dropped: counted for the source where that is known, else for strangers
    from a member's port up to the control node itself: dropped, whatever it is

It is one table of the family inet and one of the family bridge.  Which text made them is told by a chain's name, so a
new process finds what an older one left in force; whoever changes rules by hand changes their number.
"""

import hashlib
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any, Final

from panloom.decide.fabric_plan import VXLAN_PORT, Admission, Change, FabricPort, Guard, Make, Source
from panloom.fabric.nftables import Nftables
from panloom.values import MacAddress, Vni

Guarded = Guard | FabricPort | Source | Admission

_NAME: Final = "panloom_lans"
_STRANGERS: Final = "strangers"
# VXLAN, RFC 7348 section 5: behind 8 octets of UDP, the VNI begins at octet 4 and the inner Ethernet header at octet 8.
_VNI, _INNER_SOURCE = "@th,96,24", "@th,176,48"
_TABLES: Final = f"""\
table inet {_NAME} {{
  set ports {{
    type ifname
  }}
  set admitted {{
    typeof ip saddr . {_VNI} . {_INNER_SOURCE}
  }}
  set relays {{
    typeof ip saddr . {_VNI}
  }}
  set sources {{
    type ipv4_addr
    counter
  }}
  counter {_STRANGERS} {{
  }}
  chain refuse {{
    ip saddr @sources drop
    counter name {_STRANGERS} drop
  }}
  chain vxlan {{
    iifname != @ports goto refuse
    ip saddr . {_VNI} . {_INNER_SOURCE} @admitted accept
    ip saddr . {_VNI} @relays accept
    goto refuse
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    udp dport {VXLAN_PORT} goto vxlan
  }}
}}
table bridge {_NAME} {{
  chain local {{
    type filter hook input priority -300; policy accept;
    iifname "mem-*" drop
  }}
}}
"""
_RULES: Final = 8
_MARK: Final = f"made_{hashlib.sha256(_TABLES.encode()).hexdigest()[:16]}"
_ANEW: Final = "".join(f"table {family} {_NAME}\ndelete table {family} {_NAME}\n" for family in ("inet", "bridge"))
_MAKE: Final = f"{_ANEW}{_TABLES}add chain inet {_NAME} {_MARK}\n"


class VxlanGuard:
    """The two tables in the kernel of the namespace that ``nftables`` is of."""

    def __init__(self, nftables: Nftables) -> None:
        self._nftables = nftables

    def observe(self) -> frozenset[Guarded]:
        """Return what is in force; nothing at all if the tables are not as they are made here."""
        listings = [self._list(family) for family in ("inet", "bridge")]
        items = [item for listing in listings for item in listing]
        if not any(item.get("chain", {}).get("name") == _MARK for item in items):
            return frozenset()
        if sum("rule" in item for item in items) != _RULES:
            return frozenset()
        found: set[Guarded] = {Guard()}
        for item in items:
            if "set" in item:
                elements = item["set"].get("elem", ())
                found.update(_read(item["set"]["name"], element) for element in elements)
        return frozenset(found)

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes, all at once; KernelError with nft's words if that is refused."""
        elements: dict[tuple[str, str], list[str]] = {}
        first = last = text = ""
        for change in changes:
            verb = "add" if isinstance(change, Make) else "delete"
            match change.item:
                case Guard() if verb == "add":
                    first = _MAKE
                case Guard():
                    last = _ANEW
                case FabricPort() | Source() | Admission() as item:
                    elements.setdefault((verb, _set_of(item)), []).append(_write(item))
        for (verb, name), written in sorted(elements.items(), reverse=True):  # deletions first
            text += f"{verb} element inet {_NAME} {name} {{ {', '.join(written)} }}\n"
        if first or text or last:
            self._nftables.run(first + text + last)

    def refused(self) -> dict[IPv4Address | None, int]:
        """Return how many packets of each known source were dropped, and under None those of strangers."""
        counts: dict[IPv4Address | None, int] = {}
        for item in self._list("inet"):
            if item.get("counter", {}).get("name") == _STRANGERS:
                counts[None] = item["counter"]["packets"]
            elif item.get("set", {}).get("name") == "sources":
                for element in item["set"].get("elem", ()):
                    counts[IPv4Address(element["elem"]["val"])] = element["elem"]["counter"]["packets"]
        return counts

    def _list(self, family: str) -> list[Mapping[str, Any]]:
        tables = self._nftables.run({"nftables": [{"list": {"tables": {"family": family}}}]})
        if not any(item.get("table", {}).get("name") == _NAME for item in tables["nftables"]):
            return []
        listing = self._nftables.run({"nftables": [{"list": {"table": {"family": family, "name": _NAME}}}]})
        return list(listing["nftables"])


def _set_of(item: FabricPort | Source | Admission) -> str:
    match item:
        case FabricPort():
            return "ports"
        case Source():
            return "sources"
        case Admission(mac=None):
            return "relays"
        case Admission():
            return "admitted"


def _write(item: FabricPort | Source | Admission) -> str:
    match item:
        case FabricPort(interface):
            return f'"{interface}"'
        case Source(address):
            return str(address)
        case Admission(address, vni, mac):
            return f"{address} . {vni.number:#x}{f' . {mac.number:#x}' if mac else ''}"


def _read(name: str, element: Any) -> Guarded:  # noqa: ANN401 - nft writes "fa", {"concat": […]} or {"elem": {"val": "10.1.0.1", …}}
    match name:
        case "ports":
            return FabricPort(element)
        case "sources":
            return Source(IPv4Address(element["elem"]["val"]))
        case _:
            address, vni, *mac = element["concat"]
            return Admission(IPv4Address(address), Vni(vni), MacAddress(mac[0]) if mac else None)
