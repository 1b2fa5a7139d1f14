"""The documents' schema: what may be written, field by field.

Every value arrives as the text that stands in the file (``tree.py``) and its field reads it: sizes, durations,
addresses and switches have one reader each, whose ``ValueError`` says how to mend it.  A PAN's nested LANs and
servers have the same fields as documents of their own::

    Platform    PlatformSpec        Node      NodeSpec          Image     ImageSpec      PAN   (a header, lans, servers)
    VirtualLan  VirtualLanSpec      Server    ServerSpec        Volume    VolumeSpec

``spec.resource(pan, name)`` is the flat resource it becomes.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from panloom.model import resources
from panloom.model.resources import AddressRange
from panloom.values import MacAddress, parse_duration, parse_size

API_VERSION = "panloom/v1"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_IMAGE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:@[1-9][0-9]{0,8})?\Z")
_WHOLE = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")  # YAML 1.2.2 section 10.3.2
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")  # IFNAMSIZ - 1; nft reads a trailing * as a wildcard
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}\Z")  # an argument of a program: never an option
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\Z")
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_MAX_OCTETS = 1 << 60


def _reader(read: Callable[[str], Any]) -> BeforeValidator:
    """Make a field read text; a value that is none is refused in words, and one already read passes."""

    def validate(value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        if isinstance(value, dict | list) or value is None:
            shape = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
            raise ValueError(f"is {shape}; write one value")
        return read(value.strip()) if isinstance(value, str) else value

    return BeforeValidator(validate)


def name(text: str) -> str:
    """Read a name: a DNS label in lower case (RFC 1123 section 2.1), as it becomes host name, IQN and key."""
    if not _NAME.match(text):
        raise ValueError(f"{text!r} is no name; write a-z, 0-9 and - (not first or last), at most 63 of them")
    return text


def _image(text: str) -> str:
    if not _IMAGE.match(text):
        raise ValueError(f"{text!r} is no image; write its name, or name@version like web@3")
    return text


def _whole(text: str) -> int:
    if len(text) > 20 or not _WHOLE.match(text):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _between(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = _whole(text)
        if not low <= number <= high:
            raise ValueError(f"is {number}; write {low} to {high}")
        return number

    return read


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(f"{text!r} is neither yes nor no")
    return _SWITCH[text.lower()]


def _size(text: str) -> int:
    if len(text) > 30 or (octets := parse_size(text)) > _MAX_OCTETS:
        raise ValueError(f"{text[:40]!r} is more than any disk or memory; write a size like 10GiB")
    return octets


def _at_least(text: str) -> int:
    return _size(text.removeprefix(">=").strip())


def _duration(text: str) -> float:
    if len(text) > 30 or (seconds := parse_duration(text)) > 86400:
        raise ValueError(f"{text[:40]!r} is more than a day; write a duration like 10s")
    if seconds <= 0:
        raise ValueError("must be more than nothing; write a duration like 10s")
    return seconds


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 address; write one like 10.1.0.11") from error


def _subnet(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{text!r} has host bits; write {IPv4Network(text, strict=False)}") from error
        raise ValueError(f"{text!r} is no subnet; write one like 10.1.0.0/24") from error


def _range(text: str) -> AddressRange:
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} is no range; write first and last address like 10.1.0.100-10.1.0.199")
    low, high = _address(first.strip()), _address(last.strip())
    if low > high:
        raise ValueError(f"runs backwards; write {high}-{low}")
    return low, high


def _interface(text: str) -> str:
    if not _INTERFACE.match(text):
        raise ValueError(f"{text!r} is no interface's name of letters, digits, _ . and -; `ip link` shows them")
    return text


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise ValueError(f"{text!r} is no name of letters, digits and . _ : @ + -, at most 64, a letter or digit first")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{text!r} must begin with /, as the control node opens it, wherever it was started")
    return text


def _domain(text: str) -> str:
    if len(text) > 253 or not _DOMAIN.match(text):
        raise ValueError(f"{text!r} is no domain; write one like shop.example")
    return text


Name = Annotated[str, _reader(name)]
ImageName = Annotated[str, _reader(_image)]
Switch = Annotated[bool, _reader(_switch)]
Size = Annotated[int, _reader(_size)]
MinimumSize = Annotated[int, _reader(_at_least)]
Duration = Annotated[float, _reader(_duration)]
Mac = Annotated[MacAddress, _reader(MacAddress.parse)]
Address = Annotated[IPv4Address, _reader(_address)]
Subnet = Annotated[IPv4Network, _reader(_subnet)]
Range = Annotated[AddressRange, _reader(_range)]
Interface = Annotated[str, _reader(_interface)]
Path = Annotated[str, _reader(_path)]
Word = Annotated[str, _reader(_word)]
Domain = Annotated[str, _reader(_domain)]
Port = Annotated[int, _reader(_between(1, 65535))]
Count = Annotated[int, _reader(_between(1, 1_000_000))]
Serial = Annotated[int, _reader(_between(0, 0xFFFF))]


class Written(BaseModel):
    """A mapping in a document: unknown keys are refused, a key with nothing behind it counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        if not isinstance(value, dict):
            return value
        return {key: inner for key, inner in value.items() if inner is not None or key not in cls.model_fields}


class Spec(Written):
    """The body of a document, below its header."""

    def resource(self, pan: str, name: str) -> resources.Resource:
        """Return what it means; ``pan`` is empty for what belongs to none."""
        raise NotImplementedError


class Header(Written):
    """The head of every document."""

    apiVersion: Literal["panloom/v1"] = Field(examples=[API_VERSION])  # noqa: N815 -- as people know it from other tools
    kind: str = Field(examples=["PAN"])
    name: Name = Field(examples=["shop"])


