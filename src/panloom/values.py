"""Values with a check or more than one spelling, made once at the edge and trusted from there on.

Every type here has ``parse(text)``, which raises ``ValueError`` with what is wrong and how to mend it, and a ``str()``
that ``parse`` reads back.  All are immutable and hashable.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, total_ordering
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Self

IpAddress = IPv4Address | IPv6Address

_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")
_IQN = re.compile(
    r"(iqn\.[0-9]{4}-(?:0[1-9]|1[0-2])\.[a-z0-9](?:[a-z0-9.-]*)(?::[a-z0-9.:_-]*)?|eui\.[0-9a-f]{16}|naa\.(?:[0-9a-f]{16}|[0-9a-f]{32}))\Z"
)
LONGEST_DURATION_SECONDS = 366 * 86400.0
LAST_VNI = (1 << 24) - 1
LARGEST_SIZE_OCTETS = (1 << 63) - 1  # of a file, off_t
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtKMGT]?)(i?)([bB]?)\Z")
_RUNS = re.compile(r"(\D*)(\d*)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|)\Z")


@total_ordering
@dataclass(frozen=True, slots=True)
class MacAddress:
    """A 48-bit IEEE 802 address."""

    number: int  # 0 … 2^48-1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``52:54:00:12:34:56``, ``52-54-00-12-34-56``, ``5254.0012.3456`` or ``525400123456``."""
        for separator in ":-":
            if separator in text:
                pairs = text.split(separator)
                if len(pairs) == 6 and all(_HEX_PAIR.fullmatch(pair) for pair in pairs):
                    return cls(int("".join(pairs), 16))
                break
        digits = text.replace(".", "")
        if len(digits) == 12 and text.count(".") in (0, 2) and re.fullmatch(r"[0-9a-fA-F]{12}", digits):
            return cls(int(digits, 16))
        raise ValueError(f"{text!r} is no MAC address; write six pairs of hex digits, like 52:54:00:12:34:56")

    @classmethod
    def from_octets(cls, octets: bytes) -> Self:
        """Read six octets as they stand on the wire."""
        if len(octets) != 6:
            raise ValueError(f"a MAC address has 6 octets, not {len(octets)}")
        return cls(int.from_bytes(octets, "big"))

    def to_octets(self) -> bytes:
        """Return the six octets as they stand on the wire."""
        return self.number.to_bytes(6, "big")

    @property
    def is_multicast(self) -> bool:
        """Whether the group bit is set (IEEE 802-2014 section 8.2)."""
        return bool(self.number >> 40 & 1)

    @property
    def is_local(self) -> bool:
        """Whether the locally-administered bit is set (IEEE 802-2014 section 8.2)."""
        return bool(self.number >> 40 & 2)

    def __str__(self) -> str:
        return self.to_octets().hex(":")

    def __lt__(self, other: "MacAddress") -> bool:
        return self.number < other.number


@dataclass(frozen=True, slots=True)
class Iqn:
    """An iSCSI name: iqn., eui. or naa. form, at most 223 octets, in lower case (RFC 7143 section 4.2.7)."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name; upper case is folded (RFC 3722)."""
        folded = text.lower()
        if len(folded.encode()) > 223:
            raise ValueError("an iSCSI name has at most 223 octets")
        if not _IQN.match(folded):
            raise ValueError(f"{text!r} is no iSCSI name; write one like iqn.2026-11.dev.panloom:shop.web1")
        return cls(folded)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Lun:
    """A logical unit number, 0 … 16383, in single-level form (SAM-5 section 4.7.7)."""

    number: int

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 16383:
            raise ValueError(f"a LUN is 0 … 16383, not {self.number}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a decimal number."""
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"{text!r} is no LUN; write a number from 0 to 16383")
        return cls(int(text))

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class Vni:
    """A VXLAN network identifier, 1 … 2^24-1 (RFC 7348 section 5); 0 is given to nobody."""

    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= LAST_VNI:
            raise ValueError(f"a VNI is 1 … {LAST_VNI}, not {self.number}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a decimal number."""
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"{text[:40]!r} is no VNI; write a number from 1 to {LAST_VNI}")
        return cls(int(text))

    def __str__(self) -> str:
        return str(self.number)


def beside(prefix: IPv6Network, address: IPv4Address) -> IPv6Address:
    """Return the IPv6 address that goes with an IPv4 address: a prefix of at most 96 bits, and it in the last 32."""
    return prefix.network_address + int(address)


def parse_size(text: str) -> int:
    """Return octets from ``10GiB``, ``512M`` or ``4096``; units are powers of 1024 with or without the i."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size; write one like 10GiB or 512MiB")
    number, unit, _, _ = match.groups()
    octets = Fraction(number) * 1024 ** " kmgt".index(unit.lower() or " ")
    if octets.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of octets")
    if octets > LARGEST_SIZE_OCTETS:
        raise ValueError(f"{text[:40]!r} is more than a file can have; write less than 8 EiB")
    return int(octets)


def exact_size(octets: int) -> str:
    """Return the shortest text that ``parse_size`` reads back: ``10GiB``, ``512MiB``, ``4097``."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets and octets % (1 << shift) == 0:
            return f"{octets >> shift}{unit}"
    return str(octets)


@lru_cache(maxsize=10_000)
def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """Return what sorts names as people count: n2 before n10; equal for equal names only."""
    return (*((text, int(number or -1)) for text, number in _RUNS.findall(name)), (name, 0))


def format_size(octets: int) -> str:
    """Return octets as people read them: ``10 GiB``, ``1.5 GiB``, ``512 B``."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets >= 1 << shift:
            return f"{octets / (1 << shift):.4g} {unit}"
    return f"{octets} B"


def parse_duration(text: str) -> float:
    """Return seconds from ``500ms``, ``10s``, ``2m``, ``1h`` or a bare number of seconds."""
    match = _DURATION.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration; write one like 500ms, 10s or 2m")
    number = float(match[1])
    seconds = number / 1000 if match[2] == "ms" else number * {"s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}[match[2]]
    if seconds > LONGEST_DURATION_SECONDS:
        raise ValueError(f"{text[:40]!r} is longer than a year")
    return seconds


def exact_duration(seconds: float) -> str:
    """Return the text that ``parse_duration`` reads back: ``500ms``, ``10s``, ``90.5s``."""
    if seconds < 1 and round(1000 * seconds) / 1000 == seconds:
        return f"{round(1000 * seconds)}ms"
    return f"{Decimal(repr(seconds)):f}".removesuffix(".0") + "s"
