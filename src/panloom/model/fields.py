"""The values of documents: how each is read, how it is written back, and what its text looks like.

    text in the file ──reader──▶ value ──writer──▶ text that the reader reads back
          │
          └─ the pattern that the published schema has for it (``model.schema``)

Every value arrives as the text that stands in the file (``tree.py``); a reader's ``ValueError`` says how to mend it.
In a node set any text may hold brackets (``10.0.0.1[1-3]``), so each pattern lets those pass.
"""

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from panloom.model import donors, ed25519
from panloom.model.resources import AddressRange
from panloom.values import Iqn, MacAddress, exact_duration, exact_size, parse_duration, parse_size

_MAX_OCTETS: Final = 1 << 60
_SWITCH: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_NAME = re.compile(rf"{_LABEL}\Z")
_TAG = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_IMAGE_NAME = rf"{_LABEL}(?:@(?:[1-9][0-9]{{0,8}}|{_TAG}))?"
_IMAGE = re.compile(rf"{_IMAGE_NAME}\Z")
_TAG_ALONE = re.compile(rf"{_TAG}\Z")
_SNAPSHOT = re.compile(rf"{_LABEL}@{_LABEL}\Z")
_WHOLE = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")  # YAML 1.2.2 section 10.3.2
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")  # IFNAMSIZ - 1; nft reads a trailing * as a wildcard
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}\Z")  # an argument of a program: never an option
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE_TEXT = "[0-9a-f]{16}:[A-Za-z0-9+/]{86}=="
_PUBLIC_KEY_TEXT = "[A-Za-z0-9+/]{43}="
_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9 ._:+()/&*?-]{0,63}\Z")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\Z")
MAX_NOTE_CHARACTERS: Final = 1000
MAX_PREFIX_BITS: Final = 96
MAX_USER_DATA_OCTETS: Final = 64 << 10
MAX_SSH_KEYS_OCTETS: Final = 28 << 10
"""Of all keys of a server, each with its line's end: what the disc that tells a machine who it is has room for."""
_KEY_KINDS = "ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\\.com"
_SSH_KEY_TEXT = rf"(?:{_KEY_KINDS}) [A-Za-z0-9+/]{{40,4000}}={{0,2}}(?: [ -~]{{0,200}})?"
_SSH_KEY = re.compile(rf"{_SSH_KEY_TEXT}\Z")
_USER_DATA_TEXT = r"(?:#|Content-Type:|MIME-Version:)[\s\S]*"
_USER_DATA = re.compile(_USER_DATA_TEXT)
IN_STEP: Final = r".*\[[0-9a-fA-F,-]+\].*"
"""A node set's brackets somewhere in a text."""


