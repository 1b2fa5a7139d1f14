"""What must hold over the whole set: documents of this reading laid over those applied earlier.

One function per kind, each noting everything it finds.  A reference to something that is described but wrongly (a
suspect) is not blamed: its own mistake is already noted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TypeVar

from panloom.model.disks import is_server_disk
from panloom.model.fields import MAX_SSH_KEYS_OCTETS
from panloom.model.load import Loaded
from panloom.model.resources import (
    Image,
    Node,
    Pan,
    Platform,
    Relay,
    Resource,
    Rule,
    Server,
    VirtualLan,
    Volume,
)
from panloom.model.sources import Findings, Place, Step, did_you_mean
from panloom.values import format_size

PING_SECONDS = 0.5  # a healthy server that sends no beacon may be unheard for so long: it answers pings
MIN_INTERVAL_SECONDS = 0.05
LARGEST_STORAGE_NETWORK = 1 << 16  # a host of the fabrics is known by 16 bits of its address: decide.rvi
Kind = TypeVar("Kind", bound=Resource)
MACHINES = "node"
"""Stands in initiator names where the name of a PAN stands in those of targets."""
APPLIED_EARLIER = " (applied earlier)"
"""Stands after a resource that no file of this reading describes, where an error names it."""


def check(resources: Mapping[str, Resource], loaded: Loaded, findings: Findings) -> None:
    """Note everything that does not fit together in ``resources``, which hold what was loaded and what was there."""
    whole = _Whole(resources, loaded, findings)
    whole.check_platform()
    whole.check_nodes()
    whole.check_pans()
    whole.check_lans()
    whole.check_servers()
    whole.check_rules()
    whole.check_volumes()


class _Whole:
    """The set and where its parts stand."""

    def __init__(self, resources: Mapping[str, Resource], loaded: Loaded, findings: Findings) -> None:
        self._resources = resources
        self._ordered = sorted(resources.values(), key=lambda resource: resource.key in loaded.sources)
        self._loaded = loaded
        self._hints: dict[str, str] = {}
        self._findings = findings
        self._images = {image.name for image in self._all(Image)}

    def check_platform(self) -> None:
        for platform in self._all(Platform):
            storage = platform.storage
            self._check_host(platform, ("storage", "address"), storage.address, storage.subnet, "storage.subnet")
            for end in storage.discovery or ():
                self._check_host(platform, ("storage", "discovery"), end, storage.subnet, "storage.subnet")
            if storage.discovery and storage.discovery[0] <= storage.address <= storage.discovery[1]:
                why = f"holds the control node's own address {storage.address}; leave it out"
                self._add(platform, ("storage", "discovery"), why)
            if storage.discovery and storage.dhcp == "proxy":
                why = "lends addresses, which `dhcp: proxy` leaves to another server; leave one of them out"
                self._add(platform, ("storage", "discovery"), why)
            if storage.prefix and storage.dhcp == "proxy":
                why = "`dhcp: proxy` leaves addresses to another server, and IPv6 is given by DHCPv6 here; leave it out"
                self._add(platform, ("storage", "prefix"), why)
            self._check_relays(platform)
            self._check_liveness(platform)
            self._check_fabrics(platform)

    def _check_fabrics(self, platform: Platform) -> None:
        if platform.fabrics is None:
            return
        taken = [platform.storage.subnet]
        if platform.storage.subnet.num_addresses > LARGEST_STORAGE_NETWORK:
            why = f"beside fabrics a storage network has {LARGEST_STORAGE_NETWORK} addresses at most; write a /16"
            self._add(platform, ("storage", "subnet"), why)
        for name, subnet in (("a", platform.fabrics.a.subnet), ("b", platform.fabrics.b.subnet)):
            where: tuple[Step, ...] = ("fabrics", name, "subnet")
            if subnet.prefixlen > platform.storage.subnet.prefixlen:
                why = f"{subnet} is smaller than the storage network, whose addresses all need one beside them here"
                self._add(platform, where, f"{why}; write a /{platform.storage.subnet.prefixlen}")
            for other in taken:
                if subnet.overlaps(other):
                    self._add(platform, where, f"{subnet} overlaps {other}; take another")
            taken.append(subnet)

    def _check_liveness(self, platform: Platform) -> None:
        interval, timeout = platform.liveness.interval_seconds, platform.liveness.timeout_seconds
        if interval < MIN_INTERVAL_SECONDS:
            why = f"is shorter than {MIN_INTERVAL_SECONDS * 1000:.0f}ms, which leaves no time for work; write 500ms"
            self._add(platform, ("liveness", "interval"), why)
        least = 2 * max(interval, PING_SECONDS)
        if timeout < least:
            why = f"is too short: one late answer would be a death; write {least:g}s at least"
            self._add(platform, ("liveness", "timeout"), why)

    def _check_relays(self, platform: Platform) -> None:
        storage = platform.storage
        for index, relay in enumerate(storage.relays):
            where = ("storage", "relays", index)
            self._check_host(platform, (*where, "address"), relay.address, relay.subnet, "its subnet")
            if relay.router is not None:
                self._check_host(platform, (*where, "router"), relay.router, relay.subnet, "its subnet")
            for other in (storage.subnet, *(earlier.subnet for earlier in storage.relays[:index])):
                if relay.subnet.overlaps(other):
                    why = f"{relay.subnet} overlaps {other}, which is served too; take another"
                    self._add(platform, (*where, "subnet"), why)

    def check_nodes(self) -> None:
        platform = next(self._all(Platform), None)
        self._check_unique(Node, ("mac",), lambda node: node.mac)
        self._check_unique(Node, ("address",), lambda node: node.address)
        self._check_unique(Node, ("initiator",), lambda node: node.initiator or node.key)
        self._check_unique(Node, ("port",), lambda node: node.port or node.key)  # one adopted by itself may have none
        for node in self._all(Node):
            if node.mac.is_multicast or node.mac.number == 0:
                self._add(node, ("mac",), f"{node.mac} is no machine's own address; read it from its label or firmware")
            if platform is None:
                continue
            if platform.control.gives(node.mac):
                why = f"{node.mac} is one of our own virtual MACs, by the platform's `serial`; read the machine's label"
                self._add(node, ("mac",), why)
            storage = platform.storage
            relay = next((relay for relay in storage.relays if node.address in relay.subnet), None)
            if relay is not None and node.address not in storage.subnet:
                self._check_relayed(node, relay)
                continue
            self._check_host(node, ("address",), node.address, storage.subnet, "the platform's storage network")
            if not node.port and node.key in self._loaded.sources:
                why = "has no `port`; write the interface of the control node where its cable ends, like `port: port1`"
                self._add(node, ("port",), why)
            if node.address == storage.address:
                self._add(node, ("address",), f"{node.address} is the control node's own")
            if storage.discovery and storage.discovery[0] <= node.address <= storage.discovery[1]:
                low, high = storage.discovery
                why = f"{node.address} lies in the discovery range {low}-{high}; take one outside"
                self._add(node, ("address",), why)

    def _check_relayed(self, node: Node, relay: Relay) -> None:
        self._check_host(node, ("address",), node.address, relay.subnet, f"the network of relay {relay.address}")
        if node.address in (relay.address, relay.router):
            self._add(node, ("address",), f"{node.address} is the relay's or the router's own")
        if node.port:
            why = f"{node.address} is behind relay {relay.address}, so its cable does not end here; leave `port` out"
            self._add(node, ("port",), why)

    def check_pans(self) -> None:
        for pan in self._all(Pan):
            if pan.name == MACHINES:
                why = f"{pan.name!r} begins the names of initiators, and no target may have one of those; take another"
                self._add(pan, ("name",), why)

    def check_lans(self) -> None:
        platform = next(self._all(Platform), None)
        for lan in self._all(VirtualLan):
            self._check_pan(lan, lan.pan)
            for end in lan.range or ():
                self._check_host(lan, ("range",), end, lan.subnet, "its subnet")
            if lan.network == "fabrics":
                self._check_fabrics_lan(lan, platform)
            if lan.router is not None:
                self._check_host(lan, ("router",), lan.router, lan.subnet, "its subnet")
            for served in (platform.storage.subnet, *(r.subnet for r in platform.storage.relays)) if platform else ():
                if lan.subnet.overlaps(served):
                    why = f"{lan.subnet} overlaps the platform's storage network {served}; take another"
                    self._add(lan, ("subnet",), why)
        self._check_overlaps()
        self._check_prefixes(platform)

    def _check_fabrics_lan(self, lan: VirtualLan, platform: Platform | None) -> None:
        if platform is not None and platform.fabrics is None:
            self._add(lan, ("network",), "the platform has no `fabrics`; write them there, or leave this out")
        for field in ("range", "prefix"):
            if getattr(lan, field) is not None:
                self._add(lan, (field,), "no address is lent in a LAN over fabrics; leave it out and write each NIC's")

    def _check_prefixes(self, platform: Platform | None) -> None:
        """Note prefixes that overlap: all networks are told apart by them alone."""
        seen: list[tuple[IPv6Network, str]] = []
        owners: list[tuple[Resource, tuple[Step, ...], IPv6Network | None]] = []
        if platform is not None:
            owners.append((platform, ("storage", "prefix"), platform.storage.prefix))
            relays = enumerate(platform.storage.relays)
            owners += ((platform, ("storage", "relays", index, "prefix"), relay.prefix) for index, relay in relays)
        owners += ((lan, ("prefix",), lan.prefix) for lan in self._all(VirtualLan))
        for owner, steps, prefix in owners:
            other = next((each for each in seen if prefix is not None and prefix.overlaps(each[0])), None)
            if other is not None:
                self._add(owner, steps, f"{prefix} overlaps {other[0]} of {other[1]}; take another")
            elif prefix is not None:
                seen.append((prefix, f"{owner.kind} {owner.label}"))

    def _check_overlaps(self) -> None:
        """Note flat LANs that lie in one another: all are one broadcast domain, and a lease is of an address alone."""
        outer: VirtualLan | None = None
        flat = (lan for lan in self._all(VirtualLan) if lan.network == "flat")
        for lan in sorted(flat, key=lambda lan: (lan.subnet.network_address, lan.subnet.prefixlen)):
            if outer is None or not lan.subnet.overlaps(outer.subnet):
                outer = lan
                continue
            blamed, other = (lan, outer) if lan.key in self._loaded.sources else (outer, lan)
            if blamed.key in self._loaded.sources:
                taken = f"overlaps lan {other.label} ({other.subnet})"
                self._add(blamed, ("subnet",), f"{blamed.subnet} {taken}, and LANs share one network; take another")

    def check_servers(self) -> None:
        taken: dict[tuple[str, IPv4Address], Server] = {}
        for server in self._all(Server):
            self._check_pan(server, server.pan)
            self._check_image(server, server.image)
            self._check_node(server)
            self._check_one_nic_a_lan(server)
            self._check_ssh_keys(server, ("ssh_keys",), server.ssh_keys)
            for index, nic in enumerate(server.nics):
                self._check_nic(server, index)
                if nic.address is None:
                    continue
                other = taken.setdefault((f"{server.pan}/{nic.lan}", nic.address), server)
                if other is not server:
                    self._add_taken(server, ("nics", index, "address"), str(nic.address), other)

    def check_rules(self) -> None:
        for rule in self._all(Rule):
            for index, image in enumerate(rule.prompt.images if rule.prompt else ()):
                self._check_image(rule, image, ("prompt", "images", index))
            if rule.server is None:
                continue
            self._check_pan(rule, rule.server.pan, ("server", "pan"))
            self._check_image(rule, rule.server.image, ("server", "image"))
            self._check_ssh_keys(rule, ("server", "ssh_keys"), rule.server.ssh_keys)
            for index, name in enumerate(rule.server.lans):
                steps: tuple[Step, ...] = ("server", "lans", index)
                lan = self._lan(rule, rule.server.pan, name, steps)
                if lan is None:
                    continue
                if lan.range is None and lan.key not in self._loaded.suspects:
                    self._add(rule, steps, f"lan {lan.name} has no `range` to lend addresses from; write one there")
                elif name in rule.server.lans[:index]:
                    self._add(rule, steps, f"lan {name} is named twice; a server has one NIC in each")

    def check_volumes(self) -> None:
        for volume in self._all(Volume):
            if volume.image:
                self._check_image(volume, volume.image)
            if volume.key not in self._loaded.sources:
                continue
            self._check_pan(volume, volume.pan)
            if is_server_disk(volume, self._resources):
                why = f"is the disk of server {volume.serves}; write its `disk: {{size: …}}` there, and no volume"
                self._add(volume, ("name",), why)

    def _check_one_nic_a_lan(self, server: Server) -> None:
        """Note a second NIC in a LAN: the virtual MAC, like the rules at the port, belongs to server and LAN."""
        lans = [nic.lan for nic in server.nics]
        for index, lan in enumerate(lans):
            first = lans.index(lan)
            if first < index and server.key in self._loaded.sources:
                why = f"nics[{first}] is in lan {lan} already; a server has one NIC in each, leave it out or add a lan"
                self._add(server, ("nics", index, "lan"), why)

    def _check_ssh_keys(self, owner: Resource, steps: tuple[Step, ...], keys: tuple[str, ...]) -> None:
        octets = sum(len(f"{key}\n".encode()) for key in keys)
        if octets > MAX_SSH_KEYS_OCTETS and owner.key in self._loaded.sources:
            why = f"{octets} octets of keys are more than the {MAX_SSH_KEYS_OCTETS} that a machine is told"
            self._add(owner, steps, f"{why}; leave some out, or have its user_data fetch them")

    def _check_nic(self, server: Server, index: int) -> None:
        nic = server.nics[index]
        lan = self._lan(server, server.pan, nic.lan, ("nics", index, "lan"))
        if lan is None:
            return
        if nic.address is None:
            if lan.range is None and lan.key not in self._loaded.suspects:
                why = (
                    f"has no address, and lan {lan.name} no range to lend one; write `address:` here or `range:` there"
                )
                self._add(server, ("nics", index), why)
        elif nic.address not in lan.subnet:
            why = f"{nic.address} is outside lan {lan.name} ({lan.subnet}); use an address in it, or add a lan"
            self._add(server, ("nics", index, "address"), why)
        elif nic.address == lan.router:
            self._add(server, ("nics", index, "address"), f"{nic.address} is the router of lan {lan.name}")
        else:
            self._check_host(server, ("nics", index, "address"), nic.address, lan.subnet, f"lan {lan.name}")

    def _lan(self, owner: Resource, pan: str, name: str, steps: tuple[Step, ...]) -> VirtualLan | None:
        key = f"/want/lan/{pan}/{name}"
        lan = self._resources.get(key)
        if isinstance(lan, VirtualLan):
            return lan
        known = (lan.name for lan in self._all(VirtualLan) if lan.pan == pan)
        self._add_unknown(owner, steps, key, f"PAN {pan} has no lan {name!r}", known)
        return None

    def _check_image(self, owner: Resource, image: str, steps: tuple[Step, ...] = ("image",)) -> None:
        if image in self._images or f"/want/image/{image}" in self._resources:
            return
        name, _, version = image.partition("@")
        if any(one.name == name and version in one.tags for one in self._all(Image)):
            return
        if version and name in self._images:
            known = [image.label for image in self._all(Image) if image.name == name]
            why = f"image {name} has no version {'' if version.isdigit() else 'tagged '}{version}"
        else:
            known, why = list(self._images), f"there is no image {name!r}"
        self._add_unknown(owner, steps, f"/want/image/{name}@", why, known)

    def _check_node(self, server: Server) -> None:
        if server.node is None:
            return
        node = self._resources.get(f"/want/node/{server.node}")
        if not isinstance(node, Node):
            known = (node.name for node in self._all(Node))
            self._add_unknown(
                server, ("node",), f"/want/node/{server.node}", f"there is no node {server.node!r}", known
            )
        elif node.memory_octets < server.needs.memory_octets:
            has, needs = format_size(node.memory_octets), format_size(server.needs.memory_octets)
            self._add(server, ("node",), f"{node.name} has {has}, and {needs} are needed; prefer another, or need less")

    def _check_pan(self, owner: Resource, pan: str, steps: tuple[Step, ...] = ("pan",)) -> None:
        key = f"/want/pan/{pan}"
        if key not in self._resources:
            known = (pan.name for pan in self._all(Pan))
            self._add_unknown(owner, steps, key, f"there is no PAN {pan!r}", known)

    def _check_host(
        self, owner: Resource, steps: tuple[Step, ...], address: IPv4Address, subnet: IPv4Network, what: str
    ) -> None:
        if address not in subnet:
            self._add(owner, steps, f"{address} is outside {what} ({subnet}); use an address in it")
        elif subnet.prefixlen < 31 and address in (subnet.network_address, subnet.broadcast_address):
            which = "network" if address == subnet.network_address else "broadcast"
            self._add(owner, steps, f"{address} is the {which} address of {what} ({subnet}); use one between")

    def _check_unique(self, kind: type[Kind], steps: tuple[Step, ...], value: Callable[[Kind], object]) -> None:
        seen: dict[object, Kind] = {}
        for resource in self._all(kind):
            other = seen.setdefault(value(resource), resource)
            if other is not resource:
                self._add_taken(resource, steps, str(value(resource)), other)

    def _add_taken(self, owner: Resource, steps: tuple[Step, ...], value: str, other: Resource) -> None:
        """Blame what this reading brought: of two that clash the later one, or the only one, or neither."""
        if owner.key not in self._loaded.sources:
            owner, other = other, owner
        if owner.key not in self._loaded.sources:
            return
        source = self._loaded.sources.get(other.key)
        place = source.place(*steps) if source else None
        stands = f" ({place.file}:{place.at.line}:{place.at.column})" if place else ""
        own = self._loaded.sources.get(owner.key)
        hint = "; in a node set give each its own, like [1-2]" if place and own and own.place(*steps) == place else ""
        self._add(owner, steps, f"{value} is taken by {other.kind} {other.label}{stands}{hint}")

    def _add_unknown(self, owner: Resource, steps: tuple[Step, ...], key: str, why: str, known: Iterable[str]) -> None:
        """Blame a reference to nothing; ``known`` is read once for each ``why``: a node set may ask often."""
        if self._loaded.incomplete or any(suspect.startswith(key) for suspect in self._loaded.suspects):
            return
        if why not in self._hints:
            self._hints[why] = did_you_mean(key.rpartition("/")[2].rstrip("@"), known)
        self._add(owner, steps, f"{why}; {self._hints[why]}")

    def _add(self, owner: Resource, steps: tuple[Step, ...], why: str) -> None:
        source = self._loaded.sources.get(owner.key)
        if source is None:
            self._findings.add(None, why, where=f"{owner.kind} {owner.label}{APPLIED_EARLIER}: {_path(steps)}")
            return
        place: Place = source.place(*steps)
        if not self._findings.has_inside(place):
            self._findings.add(place, why)

    def _all(self, kind: type[Kind]) -> Iterator[Kind]:
        """Yield those of a kind: first those applied earlier, then those of this reading in their order."""
        return (resource for resource in self._ordered if isinstance(resource, kind))


def _path(steps: tuple[Step, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