class MemberHeader(Header):
    """The head of a document of something that belongs to a PAN."""

    pan: Name = Field(examples=["shop"])


class ControlNodeSpec(Written):
    """The control node itself."""

    serial: Serial = 0x504C


class StorageNetworkSpec(Written):
    """The network that boots machines and carries their disks."""

    interface: Interface = Field(examples=["eth1"])
    address: Address = Field(examples=["10.0.0.1"])
    subnet: Subnet = Field(examples=["10.0.0.0/24"])
    discovery: Range | None = None
    http_port: Port = 8080
    iscsi_port: Port = 3260


class LivenessSpec(Written):
    """When a silent server counts as dead."""

    interval: Duration = 0.5
    timeout: Duration = 3.0
    max_simultaneous: Count = 2


class PlatformSpec(Spec):
    """All that one set of control nodes runs."""

    control: ControlNodeSpec = ControlNodeSpec()
    storage: StorageNetworkSpec = Field(examples=["{interface: eth1, address: 10.0.0.1, subnet: 10.0.0.0/24}"])
    auth: Literal["chap", "none"] = "chap"
    approve: Literal["manual", "always"] = "manual"
    liveness: LivenessSpec = LivenessSpec()
    boot_timeout: Duration = 90.0
    max_boot_attempts: Count = 3

    def resource(self, pan: str, name: str) -> resources.Platform:  # noqa: ARG002
        """Return what it means."""
        return resources.Platform(
            name=name,
            control=resources.ControlNode(serial=self.control.serial),
            storage=resources.StorageNetwork(**dict(self.storage)),
            auth=self.auth,
            approve=self.approve,
            liveness=resources.Liveness(
                interval_seconds=self.liveness.interval,
                timeout_seconds=self.liveness.timeout,
                max_simultaneous=self.liveness.max_simultaneous,
            ),
            boot_timeout_seconds=self.boot_timeout,
            max_boot_attempts=self.max_boot_attempts,
        )


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
    "ipmi": (("address", "user", "password_file"), ("port",)),
}
"""Driver → the fields it needs, the fields it may have."""


class NodeSpec(Spec):
    """A diskless machine."""

    mac: Mac = Field(examples=["52:54:00:12:34:56"])
    address: Address = Field(examples=["10.0.0.11"])
    port: Interface = Field(examples=["port1"])
    memory: Size = Field(examples=["16GiB"])
    power: PowerSpec | None = None

    def resource(self, pan: str, name: str) -> resources.Node:  # noqa: ARG002
        """Return what it means."""
        return resources.Node(
            name=name,
            mac=self.mac,
            address=self.address,
            port=self.port,
            memory_octets=self.memory,
            power=self.power and self.power.resource(name),
        )


class ImageSpec(Spec):
    """A golden disk."""

    version: Count = 1
    source: Path = Field(examples=["/srv/images/web.img"])

    def resource(self, pan: str, name: str) -> resources.Image:  # noqa: ARG002
        """Return what it means."""
        return resources.Image(name=name, version=self.version, source=self.source)


class VirtualLanSpec(Spec):
    """One broadcast domain."""

    subnet: Subnet = Field(examples=["10.1.0.0/24"])
    range: Range | None = None
    router: Address | None = None
    dns: tuple[Address, ...] = ()
    domain: Domain | None = None

    def resource(self, pan: str, name: str) -> resources.VirtualLan:
        """Return what it means."""
        return resources.VirtualLan(pan=pan, name=name, **dict(self))


class DiskSpec(Written):
    """The root disk."""

    size: Size = 0


class NicSpec(Written):
    """A virtual NIC."""

    lan: Name = Field(examples=["front"])
    address: Address | None = None


class NeedsSpec(Written):
    """What a node must have."""

    memory: MinimumSize = 0


class FailoverSpec(Written):
    """What happens when its node dies; ``failover: no`` for nothing."""

    enabled: Switch = True
    within: Duration = 10.0
    fence: Literal["storage+port", "power"] = "storage+port"

    @model_validator(mode="before")
    @classmethod
    def _read_switch(cls, value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        return {"enabled": value} if isinstance(value, str) and value.lower() in _SWITCH else value


class ServerSpec(Spec):
    """A personality that wants a node."""

    image: ImageName = Field(examples=["web"])
    disk: DiskSpec = DiskSpec()
    nics: tuple[NicSpec, ...] = ()
    node: Name | None = None
    needs: NeedsSpec = NeedsSpec()
    failover: FailoverSpec = FailoverSpec()
    auth: Literal["chap", "none"] | None = None

    def resource(self, pan: str, name: str) -> resources.Server:
        """Return what it means."""
        return resources.Server(
            pan=pan,
            name=name,
            image=self.image,
            disk=resources.Disk(size_octets=self.disk.size),
            nics=tuple(resources.Nic(lan=nic.lan, address=nic.address) for nic in self.nics),
            node=self.node,
            needs=resources.Needs(memory_octets=self.needs.memory),
            failover=resources.Failover(
                enabled=self.failover.enabled, within_seconds=self.failover.within, fence=self.failover.fence
            ),
            auth=self.auth,
        )


class VolumeSpec(Spec):
    """A disk; a server's own has the server's name and need not be written."""

    image: ImageName = Field(examples=["web@1"])
    size: Size = 0

    def resource(self, pan: str, name: str) -> resources.Volume:
        """Return what it means."""
        return resources.Volume(pan=pan, name=name, image=self.image, size_octets=self.size)


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
        inner = found and _model_in(found.annotation)
        if not inner:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 -- a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None
