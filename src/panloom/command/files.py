"""Reading the files named on the command line."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from panloom.errors import ConfigError

MAX_OCTETS = 8 << 20
_SUFFIXES = (".yaml", ".yml")


def read(names: Sequence[str]) -> list[dict[str, str]]:
    """Return the files as the API takes them; a directory stands for its YAML files, ``-`` for stdin."""
    return [_read(name) for name in _expand(names)]


def _expand(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name != "-" and Path(name).is_dir():
            inside = sorted(str(path) for path in Path(name).iterdir() if path.suffix in _SUFFIXES)
            if not inside:
                raise ConfigError(name, f"no file in it ends in {' or '.join(_SUFFIXES)}")
            yield from inside
        else:
            yield name


def _read(name: str) -> dict[str, str]:
    if name == "-":
        return {"name": "stdin", "text": _text("stdin", sys.stdin.buffer.read(MAX_OCTETS + 1)), "origin": "stdin"}
    path = Path(name)
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise ConfigError(name, f"{(error.strerror or str(error)).lower()}") from error
    return {"name": name, "text": _text(name, octets), "origin": str(path.resolve())}


def _text(name: str, octets: bytes) -> str:
    if len(octets) > MAX_OCTETS:
        raise ConfigError(name, f"more than {MAX_OCTETS >> 20} MiB; no document is that long")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        _refuse_octets(name, octets, error.start)


def _refuse_octets(name: str, octets: bytes, index: int) -> NoReturn:
    before = octets[:index]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    raise ConfigError(f"{name}:{line}:{column}", f"octet 0x{octets[index]:02x} is no UTF-8; save the file as UTF-8")
