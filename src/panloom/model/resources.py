"""Flat resources: what the documents mean once node sets are expanded and defaults filled in.

Each is one entry of the store, as JSON, under its own key; everything below ``control/`` reads these and never YAML::

    /want/platform             Platform      all that one set of control nodes runs
    /want/node/n1              Node          a diskless machine
    /want/image/web@1          Image         a read-only golden disk, one entry a version
    /want/pan/shop             Pan           servers, LANs and disks, isolated from other PANs
    /want/lan/shop/front       VirtualLan    one broadcast domain
    /want/rule/blades          Rule          what a machine that nobody named becomes
    /want/server/shop/web1     Server        a personality that wants a node
    /want/volume/shop/web1     Volume        a server's disk, a clone of an image or a snapshot

Placement, epochs, leases, MAC counters and secrets are no resources: they are records beside them.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from panloom.values import MacAddress

WANT = "/want/"

Mac = Annotated[
    MacAddress,
    BeforeValidator(lambda value: MacAddress.parse(value) if isinstance(value, str) else value),
    PlainSerializer(str),
]
AddressRange = tuple[IPv4Address, IPv4Address]
"""First and last address, both included."""
Auth = Literal["chap", "none"]
Fence = Literal["storage+port", "power"]
Provisioning = Literal["thin", "thick"]
DiskFormat = Literal["raw", "qcow2", "vmdk"]
Architecture = Literal["x86-64", "arm64"]
Approval = Literal["manual", "always"]
RuleApproval = Literal["manual", "always", "prompt"]


class Part(BaseModel):
    """A piece of a resource; an unknown key in the store is a newer format, refused and never guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resource(Part):
    """What has a key of its own."""

    kind: ClassVar[str]
    """The noun of keys, command line and API."""

    name: str

    @property
    def label(self) -> str:
        """The name within its kind: ``n1``, ``web@1``, ``shop/web1``."""
        return self.name

    @property
    def key(self) -> str:
        """Where it is stored."""
        return f"{WANT}{self.kind}/{self.label}"


class Member(Resource):
    """What belongs to a PAN."""

    pan: str

    @property
    def label(self) -> str:
        """``PAN/name``."""
        return f"{self.pan}/{self.name}"


class ControlNode(Part):
    """The control node itself."""

    serial: int = 0x504C
    """16 bits that tell its virtual MACs from another control node's."""

    def gives(self, mac: MacAddress) -> bool:
        """Whether a MAC is one of its virtual ones, whose layout is told in ``decide.mac_address``."""
        return mac.number >> 24 == 0x02 << 16 | self.serial


class Relay(Part):
    """A network of nodes behind a router, whose DHCP relay asks for them."""

    address: IPv4Address
    """The relay's own in that network: the ``giaddr`` of what it forwards."""
    subnet: IPv4Network
    router: IPv4Address | None = None
    """None: the relay."""
    prefix: IPv6Network | None = None
    """Beside each address of the subnet there is one of IPv6, with the same last 32 bits; None: of IPv4 alone."""


class StorageNetwork(Part):
    """The network that boots machines and carries their disks."""

    interface: str
    address: IPv4Address
    """The control node's own."""
    subnet: IPv4Network
    dhcp: Literal["server", "proxy"] = "server"
    """``proxy``: another server gives the addresses, and nodes are told what to boot."""
    discovery: AddressRange | None = None
    """Lent to machines that no Node document names; None leaves them unanswered."""
    relays: tuple[Relay, ...] = ()
    http_port: int = 8080
    iscsi_port: int = 3260
    prefix: IPv6Network | None = None
    """As for a relay: our own address of IPv6, and each node's, is the one beside that of IPv4."""


class FabricNetwork(Part):
    """One of the two networks that carry virtual LANs."""

    interface: str
    """The control node's."""
    subnet: IPv4Network
    """A host's address here ends as its storage address does."""


class Fabrics(Part):
    """The two networks that carry virtual LANs, and the largest packet that both do."""

    a: FabricNetwork
    b: FabricNetwork
    mtu: int = 1500


class Liveness(Part):
    """When a silent server counts as dead."""

    interval_seconds: float = 0.5
    timeout_seconds: float = 3.0
    max_simultaneous: int = 2
    """More servers than this silent at once: our own network is suspected, nothing is fenced."""


class ConsoleUsers(Part):
    """Who may use the consoles of nodes, of those whom the control process answers: users, and ``group:NAME``."""

    type: tuple[str, ...] | None = None
    """Who may type, and read; None: all."""
    read: tuple[str, ...] | None = None
    """Who else may read; None: all."""


