"""The documents' schema: what may be written, field by field.

Every value arrives as the text that stands in the file (``tree.py``) and its field reads it: sizes, durations,
addresses and switches have one reader each, whose ``ValueError`` says how to mend it.  A PAN's nested LANs and
servers have the same fields as documents of their own::

    Platform    PlatformSpec        Node      NodeSpec          Image     ImageSpec      PAN   (a header, lans, servers)
    VirtualLan  VirtualLanSpec      Server    ServerSpec        Volume    VolumeSpec    Rule  RuleSpec

``spec.resource(pan, name)`` is the flat resource it becomes.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from panloom.model import resources
from panloom.model.fields import (
    Address,
    CipherSuite,
    Domain,
    Duration,
    ImageName,
    Interface,
    IscsiName,
    Mac,
    MinimumSize,
    Name,
    Path,
    Pattern,
    Port,
    Prefix,
    Range,
    Size,
    SnapshotName,
    SshKey,
    Subnet,
    Switch,
    UserData,
    Word,
    is_switch,
)
from panloom.model.image_documents import HealthSpec, ImageSpec
from panloom.model.platform_documents import PlatformSpec
from panloom.model.written import Header, MemberHeader, Spec, Written

Amount = Annotated[int, Field(ge=0, le=1 << 16)]


class PowerSpec(Written):
    """How its power is switched; each driver has fields of its own."""

    driver: Literal["socket", "script", "ipmi"] = "socket"
    path: Path | None = Field(None, examples=["/run/panloom/power.sock"])
    """``socket``: where a supervisor listens; ``script``: the program."""
    name: Word | None = None
    """``socket``, ``script``: what the machine is called there; None: as the node is called."""
    address: Address | None = Field(None, examples=["10.9.0.11"])
    """``ipmi``: the management controller."""
    port: Port | None = None
    """``ipmi``: its UDP port; None: 623."""
    user: Word | None = Field(None, examples=["panloom"])
    password_file: Path | None = Field(None, examples=["/etc/panloom/n1.password"])
    cipher_suite: CipherSuite | None = None
    """``ipmi``: None: the best that the controller offers; old ones must be told, as 3."""

    @model_validator(mode="after")
    def _fields_of_its_driver(self) -> Self:
        needed, allowed = _POWER_FIELDS[self.driver]
        given = {field for field, value in self if value is not None} - {"driver"}
        if missing := [field for field in needed if field not in given]:
            examples = type(self).model_fields[missing[0]].examples or ["…"]
            raise ValueError(f"driver {self.driver} needs `{missing[0]}`; write it like `{missing[0]}: {examples[0]}`")
        if strange := sorted(given - {*needed, *allowed}):
            raise ValueError(f"driver {self.driver} has no `{strange[0]}`; it has: {', '.join((*needed, *allowed))}")
        return self

    def resource(self, node: str) -> resources.SocketPower | resources.ScriptPower | resources.IpmiPower:
        """Return what it means for a node of this name."""
        given = {field: value for field, value in self if value is not None}
        match self.driver:
            case "ipmi":
                return resources.IpmiPower(**given)
            case "script":
                return resources.ScriptPower(**{"name": node, **given})
            case "socket":
                return resources.SocketPower(**{"name": node, **given})


_POWER_FIELDS = {
    "socket": (("path",), ("name",)),
    "script": (("path",), ("name",)),
    "ipmi": (("address", "user", "password_file"), ("port", "cipher_suite")),
}
"""Driver → the fields it needs, the fields it may have."""


class NodeSpec(Spec):
    """A diskless machine."""

    mac: Mac = Field(examples=["52:54:00:12:34:56"])
    address: Address = Field(examples=["10.0.0.11"])
    port: Interface | None = Field(None, examples=["port1"])
    """The interface of the control node where its cable ends; left out behind a relay."""
    memory: Size = Field(examples=["16GiB"])
    cores: Amount = 0
    """Left out, as the next two: what it says itself."""
    architecture: resources.Architecture | None = None
    nics: Amount = 0
    initiator: IscsiName | None = Field(None, examples=["iqn.2010-04.org.ipxe:blade7"])
    """The iSCSI name that its firmware was set to; left out: one is made of its name."""
    power: PowerSpec | None = None

    def resource(self, pan: str, name: str) -> resources.Node:  # noqa: ARG002
        """Return what it means."""
        return resources.Node(
            name=name,
            mac=self.mac,
            address=self.address,
            port=self.port or "",
            memory_octets=self.memory,
            cores=self.cores,
            architecture=self.architecture,
            nics=self.nics,
            initiator=self.initiator,
            power=self.power and self.power.resource(name),
        )


class VirtualLanSpec(Spec):
    """One broadcast domain."""

    subnet: Subnet = Field(examples=["10.1.0.0/24"])
    range: Range | None = None
    router: Address | None = None
    dns: tuple[Address, ...] = ()
    domain: Domain | None = None
    prefix: Prefix | None = Field(None, examples=["2001:db8:0:2::/64"])
    """IPv6 beside IPv4: each address has one with the same last 32 bits; left out: none."""
    network: Literal["flat", "fabrics"] = "flat"
    """`fabrics`: apart from all other LANs, over the platform's `fabrics`; NICs there have addresses of their own"""

    def resource(self, pan: str, name: str) -> resources.VirtualLan:
        """Return what it means."""
        return resources.VirtualLan(pan=pan, name=name, **dict(self))


