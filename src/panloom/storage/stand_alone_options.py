"""The options of a target that stands alone, checked, every error with how to mend it.

--lun 1=disk.img,ro,removable       number = what is behind it, then words of ``LUN_WORDS``
--lun 2=volume:shop.web1            a volume of --store
--chap web1:secret.txt              the file's first line is the secret, and nobody else may read the file
--moved 192.0.2.9:3260,permanent    in the place of LUNs: where the target is now
"""

import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from panloom.errors import ConfigError, ConfigErrors
from panloom.storage.descriptor import Credentials
from panloom.storage.exports import ExportedLun, Moved
from panloom.storage.portals import leads_here, parse_portal, portal_text
from panloom.values import Iqn, Lun

LUN_WORDS = ("ro", "removable", "thick", "4k")
VOLUME = "volume:"
PERMANENT = "permanent"
SHORTEST_SECRET_OCTETS = 12  # RFC 7143 section 9.2.1: 96 bits
LONGEST_SECRET_OCTETS = 255
DEFAULT_PORT = 3260  # RFC 7143 section 4.2.7.1

Value = TypeVar("Value")


class Options(msgspec.Struct, frozen=True):
    """What was asked for."""

    target: Iqn
    portals: tuple[tuple[str, int], ...]
    luns: tuple[ExportedLun, ...]
    credentials: Credentials
    store: Path | None
    moved: Moved | None = None


def read_options(
    *,
    iqn: str,
    portals: Iterable[str],
    luns: Sequence[str],
    chap: str | None,
    store: Path | None,
    moved: str | None = None,
) -> Options:
    """Return the options; ConfigErrors says all that is wrong with them."""
    errors: list[ConfigError] = []
    targets = _each("--iqn", (iqn,), Iqn.parse, errors)
    addresses = _each("--portal", portals, _read_portal, errors)
    units = _each("--lun", luns, _read_lun, errors)
    credentials = _each("--chap", () if chap is None else (chap,), _read_chap, errors)
    elsewhere = _each("--moved", () if moved is None else (moved,), _read_moved, errors)
    errors.extend(_clashes(addresses, units, store, asked=bool(luns or moved)))
    if luns and moved:
        errors.append(ConfigError("--moved", "nobody gets to a disk here any more; leave out --lun"))
    if elsewhere and leads_here(parse_portal(elsewhere[0].portal), addresses):
        errors.append(ConfigError(f"--moved {moved}", "is this target itself; name the portal of the other one"))
    if errors:
        raise ConfigErrors(errors)
    return Options(
        target=targets[0],
        portals=tuple(addresses),
        luns=tuple(units),
        credentials=credentials[0] if credentials else Credentials(),
        store=store,
        moved=elsewhere[0] if elsewhere else None,
    )


def _each(option: str, texts: Iterable[str], read: Callable[[str], Value], errors: list[ConfigError]) -> list[Value]:
    values = []
    for text in texts:
        try:
            values.append(read(text))
        except ValueError as error:
            errors.append(ConfigError(f"{option} {text}", str(error)))
    return values


def _clashes(
    portals: list[tuple[str, int]], luns: list[ExportedLun], store: Path | None, *, asked: bool
) -> Iterator[ConfigError]:
    """Tell what is wrong with options together."""
    if not asked:
        yield ConfigError("--lun", "there is none; say what to serve, like --lun 1=disk.img")
    for portal, times in Counter(portals).items():
        if times > 1 and portal[1]:
            yield ConfigError("--portal", f"{portal[0]}:{portal[1]} is there {times} times; name each portal once")
    for number, times in Counter(lun.lun for lun in luns).items():
        if times > 1:
            yield ConfigError("--lun", f"LUN {number} is there {times} times; give each its own number")
    for lun in luns:
        if lun.volume is not None and store is None:
            yield ConfigError(f"--lun {lun.lun}={VOLUME}{lun.volume}", "which store is it in? Add --store DIR")


def _read_portal(text: str, whose: str = "this machine") -> tuple[str, int]:
    has_port = "]:" in text if text.startswith("[") else text.count(":") == 1
    try:
        return parse_portal(text if has_port else f"{text}:{DEFAULT_PORT}")
    except ValueError as error:
        raise ValueError(f"{error}; write an address of {whose} and a port, like 127.0.0.1:3260") from error


def _read_moved(text: str) -> Moved:
    portal, comma, word = text.partition(",")
    if comma and word != PERMANENT:
        raise ValueError(f"{word!r} is not {PERMANENT!r}, and there is no other word")
    return Moved(portal_text(*_read_portal(portal, "the other target")), permanent=word == PERMANENT)


def _read_lun(text: str) -> ExportedLun:
    number, equals, rest = text.partition("=")
    if not equals or not rest:
        raise ValueError("write a number, = and what is behind it, like 1=disk.img or 1=disk.img,ro")
    lun = Lun.parse(number)
    name, *words = rest.split(",")
    while words and any(word not in LUN_WORDS for word in words):
        name = f"{name},{words.pop(0)}"  # a comma of the name itself
    if "," in name and not Path(name).exists():
        word = name.rpartition(",")[2]
        raise ValueError(f"{word!r} is none of {', '.join(LUN_WORDS)}, and there is no file {name}")
    given = dict.fromkeys(words)
    read_only, removable, thick, physical_4k = (word in given for word in LUN_WORDS)
    if name.startswith(VOLUME):
        if thick:
            raise ValueError("a volume knows whether it is thick; leave out ,thick")
        lun_of = partial(ExportedLun, lun.number, volume=name.removeprefix(VOLUME))
    else:
        lun_of = partial(ExportedLun, lun.number, device=name, thick=thick)
    return lun_of(read_only=read_only, removable=removable, physical_4k=physical_4k)


def _read_chap(text: str) -> Credentials:
    user, colon, name = text.partition(":")
    if not colon or not user or not name:
        raise ValueError("write a user and the file that holds the secret, like web1:secret.txt")
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise ValueError(f"others may read {name}; keep it to yourself: chmod 600 {name}")
        octets = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error
    try:
        lines = octets.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not ASCII; write letters, digits and signs") from error
    if len(lines) > 2:
        raise ValueError(
            f"{name} has {len(lines)} lines; write the secret, then the target's own user and secret if any"
        )
    secret = _checked_secret(lines[0] if lines else "", name)
    if len(lines) < 2:
        return Credentials(user, secret)
    target_user, _, target_secret = lines[1].partition(" ")
    return Credentials(user, secret, target_user, _checked_secret(target_secret, f"the second line of {name}"))


def _checked_secret(secret: str, place: str) -> str:
    if not SHORTEST_SECRET_OCTETS <= len(secret) <= LONGEST_SECRET_OCTETS:
        raise ValueError(
            f"the secret in {place} has {len(secret)} octets; take {SHORTEST_SECRET_OCTETS} to "
            f"{LONGEST_SECRET_OCTETS}, such as: openssl rand -hex 16"
        )
    return secret