def _reader(read: Callable[[str], Any]) -> BeforeValidator:
    """Make a field read text; a value that is none is refused in words, and one already read passes."""

    def validate(value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        if isinstance(value, dict | list) or value is None:
            shape = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
            raise ValueError(f"is {shape}; write one value")
        return read(value.strip()) if isinstance(value, str) else value

    return BeforeValidator(validate)


def _looks(pattern: str, hint: str, *others: str, **limits: float) -> WithJsonSchema:
    """Say what the text looks like; ``others`` are the types that an editor's YAML may take it for."""
    return WithJsonSchema({**text_schema(pattern, hint, *others), **limits})


def text_schema(pattern: str, hint: str, *others: str, in_step: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of a text; ``patternErrorMessage`` is what editors show instead of the pattern."""
    whole = rf"^\s*(?:{pattern})\s*$|^{IN_STEP}$" if in_step else rf"^\s*(?:{pattern})\s*$"
    return {"type": ["string", *others], "pattern": whole, "patternErrorMessage": hint}


def name(text: str) -> str:
    """Read a name: a DNS label in lower case (RFC 1123 section 2.1), as it becomes host name, IQN and key."""
    if not _NAME.match(text):
        raise ValueError(f"{text!r} is no name; write a-z, 0-9 and - (not first or last), at most 63 of them")
    return text


def name_schema(*, in_step: bool) -> dict[str, Any]:
    """Return the JSON Schema of a name; with ``in_step`` a node set is one as well."""
    hint = "write a-z, 0-9 and - (not first or last), at most 63 of them"
    return text_schema(_LABEL, hint, "number", "boolean", in_step=in_step)


def read_switch(text: str) -> bool:
    """Read yes or no, in one of the ways people write it."""
    if text.lower() not in _SWITCH:
        raise ValueError(f"{text!r} is neither yes nor no")
    return _SWITCH[text.lower()]


def is_switch(value: object) -> bool:
    """Whether it is a text that ``read_switch`` reads."""
    return isinstance(value, str) and value.lower() in _SWITCH


def _image(text: str) -> str:
    if not _IMAGE.match(text):
        raise ValueError(f"{text!r} is no image; write its name, name@version like web@3, or name@tag")
    return text


def _snapshot(text: str) -> str:
    if not _SNAPSHOT.match(text):
        raise ValueError(f"{text!r} is no snapshot; write volume@name like web1@before")
    return text


def _signature(text: str) -> str:
    if not re.fullmatch(_SIGNATURE_TEXT, text):
        raise ValueError(f"{text[:60]!r} is no signature; write what `panloom image sign` tells, KEY:BASE64")
    return text


def _public_key(text: str) -> str:
    if not re.fullmatch(_PUBLIC_KEY_TEXT, text):
        raise ValueError(f"{text[:60]!r} is no public key; write the 44 characters that `panloom image key` tells")
    if not ed25519.is_trustworthy(base64.b64decode(text)):
        raise ValueError(
            f"{text!r} is no key of Ed25519 that one person can have; write what `panloom image key` tells"
        )
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


def _looks_between(low: int, high: int) -> WithJsonSchema:
    pattern = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    return _looks(pattern, f"write {low} to {high}", "integer", minimum=low, maximum=high)


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


def _prefix(text: str) -> IPv6Network:
    try:
        prefix = IPv6Network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{text!r} has host bits; write {IPv6Network(text, strict=False)}") from error
        raise ValueError(f"{text!r} is no IPv6 prefix; write one like 2001:db8:0:1::/64") from error
    if prefix.prefixlen > MAX_PREFIX_BITS:
        raise ValueError(
            f"{text!r} leaves no room for the 32 bits of an IPv4 address; write /{MAX_PREFIX_BITS} or less"
        )
    if prefix.is_link_local or prefix.is_multicast or prefix.is_unspecified or prefix.is_loopback:
        raise ValueError(f"{text!r} is no prefix of machines' own addresses; write one like 2001:db8:0:1::/64")
    return prefix


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


def _iqn(text: str) -> str:
    return str(Iqn.parse(text))


def _pattern(text: str) -> str:
    if not _PATTERN.match(text):
        raise ValueError(f"{text!r} is no pattern; write text with * and ? like Dell*, at most 64 characters")
    return text


def _domain(text: str) -> str:
    if len(text) > 253 or not _DOMAIN.match(text):
        raise ValueError(f"{text!r} is no domain; write one like shop.example")
    return text


def _sha256(text: str) -> str:
    if not _SHA256.match(text.lower()):
        raise ValueError(f"{text[:80]!r} is no SHA-256; write 64 hex digits, as sha256sum prints them")
    return text.lower()


def _tag(text: str) -> str:
    if not _TAG_ALONE.match(text):
        raise ValueError(f"{text!r} is no tag; write a-z, 0-9 and -, a letter first, like stable")
    return text


def _donor(text: str) -> str:
    donors.parse_donor(text)
    return text


def _note(text: str) -> str:
    if len(text) > MAX_NOTE_CHARACTERS or not text.isprintable():
        raise ValueError(f"{text[:40]!r} is no note; write one line of at most {MAX_NOTE_CHARACTERS} characters")
    return text


def _ssh_key(text: str) -> str:
    hint = "write a public key as ssh-keygen made it, like ssh-ed25519 AAAA… ada@example"
    if not _SSH_KEY.match(text):
        raise ValueError(f"{text[:40]!r} is no SSH key; {hint}")
    kind, octets = text.split(" ")[:2]
    try:
        inner = base64.b64decode(octets, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is damaged; {hint}") from error
    if inner[:4] != len(kind).to_bytes(4, "big") or inner[4 : 4 + len(kind)] != kind.encode():  # RFC 4253 section 6.6
        raise ValueError(f"{text[:40]!r} holds another kind of key than it says; {hint}")
    return text


def _user_data(text: str) -> str:
    if not _USER_DATA.match(text) or "\0" in text:
        raise ValueError(
            f"{text[:40]!r} is no user data; begin it with #cloud-config, #! or another mark of cloud-init"
        )
    if len(text.encode()) >= MAX_USER_DATA_OCTETS:
        raise ValueError(f"is longer than {MAX_USER_DATA_OCTETS} octets; have it fetch the rest: #include")
    return f"{text}\n"


_SIZE_HINT = "write a size like 10GiB or 512MiB"
_SIZE_TEXT = r"[0-9]+(?:\.[0-9]+)?\s*[kmgtKMGT]?i?[bB]?"

Name = Annotated[str, _reader(name), WithJsonSchema(name_schema(in_step=True))]
ImageName = Annotated[str, _reader(_image), _looks(_IMAGE_NAME, "write web, web@3 or web@stable", "number", "boolean")]
SnapshotName = Annotated[str, _reader(_snapshot), _looks(f"{_LABEL}@{_LABEL}", "write volume@name like web1@before")]
Switch = Annotated[
    bool,
    _reader(read_switch),
    PlainSerializer(lambda value: "yes" if value else "no"),
    _looks("[tT][rR][uU][eE]|[yY][eE][sS]|[oO][nN]|[fF][aA][lL][sS][eE]|[nN][oO]|[oO][fF][fF]", "yes or no", "boolean"),
]
Size = Annotated[int, _reader(_size), PlainSerializer(exact_size), _looks(_SIZE_TEXT, _SIZE_HINT, "number", minimum=0)]
MinimumSize = Annotated[
    int,
    _reader(_at_least),
    PlainSerializer(lambda octets: f">= {exact_size(octets)}"),
    _looks(rf"(?:>=)?\s*{_SIZE_TEXT}", 'write a size like ">= 512MiB"', "number", minimum=0),
]
Duration = Annotated[
    float,
    _reader(_duration),
    PlainSerializer(exact_duration),
    _looks(
        r"[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|m|h)?",
        "write a duration like 500ms, 10s or 2m",
        "number",
        exclusiveMinimum=0,
        maximum=86400,
    ),
]
Mac = Annotated[
    MacAddress,
    _reader(MacAddress.parse),
    PlainSerializer(str),
    _looks(
        "[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}(?:-[0-9a-fA-F]{2}){5}|[0-9a-fA-F.]{12,14}",
        "write six pairs of hex digits like 52:54:00:12:34:56",
        "number",
    ),
]
Address = Annotated[IPv4Address, _reader(_address), _looks(_IPV4, "write an IPv4 address like 10.1.0.11")]
Subnet = Annotated[
    IPv4Network, _reader(_subnet), _looks(rf"{_IPV4}(?:/(?:[0-9]{{1,2}}|{_IPV4}))?", "write a subnet like 10.1.0.0/24")
]
Prefix = Annotated[
    IPv6Network,
    _reader(_prefix),
    PlainSerializer(str),
    _looks(r"[0-9a-fA-F:.]{2,45}/(?:[0-9]|[1-8][0-9]|9[0-6])", "write an IPv6 prefix like 2001:db8:0:1::/64"),
]
Range = Annotated[
    AddressRange,
    _reader(_range),
    PlainSerializer(lambda ends: f"{ends[0]}-{ends[1]}"),
    _looks(rf"{_IPV4}\s*-\s*{_IPV4}", "write first and last address like 10.1.0.100-10.1.0.199"),
]
Interface = Annotated[
    str,
    _reader(_interface),
    _looks("[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "write an interface's name", "number", "boolean"),
]
Path = Annotated[str, _reader(_path), _looks("/.*", "write a path that begins with /")]
Word = Annotated[
    str,
    _reader(_word),
    _looks("[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}", "write letters, digits and . _ : @ + -", "number", "boolean"),
]
IscsiName = Annotated[
    str,
    _reader(_iqn),
    _looks(
        r"[iI][qQ][nN]\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.:_-]+|[eE][uU][iI]\.[0-9a-fA-F]{16}|[nN][aA][aA]\.[0-9a-fA-F]+",
        "write an iSCSI name like iqn.2026-11.dev.panloom:n1",
    ),
]
Pattern = Annotated[
    str,
    _reader(_pattern),
    _looks("[A-Za-z0-9*?][A-Za-z0-9 ._:+()/&*?-]{0,63}", "write text with * and ? like Dell*", "number", "boolean"),
]
Domain = Annotated[
    str,
    _reader(_domain),
    _looks(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*", "write a domain like shop.example", "number", "boolean"),
]
Tag = Annotated[str, _reader(_tag), _looks(_TAG, "write a-z, 0-9 and -, a letter first", "boolean")]
Donor = Annotated[str, _reader(_donor), _looks(donors.PATTERN, "write PAN/VOLUME, PAN/VOLUME@SNAPSHOT or iscsi://…")]
Sha256 = Annotated[str, _reader(_sha256), _looks("[0-9a-fA-F]{64}", "write 64 hex digits", "number")]
Signature = Annotated[str, _reader(_signature), _looks(_SIGNATURE_TEXT, "write what panloom image sign tells")]
PublicKey = Annotated[str, _reader(_public_key), _looks(_PUBLIC_KEY_TEXT, "write what panloom image key tells")]
Note = Annotated[str, _reader(_note), _looks(r".{0,1000}", "write one line", "number", "boolean")]
SshKey = Annotated[str, _reader(_ssh_key), _looks(_SSH_KEY_TEXT, "write a public key: ssh-ed25519 AAAA… ada@example")]
UserData = Annotated[str, _reader(_user_data), _looks(_USER_DATA_TEXT, "begin with #cloud-config or #!")]
Port = Annotated[int, _reader(_between(1, 65535)), _looks_between(1, 65535)]
CipherSuite = Annotated[int, _reader(_between(0, 255)), _looks_between(0, 255)]
Count = Annotated[int, _reader(_between(1, 1_000_000)), _looks_between(1, 1_000_000)]
Serial = Annotated[int, _reader(_between(0, 0xFFFF)), _looks_between(0, 0xFFFF)]