class LimitsSpec(Written):
    """What a disk may do in a second; what is more waits, and no other disk."""

    operations: Annotated[int, Field(ge=0, le=1 << 50)] = 0
    """0: as many as it can."""
    octets: Size = Field(0, examples=["20MiB"])
    """Read and written, together; 0: as many as it can."""

    @property
    def meaning(self) -> resources.Limits:
        """Return what it means."""
        return resources.Limits(operations=self.operations, octets=self.octets)


class DiskSpec(Written):
    """The root disk."""

    size: Size = 0
    """May be raised at any time, never lowered."""
    snapshot: SnapshotName | None = Field(None, examples=["web1@before"])
    """Of a volume of the same PAN: the disk is a clone of it, not of the image."""
    provisioning: Literal["thin", "thick"] = "thin"
    """``thick`` takes all its space when the disk is made."""
    limits: LimitsSpec = LimitsSpec()
    """May be changed at any time."""

    @property
    def meaning(self) -> resources.Disk:
        """Return the root disk that it means."""
        return resources.Disk(
            size_octets=self.size,
            snapshot=self.snapshot,
            provisioning=self.provisioning,
            limits=self.limits.meaning,
        )


class NicSpec(Written):
    """A virtual NIC."""

    lan: Name = Field(examples=["front"])
    address: Address | None = None


class NeedsSpec(Written):
    """What a node must have."""

    memory: MinimumSize = 0
    cores: Amount = 0
    architecture: resources.Architecture | None = None
    nics: Amount = 0

    @property
    def meaning(self) -> resources.Needs:
        """Return what it means."""
        return resources.Needs(
            memory_octets=self.memory, cores=self.cores, architecture=self.architecture, nics=self.nics
        )


