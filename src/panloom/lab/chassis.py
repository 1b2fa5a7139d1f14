"""What a lab's chassis is: machines, their cables, the bridge they end at, and the documents that declare it all.

              lab0  10.77.0.1/24 (storage), 10.1.0.254/24 (a visitor of the servers' LAN)
   ┌───────────┼───────────┐
   n1          n2          n3            ports of the bridge: taps, veths for emulated machines
┌──┴──┐     ┌──┴──┐     ┌──┴──┐
│ n1  │     │ n2  │     │ n3  │          diskless machines, a virtio NIC each
└─────┘     └─────┘     └─────┘
"""

from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec
import yaml

from panloom.errors import ConfigError
from panloom.fabric.links import Address, Bridge, Link, Tap
from panloom.lab.qemu import FirmwareKind, Machine

BRIDGE = "lab0"
STORAGE = IPv4Interface("10.77.0.1/24")
FABRICS = {"laba": IPv4Interface("10.78.0.1/24"), "labb": IPv4Interface("10.79.0.1/24")}
"""The bridges of fabric A and B, with the control node's address there."""
VISITOR = IPv4Interface("10.1.0.254/24")
DISCOVERY = "10.77.0.200-10.77.0.239"
BOOT_TIMEOUT, UEFI_BOOT_TIMEOUT = "30s", "60s"
MEMORY_OCTETS = 192 << 20
LIVENESS = {"interval": "0.25s", "timeout": "1s"}  # of emulated machines alone: a guest of QEMU's may take longer
MAX_NODES = 180  # their addresses end below those that discovery lends


class Chassis(msgspec.Struct, frozen=True):
    """Machines and the network between them and the control node."""

    machines: tuple[Machine, ...]
    bridge: str = BRIDGE
    storage: str = str(STORAGE)
    visitor: str = str(VISITOR)
    fabrics: tuple[str, ...] = ()
    """The bridges of fabric A and B; none: there are no fabrics."""

    @classmethod
    def of(
        cls,
        *,
        nodes: int,
        qemu: int | None = None,
        firmware: Sequence[FirmwareKind] = ("bios",),
        lone: bool = False,
        load_seconds: float = 0.0,
        blades: int = 0,
        fabrics: bool = False,
    ) -> "Chassis":
        """Return a chassis of machines n1, n2, …, each with a port of its own name.

        The first ``qemu`` (None: all) are QEMU's, with each kind of ``firmware`` in turn.  The others are emulated:
        each in a process of its own if ``lone``, and writing marks every ``load_seconds``.  No document names the last
        ``blades``.  With ``fabrics`` emulated machines have a cable to each of the two.  ConfigError for more than the
        storage network has addresses for.
        """
        if not 1 <= nodes <= MAX_NODES:
            raise ConfigError("nodes", f"{nodes} do not fit into a chassis; it takes 1 to {MAX_NODES}")
        if qemu is not None and not 0 <= qemu <= nodes:
            raise ConfigError("qemu", f"{qemu} of {nodes} nodes cannot be QEMU's")
        return cls(
            tuple(
                Machine(
                    name=f"n{i}",
                    mac=f"52:54:00:77:00:{i:02x}",
                    tap=f"n{i}",
                    memory_octets=MEMORY_OCTETS,
                    kind="qemu" if qemu is None or i <= qemu else "lone" if lone else "shared",
                    load_seconds=load_seconds,
                    firmware=firmware[(i - 1) % len(firmware)],
                    is_declared=i <= nodes - blades,
                )
                for i in range(1, nodes + 1)
            ),
            fabrics=tuple(FABRICS) if fabrics else (),
        )

    @property
    def address(self) -> str:
        """The control node's storage address."""
        return str(IPv4Interface(self.storage).ip)

    def links(self) -> tuple[Link, ...]:
        """Return the interfaces that the chassis is made of, but for the cables of emulated machines."""
        return (
            Bridge(self.bridge),
            *(Tap(machine.tap, self.bridge) for machine in self.machines if machine.kind == "qemu"),
            Address(self.bridge, IPv4Interface(self.storage)),
            Address(self.bridge, IPv4Interface(self.visitor)),
            *map(Bridge, self.fabrics),
            *(Address(name, FABRICS[name]) for name in self.fabrics),
        )

    @property
    def firmware(self) -> frozenset[FirmwareKind]:
        """The kinds of firmware that QEMU's machines have."""
        return frozenset(machine.firmware for machine in self.machines if machine.kind == "qemu")

    def link_names(self) -> tuple[str, ...]:
        """Return the names of those interfaces: what the supervisor may change, and nothing else."""
        return (self.bridge, *self.fabrics, *(machine.tap for machine in self.machines if machine.kind == "qemu"))


def documents(chassis: Chassis, *, power_socket: Path, image: Path) -> str:
    """Return the documents that declare the chassis: a platform, its nodes, and the image ``web@1``."""
    storage = IPv4Interface(chassis.storage)
    platform: dict[str, object] = {
        "kind": "Platform",
        "name": "lab",
        "storage": {
            "interface": chassis.bridge,
            "address": str(storage.ip),
            "subnet": str(storage.network),
            "discovery": DISCOVERY,
        },
        "boot_timeout": BOOT_TIMEOUT if chassis.firmware <= {"bios"} else UEFI_BOOT_TIMEOUT,
    }
    if all(machine.kind != "qemu" for machine in chassis.machines):
        platform["liveness"] = LIVENESS
    if chassis.fabrics:
        platform["fabrics"] = {
            letter: {"interface": name, "subnet": str(FABRICS[name].network)}
            for letter, name in zip("ab", chassis.fabrics, strict=True)
        }
    nodes: list[dict[str, object]] = [
        {
            "kind": "Node",
            "name": machine.name,
            "mac": machine.mac,
            "address": str(storage.network[10 + number]),
            "port": machine.tap,
            "memory": f"{machine.memory_octets >> 20}MiB",
            "power": {"driver": "socket", "path": str(power_socket), "name": machine.name},
        }
        for number, machine in enumerate(chassis.machines, start=1)
        if machine.is_declared
    ]
    golden: dict[str, object] = {"kind": "Image", "name": "web", "version": 1, "source": str(image)}
    written = [{"apiVersion": "panloom/v1", **document} for document in (platform, *nodes, golden)]
    return str(yaml.safe_dump_all(written, sort_keys=False))
