"""Hosts in network namespaces, each with a cable to fabric A and one to fabric B, and the virtual LANs between them.

┌─ switch ────────────────┐
│ fabric-a  c-a  n1-a  …  │      two bridges, nothing between them
│ fabric-b  c-b  n1-b  …  │
└────┬─────┬──────────────┘
   fa fb  fa fb
 ┌──┴──┐ ┌─┴───┐
 │  c  │ │ n1  │  …              10.78.0.0/24 on A, 10.79.0.0/24 on B; c is the control node
 └─────┘ └─────┘
"""

import socket
import struct
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from panloom.decide.fabric_plan import Change, Fabric, Host, Item, Lan, Member, changes, lan_device, states
from panloom.decide.rvi import Place
from panloom.fabric.namespaces import within
from panloom.fabric.virtual_lans import VirtualLans
from panloom.values import MacAddress, Vni
from support.namespaces import Namespace, namespace

MTU = 17000
MARKED = 0x88B5  # local experimental EtherType, IEEE 802-2014 section 9.2.3
BROADCAST = MacAddress((1 << 48) - 1)
_SHORTEST = 60
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h


class LanHost:
    """One host: its namespace, and what keeps the virtual LANs there."""

    def __init__(self, inside: Namespace, number: int, lans: VirtualLans) -> None:
        self.namespace = inside
        self.lans = lans
        addresses = (IPv4Address(f"10.78.0.{number + 1}"), IPv4Address(f"10.79.0.{number + 1}"))
        self.host = Host(Place.at(0, number), ("fa", "fb"), addresses)

    @property
    def file(self) -> Path:
        """The namespace, as a file."""
        return Path("/run/netns") / self.namespace.name

    def ear(self, device: str) -> "Ear":
        """Return what hears and says frames at a device."""
        return Ear(self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)), device)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket of this host."""
        with within(self.file):
            return socket.socket(family, kind, protocol)

    def count(self, device: str, what: str) -> int:
        """Return a counter of a device, ``rx_packets`` and the like."""
        return int(self.namespace.run("cat", f"/sys/class/net/{device}/statistics/{what}").stdout)

    def apply(self, wanted: frozenset[Item]) -> int:
        """Have the kernel be so, and return after how many changes; what is left to be done then is an error."""
        plan = changes(self.lans.observe(), wanted)
        self.lans.apply(plan)
        left = changes(self.lans.observe(), wanted)
        assert left == (), left
        return len(plan)


def marked(source: MacAddress, destination: MacAddress, text: bytes) -> bytes:
    """Return a frame that ``Ear.until`` hears."""
    return (destination.to_octets() + source.to_octets() + struct.pack("!H", MARKED) + text).ljust(_SHORTEST, b"\0")


class Ear:
    """A raw socket at a device: every frame that comes in there, in order."""

    def __init__(self, raw: socket.socket, device: str) -> None:
        raw.bind((device, 3))
        self._socket = raw

    def close(self) -> None:
        self._socket.close()

    def send(self, octets: bytes) -> None:
        """Send a frame."""
        self._socket.send(octets)

    def say(self, source: MacAddress, destination: MacAddress, text: bytes) -> None:
        """Send a marked frame with any source."""
        self.send(marked(source, destination, text))

    def until(self, text: bytes, *, also: Collection[int] = (), seconds: float = 10.0) -> list[bytes]:
        """Return the texts of all marked frames up to this one, and of frames of other kinds that are to be told.

        AssertionError if it does not come.
        """
        kinds = {struct.pack("!H", kind) for kind in (MARKED, *also)}
        heard: list[bytes] = []
        end = time.monotonic() + seconds
        while not heard or heard[-1] != text:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                octets, address = self._socket.recvfrom(1 << 16)
            except TimeoutError:
                raise AssertionError(f"{text!r} was not heard, but {heard}") from None
            if address[2] != _OUTGOING and octets[12:14] in kinds:
                heard.append(octets[14:].rstrip(b"\0"))
        return heard


class Fabrics:
    """All hosts; ``c`` is the control node, ``n1`` … the nodes."""

    def __init__(self, hosts: Mapping[str, LanHost]) -> None:
        self.hosts = hosts

    def __getitem__(self, name: str) -> LanHost:
        return self.hosts[name]

    def fabric(self, *lans: Lan) -> Fabric:
        """Return what is wanted: these LANs between all hosts."""
        nodes = tuple(host.host for name, host in self.hosts.items() if name != "c")
        return Fabric(self["c"].host, nodes, lans, MTU)

    def plan(self, name: str, *lans: Lan) -> tuple[Change, ...]:
        """Return what is missing at a host for these LANs and no others."""
        host = self[name]
        return changes(host.lans.observe(), states(self.fabric(*lans))[host.host.place])

    def apply(self, *lans: Lan) -> int:
        """Have the kernels hold these LANs and no others; return how many changes that took."""
        wanted = states(self.fabric(*lans))
        return sum(host.apply(wanted[host.host.place]) for host in self.hosts.values())


def member(lan: int, node: int, *, at: int | None = None) -> Member:
    """Return the member ``node`` of LAN number ``lan``, which is on the node of that number, or ``at`` another."""
    mac = MacAddress(0x02_50_4C_00_00_00 | lan << 8 | node)
    return Member(mac, Vni(lan << 8 | node), Place.at(0, node if at is None else at))


def lan(number: int, *nodes: int) -> Lan:
    """Return LAN number ``number`` with members of these nodes."""
    return Lan(Vni(number << 8), tuple(member(number, node) for node in nodes))


def nic(number: int) -> str:
    """Return the name of the NIC in LAN number ``number``."""
    return lan_device(Vni(number << 8))


@contextmanager
def fabrics(nodes: int) -> Iterator[Fabrics]:
    """Make the hosts and the cables; no host says anything by itself."""
    with ExitStack() as stack:
        switch = stack.enter_context(namespace("switch"))
        _batch(switch, *(f"link add fabric-{name} mtu {MTU} type bridge stp_state 0 forward_delay 0" for name in "ab"))
        _batch(switch, *(f"link set fabric-{name} addrgenmode none up" for name in "ab"))
        hosts = {}
        for number in range(nodes + 1):
            name = f"n{number}" if number else "c"
            inside = stack.enter_context(namespace(name))
            inside.run("sh", "-c", "echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
            lines = []
            for fabric in "ab":
                far = f"mtu {MTU} netns {switch.name}"
                lines.append(f"link add f{fabric} mtu {MTU} type veth peer name {name}-{fabric} {far}")
            _batch(inside, *lines)
            ports = (f"link set {name}-{fabric} master fabric-{fabric} addrgenmode none up" for fabric in "ab")
            _batch(switch, *ports)
            host = LanHost(inside, number, stack.enter_context(VirtualLans(Path("/run/netns") / inside.name)))
            for interface, address in zip(host.host.interfaces, host.host.addresses, strict=True):
                _batch(inside, f"address add {address}/24 dev {interface}", f"link set {interface} up")
            hosts[name] = host
        yield Fabrics(hosts)


def _batch(inside: Namespace, *lines: str) -> None:
    """Run several commands of ``ip`` at once."""
    subprocess.run(inside.command("ip", "-batch", "-"), input="\n".join(lines).encode(), check=True)