class ImagePolicy(Part):
    """Which images disks may be made of."""

    unsigned: Literal["allow", "refuse"] = "allow"
    """Whether one may that no trusted key signed; one with a bad signature of such a key never may."""
    keys: dict[str, str] = {}
    """Trusted public keys, by names for them."""


class Platform(Resource):
    """All that one set of control nodes runs; there is one."""

    kind = "platform"
    control: ControlNode = ControlNode()
    storage: StorageNetwork
    auth: Auth = "chap"
    approve: Approval = "manual"
    """Whether a discovered machine becomes a spare by itself."""
    liveness: Liveness = Liveness()
    boot_timeout_seconds: float = 90.0
    max_boot_attempts: int = 3
    consoles: ConsoleUsers = ConsoleUsers()
    images: ImagePolicy = ImagePolicy()
    fabrics: Fabrics | None = None
    """None: every virtual LAN is on the storage network."""

    @property
    def key(self) -> str:
        """There is one platform, so its key has no name."""
        return f"{WANT}platform"


class SocketPower(Part):
    """Power through a Unix socket that speaks JSON lines."""

    driver: Literal["socket"] = "socket"
    path: str
    name: str
    """The machine's name at the far end."""


class ScriptPower(Part):
    """Power through a program of the administrator's: ``PATH on|off|reset|status NAME``."""

    driver: Literal["script"] = "script"
    path: str
    name: str
    """The machine's name as the program knows it."""


class IpmiPower(Part):
    """Power through the machine's management controller, spoken to by ``ipmitool`` over LAN (IPMI 2.0, RMCP+)."""

    driver: Literal["ipmi"] = "ipmi"
    address: IPv4Address
    port: int = 623
    user: str
    password_file: str
    """A file on the control node with the password alone, readable by its owner only."""
    cipher_suite: int | None = None
    """IPMI 2.0 table 22-20; None: what the management controller offers decides."""


Power = Annotated[SocketPower | ScriptPower | IpmiPower, Field(discriminator="driver")]


class Node(Resource):
    """A diskless machine; it keeps its hardware MAC and storage address for ever."""

    kind = "node"
    mac: Mac
    address: IPv4Address
    port: str
    """The interface of the control node where its cable ends; empty behind a relay."""
    memory_octets: int
    cores: int = 0
    """0, as None below: what the machine says itself."""
    architecture: Architecture | None = None
    nics: int = 0
    initiator: str | None = None
    """The iSCSI name that its firmware was set to; None: one is made of its name."""
    power: Power | None = None
    """None: nobody but a person can switch it."""


class Image(Resource):
    """One version of a read-only golden disk."""

    kind = "image"
    version: int
    source: str = ""
    """Path on the control node; empty for one that is captured."""
    capture: str = ""
    """The disk that it is a copy of, as ``donors`` reads it."""
    user: str | None = None
    secret_file: str | None = None
    """CHAP of the donor's target; the file is on the control node."""
    format: DiskFormat | None = None
    """None: what its first octets say."""
    sha256: str | None = None
    """Of the disk, however the file packs it; None: whatever it is."""
    tags: tuple[str, ...] = ()
    provenance: dict[str, str] = {}
    """Where it comes from, in its maker's words."""
    signatures: tuple[str, ...] = ()
    """As ``image_signatures`` reads them."""

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def origin(self) -> str:
        """The path or the donor."""
        return self.source or self.capture


class Pan(Resource):
    """A named set of servers, LANs and disks, isolated from other PANs."""

    kind = "pan"


class VirtualLan(Member):
    """One broadcast domain."""

    kind = "lan"
    subnet: IPv4Network
    range: AddressRange | None = None
    """Lent to NICs without an address of their own."""
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str | None = None
    prefix: IPv6Network | None = None
    """As for a relay, and beside the range there is one to lend by DHCPv6."""
    network: Literal["flat", "fabrics"] = "flat"
    """``fabrics``: apart from all other LANs, over the platform's fabrics; else on the storage network."""


class Limits(Part):
    """What a disk may do in a second; 0 is as much as it can."""

    operations: int = 0
    octets: int = 0


class Disk(Part):
    """The server's root disk."""

    size_octets: int = 0
    """0 is the image's own size, or the snapshot's."""
    snapshot: str | None = None
    """``VOLUME@NAME`` in the same PAN, which it is a clone of; None: of the server's image."""
    provisioning: Provisioning = "thin"
    limits: Limits = Limits()


class Nic(Part):
    """A virtual NIC; its MAC is a record, as no two may ever be the same."""

    lan: str
    address: IPv4Address | None = None
    """None: one from the LAN's range."""


class Needs(Part):
    """What a node must have to be this server."""

    memory_octets: int = 0
    cores: int = 0
    architecture: Architecture | None = None
    nics: int = 0