class FailoverSpec(Written):
    """What happens when its node dies; ``failover: no`` for nothing."""

    enabled: Switch = True
    within: Duration = 10.0
    fence: Literal["storage+port", "power"] = "storage+port"

    @model_validator(mode="before")
    @classmethod
    def _read_switch(cls, value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        return {"enabled": value} if is_switch(value) else value

    @property
    def meaning(self) -> resources.Failover:
        """Return what it means."""
        return resources.Failover(enabled=self.enabled, within_seconds=self.within, fence=self.fence)


class ServerSpec(Spec):
    """A personality that wants a node."""

    image: ImageName = Field(examples=["web"])
    disk: DiskSpec = DiskSpec()
    nics: tuple[NicSpec, ...] = ()
    node: Name | None = None
    needs: NeedsSpec = NeedsSpec()
    failover: FailoverSpec = FailoverSpec()
    health: HealthSpec = HealthSpec()
    auth: Literal["chap", "none"] | None = None
    ssh_keys: tuple[SshKey, ...] = Field((), examples=["[ssh-ed25519 AAAA… ada@example]"])
    """Who may log in to it, if its image knows cloud-init or is Panloom's own Debian; counts from its next boot on."""
    user_data: UserData = Field("", examples=["|\n  #cloud-config\n  packages: [nginx]"])
    """What cloud-init is to do when a new clone of its image boots first."""

    def resource(self, pan: str, name: str) -> resources.Server:
        """Return what it means."""
        return resources.Server(
            pan=pan,
            name=name,
            image=self.image,
            disk=self.disk.meaning,
            nics=tuple(resources.Nic(lan=nic.lan, address=nic.address) for nic in self.nics),
            node=self.node,
            needs=self.needs.meaning,
            failover=self.failover.meaning,
            health=self.health.meaning,
            auth=self.auth,
            ssh_keys=self.ssh_keys,
            user_data=self.user_data,
        )


class MatchSpec(Written):
    """What a machine must be, as it says itself; patterns have * and ?, and know no case."""

    mac: Pattern | None = Field(None, examples=["52:54:00:*"])
    vendor: Pattern | None = Field(None, examples=["Dell*"])
    product: Pattern | None = Field(None, examples=["PowerEdge R6?0"])
    architecture: resources.Architecture | None = None
    memory: MinimumSize = 0
    cores: Amount = 0


class BecomingSpec(Written):
    """The server that a machine becomes; its name is the rule's and the machine's MAC."""

    pan: Name = Field(examples=["shop"])
    image: ImageName = Field(examples=["web"])
    disk: DiskSpec = DiskSpec()
    lans: tuple[Name, ...] = ()
    """It has a NIC in each, with an address of the LAN's `range`."""
    needs: NeedsSpec = NeedsSpec()
    failover: FailoverSpec = FailoverSpec()
    ssh_keys: tuple[SshKey, ...] = Field((), examples=["[ssh-ed25519 AAAA… ada@example]"])
    user_data: UserData = Field("", examples=["|\n  #cloud-config\n  packages: [nginx]"])
    """What cloud-init is to do when its disk boots first."""

    @property
    def meaning(self) -> resources.Becoming:
        """Return what it means."""
        return resources.Becoming(
            pan=self.pan,
            image=self.image,
            disk=self.disk.meaning,
            lans=self.lans,
            needs=self.needs.meaning,
            failover=self.failover.meaning,
            ssh_keys=self.ssh_keys,
            user_data=self.user_data,
        )


class PromptSpec(Written):
    """The menu on a machine's console."""

    images: tuple[ImageName, ...] = ()
    """Offered beside the rule's own; left out: all that there are."""
    timeout: Duration = 30.0
    """After which it takes the rule's own."""

    @property
    def meaning(self) -> resources.Prompt:
        """Return what it means."""
        return resources.Prompt(images=self.images, timeout_seconds=self.timeout)


class RuleSpec(Spec):
    """What a machine becomes that asks to boot and that no document names."""

    match: MatchSpec = MatchSpec()
    """Left out: every machine fits."""
    server: BecomingSpec | None = None
    """Left out: it becomes a spare."""
    approve: resources.RuleApproval = "always"
    """`manual`: a person must say so, by `panloom node approve`; `prompt`: the machine's console asks"""
    prompt: PromptSpec | None = None
    """What its console offers; for `approve: prompt`."""

    @model_validator(mode="after")
    def _prompt_is_shown(self) -> Self:
        if self.prompt is not None and self.approve != "prompt":
            raise ValueError("`prompt:` is for `approve: prompt`; write that too, or leave this out")
        return self

    def resource(self, pan: str, name: str) -> resources.Rule:  # noqa: ARG002
        """Return what it means."""
        match = dict(self.match)
        match["memory_octets"] = match.pop("memory")
        return resources.Rule(
            name=name,
            match=resources.Match(**match),
            server=self.server and self.server.meaning,
            approve=self.approve,
            prompt=self.prompt and self.prompt.meaning,
        )


class VolumeSpec(DiskSpec, Spec):
    """A disk; a server's own has the server's name and need not be written."""

    image: ImageName | None = Field(None, examples=["web@1"])
    """Left out where ``snapshot`` is written."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.image is None) == (self.snapshot is None):
            raise ValueError("write either `image:` or `snapshot:`, which it is a clone of")
        return self

    def resource(self, pan: str, name: str) -> resources.Volume:
        """Return what it means."""
        return resources.Volume(
            pan=pan,
            name=name,
            image=self.image or "",
            size_octets=self.size,
            snapshot=self.snapshot,
            provisioning=self.provisioning,
            limits=self.limits.meaning,
        )


class PanSpec(Spec):
    """The body of a PAN once its LANs and servers have been taken out as documents of their own."""

    nested: ClassVar[dict[str, str]] = {"lans": "VirtualLan", "servers": "Server"}

    def resource(self, pan: str, name: str) -> resources.Pan:  # noqa: ARG002
        """Return what it means."""
        return resources.Pan(name=name)


SPECS: dict[str, tuple[type[Spec], type[Header], type[resources.Resource]]] = {
    "Platform": (PlatformSpec, Header, resources.Platform),
    "Node": (NodeSpec, Header, resources.Node),
    "Image": (ImageSpec, Header, resources.Image),
    "PAN": (PanSpec, Header, resources.Pan),
    "VirtualLan": (VirtualLanSpec, MemberHeader, resources.VirtualLan),
    "Rule": (RuleSpec, Header, resources.Rule),
    "Server": (ServerSpec, MemberHeader, resources.Server),
    "Volume": (VolumeSpec, MemberHeader, resources.Volume),
}
"""What stands after ``kind:``."""


def model_at(model: type[BaseModel], steps: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model whose keys are read at that path, None where there is none."""
    for step in steps:
        if isinstance(step, int):
            continue
        found = model.model_fields.get(step)
        inner = found and inner_model(found.annotation)
        if not inner:
            return None
        model = inner
    return model


def inner_model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 -- a type expression
    """Return the model that a field holds, alone, in a list or beside None; None if it holds no mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := inner_model(argument):
            return found
    return None
