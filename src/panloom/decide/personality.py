"""A server's personality: what a machine must know to be that server, as the image's init reads it from its own LUN.

The text, with which that LUN begins (``decide.cloud_init`` has the rest), is ASCII, one ``KEY='value'`` a line (a shell
can read it), padded with line feeds to whole blocks:

    PANLOOM_PERSONALITY='1'          form of this text
    PAN SERVER NODE EPOCH            who, where, under which epoch
    NICS, NIC0_MAC NIC0_LAN NIC0_ADDRESS NIC0_PREFIX NIC0_ROUTER NIC0_DNS NIC0_DOMAIN
    INSTANCE                         which clone of its disk it has
    BEACON_ADDRESS BEACON_PORT BEACON_KEY BEACON_SECONDS
"""

import hashlib
import re
from ipaddress import IPv4Address

import msgspec

from panloom.errors import MalformedError

SIZE_OCTETS = 4096
BEACON_PORT = 7077
_LINE = re.compile(r"^([A-Z0-9_]+)='([^']*)'$", re.MULTILINE)


class PersonalityNic(msgspec.Struct, frozen=True):
    """One virtual NIC: its MAC stays with the server wherever it runs."""

    lan: str
    mac: str
    address: str = ""  # empty: the server asks DHCP
    prefix: int = 24
    router: str = ""
    dns: str = ""
    domain: str = ""


class Personality(msgspec.Struct, frozen=True):
    """Everything that makes a machine be a server, but for its disk and its secret."""

    pan: str
    server: str
    node: str
    epoch: int
    nics: tuple[PersonalityNic, ...]
    beacon_address: IPv4Address
    beacon_key: str
    beacon_seconds: float = 1.0
    instance: str = ""  # of the disk's clone; stays over every fail-over

    def digest(self) -> str:
        """Return what changes when the machine must boot again to take it over: no epoch, node, beacon or clone."""
        return hashlib.sha256(msgspec.json.encode((self.pan, self.server, self.nics))).hexdigest()[:16]

    def to_octets(self) -> bytes:
        """Return the text, ``SIZE_OCTETS`` long; ValueError if it does not fit or a value cannot be quoted."""
        pairs: list[tuple[str, object]] = [
            ("PANLOOM_PERSONALITY", 1),
            ("PAN", self.pan),
            ("SERVER", self.server),
            ("NODE", self.node),
            ("EPOCH", self.epoch),
            ("NICS", len(self.nics)),
        ]
        for number, nic in enumerate(self.nics):
            pairs += [(f"NIC{number}_{name.upper()}", getattr(nic, name)) for name in PersonalityNic.__struct_fields__]
        pairs += [
            ("INSTANCE", self.instance),
            ("BEACON_ADDRESS", self.beacon_address),
            ("BEACON_PORT", BEACON_PORT),
            ("BEACON_KEY", self.beacon_key),
            ("BEACON_SECONDS", f"{self.beacon_seconds:g}"),
        ]
        text = "".join(f"{key}='{_quotable(value)}'\n" for key, value in pairs).encode("ascii")
        if len(text) > SIZE_OCTETS:
            raise ValueError(f"a personality of {len(text)} octets does not fit into {SIZE_OCTETS}")
        return text.ljust(SIZE_OCTETS, b"\n")


def settings_of(octets: bytes) -> dict[str, str]:
    """Return KEY → value of a LUN's content; MalformedError if it is no personality."""
    found = dict(_LINE.findall(octets.decode("ascii", errors="replace")))
    if found.get("PANLOOM_PERSONALITY") != "1":
        raise MalformedError("the LUN holds no personality of form 1")
    return found


def _quotable(value: object) -> str:
    text = str(value)
    if not text.isascii() or not text.isprintable() or "'" in text:
        raise ValueError(f"{text!r} cannot stand in a personality: printable ASCII without quotes only")
    return text
