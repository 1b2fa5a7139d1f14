"""The ``key=value`` text of iSCSI logins and text requests (RFC 7143 section 6).

InitiatorName=iqn.1994-05.example:a NUL SessionType=Normal NUL …

numbers        decimal, or 0x and hex digits                 section 6.1
binary values  0x and hex digits, or 0b and base64           section 6.1
lists          values between commas, the wanted one first   section 6.2
portals        address[:port][,portal group tag]             section 13.8
"""

import base64
import binascii
import re

import msgspec

from panloom.errors import MalformedError
from panloom.wire.iscsi import Octets

KEY_OCTETS = 63  # section 6.1: a key-name
PORT = 3260  # section 13.8
VALUE_OCTETS = 8192  # long enough for every value of the standard; the keys themselves set narrower bounds

_KEY = re.compile(r"[A-Z][A-Za-z0-9.+@_-]*\Z")
_DECIMAL = re.compile(r"[0-9]{1,20}\Z")
_HEX = re.compile(r"0[xX][0-9a-fA-F]+\Z")
_PORTAL = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]{1,255}))(?::([0-9]{1,5}))?(?:,([0-9]{1,5}))?\Z")


class Portal(msgspec.Struct, frozen=True, gc=False):
    """Where a target listens; ``group`` is the portal group tag, None where it is not said."""

    address: str  # IPv4, IPv6 without brackets, or a name
    port: int = PORT
    group: int | None = None

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def decode_text(octets: Octets) -> dict[str, str]:
    """Return the keys in their order.

    MalformedError: as ``decode_pairs``, or a key is said twice.
    """
    keys: dict[str, str] = {}
    for key, value in decode_pairs(octets):
        if key in keys:
            raise MalformedError(f"{key} is said twice")
        keys[key] = value
    return keys


def decode_pairs(octets: Octets) -> list[tuple[str, str]]:
    """Return keys and values in their order; here a key may repeat (TargetName in an answer to SendTargets).

    MalformedError: no UTF-8, no ``=``, a key that is no key name, or too long.  The last NUL may be missing
    (section 6.1 wants it; initiators differ).
    """
    try:
        text = bytes(octets).decode()  # the caller bounds it
    except UnicodeDecodeError as error:
        raise MalformedError("text that is not UTF-8") from error
    pairs = []
    for pair in text.split("\0"):
        if not pair:
            continue
        key, equals, value = pair.partition("=")
        if not equals or len(key) > KEY_OCTETS or not _KEY.match(key):
            raise MalformedError(f"no key=value: {pair[:80]!r}")
        if len(value) > VALUE_OCTETS:
            raise MalformedError(f"{key} has a value of {len(value)} characters")
        pairs.append((key, value))
    return pairs


def encode_text(pairs: list[tuple[str, str]]) -> bytes:
    """Return the pairs, each closed by NUL; here a key may repeat (TargetName in an answer to SendTargets)."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def decode_number(text: str) -> int:
    """Return a numerical value, 0 … 2^64-1; MalformedError for anything else."""
    if _DECIMAL.match(text):
        number = int(text)
    elif _HEX.match(text) and len(text) <= 18:
        number = int(text, 16)
    else:
        raise MalformedError(f"no number: {text[:40]!r}")
    if number >> 64:
        raise MalformedError(f"a number over 64 bits: {text[:40]!r}")
    return number


def decode_binary(text: str, *, longest_octets: int) -> bytes:
    """Return a binary value in hex (0x) or base64 (0b) form.

    MalformedError: neither of them, or more octets than that.
    """
    if len(text) > 2 + 2 * longest_octets:
        raise MalformedError(f"a binary value of {len(text)} characters")
    form, digits = text[:2].lower(), text[2:]
    try:
        if form == "0x":
            octets = binascii.unhexlify(digits)
        elif form == "0b":
            octets = base64.b64decode(digits, validate=True)
        else:
            raise MalformedError(f"no binary value: {text[:40]!r}")
    except ValueError as error:  # odd digits, wrong padding, other characters, not ASCII
        raise MalformedError(f"no binary value: {text[:40]!r}") from error
    if len(octets) > longest_octets:
        raise MalformedError(f"a binary value of {len(octets)} octets")
    return octets


def encode_binary(octets: bytes) -> str:
    """Return octets in hex form, which every initiator reads."""
    return "0x" + octets.hex()


def decode_portal(text: str) -> Portal:
    """Return the portal in a TargetAddress (section 13.8); MalformedError for anything else."""
    match = _PORTAL.match(text)
    if not match:
        raise MalformedError(f"no TargetAddress: {text[:80]!r}")
    bracketed, plain, port, group = match.groups()
    portal = Portal(bracketed or plain, int(port or PORT), None if group is None else int(group))
    if not 0 < portal.port < 65536 or (portal.group or 0) > 65535:
        raise MalformedError(f"no TargetAddress: {text[:80]!r}")
    return portal
