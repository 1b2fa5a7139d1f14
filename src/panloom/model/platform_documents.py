"""What may be written of a platform: its networks, its fabrics, and what all its servers are held to.

kind: Platform    control, storage: {relays}, liveness, consoles, fabrics    PlatformSpec
"""

from typing import Annotated, Literal

from pydantic import Field

from panloom.model import resources
from panloom.model.fields import (
    Address,
    Count,
    Duration,
    Interface,
    Port,
    Prefix,
    Range,
    Serial,
    Subnet,
    Word,
)
from panloom.model.image_documents import ImagePolicySpec
from panloom.model.written import Spec, Written


class ControlNodeSpec(Written):
    """The control node itself."""

    serial: Serial = 0x504C


class RelaySpec(Written):
    """A network of nodes behind a router, whose DHCP relay asks for them."""

    address: Address = Field(examples=["10.0.1.1"])
    subnet: Subnet = Field(examples=["10.0.1.0/24"])
    router: Address | None = None
    prefix: Prefix | None = Field(None, examples=["2001:db8:0:1::/64"])
    """IPv6 beside IPv4: each address has one with the same last 32 bits; left out: none."""

    def part(self) -> resources.Relay:
        """Return what it means."""
        return resources.Relay(**dict(self))


class StorageNetworkSpec(Written):
    """The network that boots machines and carries their disks."""

    interface: Interface = Field(examples=["eth1"])
    address: Address = Field(examples=["10.0.0.1"])
    subnet: Subnet = Field(examples=["10.0.0.0/24"])
    dhcp: Literal["server", "proxy"] = "server"
    """`proxy`: another server gives the addresses, and nodes are told what to boot"""
    discovery: Range | None = None
    relays: tuple[RelaySpec, ...] = ()
    http_port: Port = 8080
    iscsi_port: Port = 3260
    prefix: Prefix | None = Field(None, examples=["2001:db8::/64"])
    """IPv6 beside IPv4: each address has one with the same last 32 bits; left out: none."""


class FabricNetworkSpec(Written):
    """One of the two networks that carry virtual LANs."""

    interface: Interface = Field(examples=["eth2"])
    """The control node's; its address is the administrator's to give."""
    subnet: Subnet = Field(examples=["10.0.8.0/24"])
    """A host's address here ends as its storage address does."""

    def part(self) -> resources.FabricNetwork:
        """Return what it means."""
        return resources.FabricNetwork(**dict(self))


class FabricsSpec(Written):
    """The two networks that carry virtual LANs."""

    a: FabricNetworkSpec = Field(examples=["{interface: eth2, subnet: 10.0.8.0/24}"])
    b: FabricNetworkSpec = Field(examples=["{interface: eth3, subnet: 10.0.9.0/24}"])
    mtu: Annotated[int, Field(ge=1280, le=65535)] = 1500
    """The largest packet that both carry; 16946 lets a LAN have its 16896 octets."""

    def part(self) -> resources.Fabrics:
        """Return what it means."""
        return resources.Fabrics(a=self.a.part(), b=self.b.part(), mtu=self.mtu)


class LivenessSpec(Written):
    """When a silent server counts as dead."""

    interval: Duration = 0.5
    timeout: Duration = 3.0
    max_simultaneous: Count = 2


class ConsoleUsersSpec(Written):
    """Who may use the consoles of nodes, of those whom the control process answers: users, and `group:NAME`."""

    type: tuple[Word, ...] | None = Field(None, examples=["[ada, group:operators]"])
    """Who may type, and read; left out: all."""
    read: tuple[Word, ...] | None = Field(None, examples=["[group:staff]"])
    """Who else may read; left out: all."""


class PlatformSpec(Spec):
    """All that one set of control nodes runs."""

    control: ControlNodeSpec = ControlNodeSpec()
    storage: StorageNetworkSpec = Field(examples=["{interface: eth1, address: 10.0.0.1, subnet: 10.0.0.0/24}"])
    auth: Literal["chap", "none"] = "chap"
    approve: resources.Approval = "manual"
    liveness: LivenessSpec = LivenessSpec()
    boot_timeout: Duration = 90.0
    max_boot_attempts: Count = 3
    consoles: ConsoleUsersSpec = ConsoleUsersSpec()
    images: ImagePolicySpec = ImagePolicySpec()
    fabrics: FabricsSpec | None = None

    def resource(self, pan: str, name: str) -> resources.Platform:  # noqa: ARG002
        """Return what it means."""
        return resources.Platform(
            name=name,
            control=resources.ControlNode(serial=self.control.serial),
            storage=resources.StorageNetwork(
                **{**dict(self.storage), "relays": tuple(relay.part() for relay in self.storage.relays)}
            ),
            auth=self.auth,
            approve=self.approve,
            liveness=resources.Liveness(
                interval_seconds=self.liveness.interval,
                timeout_seconds=self.liveness.timeout,
                max_simultaneous=self.liveness.max_simultaneous,
            ),
            boot_timeout_seconds=self.boot_timeout,
            max_boot_attempts=self.max_boot_attempts,
            consoles=resources.ConsoleUsers(**dict(self.consoles)),
            images=resources.ImagePolicy(unsigned=self.images.unsigned, keys=self.images.keys),
            fabrics=self.fabrics and self.fabrics.part(),
        )