class Failover(Part):
    """What happens when the server's node dies."""

    enabled: bool = True
    within_seconds: float = 10.0
    fence: Fence = "storage+port"


class Health(Part):
    """When a server that was given a new disk counts as well."""

    tcp: int | None = None
    """The port where its first NIC's address must accept a connection; None: nothing is asked."""
    command: str | None = None
    """A program on the control node that must end with 0: ``PATH PAN/SERVER ADDRESS NODE``; None: none."""
    within_seconds: float = 180.0
    """From when it has the disk; after that it gets its old one back."""
    settle_seconds: float = 5.0
    """How long it must be up without a break."""


class Server(Member):
    """A personality that wants a node."""

    kind = "server"
    image: str
    """As written: ``web@1``, or ``web`` or ``web@TAG`` for the newest version, of that tag, when its disk is made."""
    disk: Disk = Disk()
    nics: tuple[Nic, ...] = ()
    node: str | None = None
    """A preference, not a promise."""
    needs: Needs = Needs()
    failover: Failover = Failover()
    health: Health = Health()
    auth: Auth | None = None
    """None: the platform's."""
    ssh_keys: tuple[str, ...] = ()
    """As in authorized_keys, without options."""
    user_data: str = ""
    """For cloud-init; empty: nothing."""


class Match(Part):
    """What a machine must be; patterns have * and ?, and know no case."""

    mac: str | None = None
    vendor: str | None = None
    product: str | None = None
    architecture: Architecture | None = None
    memory_octets: int = 0
    cores: int = 0


class Becoming(Part):
    """The server that a machine becomes; its name is the rule's and the machine's MAC."""

    pan: str
    image: str
    disk: Disk = Disk()
    lans: tuple[str, ...] = ()
    """It has a NIC in each, with an address of the LAN's range."""
    needs: Needs = Needs()
    failover: Failover = Failover()
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""


class Prompt(Part):
    """The menu on a machine's console: which images it offers beside the rule's own."""

    images: tuple[str, ...] = ()
    """Empty: all that there are."""
    timeout_seconds: float = 30.0
    """After which it takes the rule's own."""


class Rule(Resource):
    """What a machine becomes that asks to boot and that no document names."""

    kind = "rule"
    match: Match = Match()
    server: Becoming | None = None
    """None: a spare."""
    approve: RuleApproval = "always"
    """Whether a person must say so, and where: ``prompt`` asks at the machine's console."""
    prompt: Prompt | None = None
    """None: as it is by itself."""


class Volume(Member):
    """A copy-on-write clone of an image or a snapshot; which is a server's disk is told in ``disks``."""

    kind = "volume"
    server: str | None = None
    """Whose disk it is, of the servers of its PAN; None: that of its own name, empty: nobody's."""
    image: str
    """Always with its version; empty for the clone of a snapshot."""
    size_octets: int = 0
    """0 is the image's own size, or the snapshot's."""
    snapshot: str | None = None
    """``VOLUME@NAME`` in the same PAN."""
    provisioning: Provisioning = "thin"
    limits: Limits = Limits()

    @property
    def serves(self) -> str | None:
        """The label of the server whose disk it is, if there is that server; None where it is nobody's."""
        name = self.name if self.server is None else self.server
        return f"{self.pan}/{name}" if name else None

    @property
    def storage_snapshot(self) -> str | None:
        """What the storage process calls the snapshot."""
        return f"{self.pan}.{self.snapshot}" if self.snapshot else None

    @property
    def storage_name(self) -> str:
        """What the storage process calls it."""
        return f"{self.pan}.{self.name}"


KINDS: dict[str, type[Resource]] = {
    kind.kind: kind for kind in (Platform, Node, Image, Pan, VirtualLan, Rule, Server, Volume)
}
"""In the order in which they are made: nothing refers to a later kind."""


def order(resource: Resource) -> tuple[object, ...]:
    """Return what sorts resources as they are made, and web2 before web10."""
    parts = re.split(r"([0-9]+)", resource.label)
    name = (("", int(part)) if part.isdigit() else (part, 0) for part in parts)
    return (list(KINDS).index(resource.kind), *name)


def encode(resource: Resource) -> bytes:
    """Return the JSON that is stored."""
    return resource.model_dump_json().encode()


def decode(key: str, value: bytes) -> Resource:
    """Read a stored entry back; ``ValueError`` when the key or a field is of a newer or unknown format."""
    kind, _, _ = key.removeprefix(WANT).partition("/")
    if not key.startswith(WANT) or kind not in KINDS:
        raise ValueError(f"{key} is no resource this version knows")
    return KINDS[kind].model_validate_json(value)
