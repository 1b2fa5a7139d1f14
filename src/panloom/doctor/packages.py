"""Are the Debian packages there, on this machine or unpacked by scripts/setup?"""

import ctypes
import os
import shutil
from importlib.resources import files
from pathlib import Path

import msgspec

from panloom.doctor.check import Check, Purpose, State

UNPACKED = ".cache/debian"


class Line(msgspec.Struct, frozen=True):
    """A line of ``packages.txt``."""

    purpose: Purpose
    is_file: bool
    proof: str
    packages: tuple[str, ...]
    what_for: str


def lines() -> tuple[Line, ...]:
    """Return all that any purpose needs."""
    text = files("panloom.doctor").joinpath("packages.txt").read_text()
    found = [line.split(None, 4) for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(
        Line(Purpose(purpose), how == "file", proof, tuple(packages.split(",")), what_for)
        for purpose, how, proof, packages, what_for in found
    )


def unpacked_tree() -> Path | None:
    """Return where scripts/setup unpacks packages, None where it has not been: it is found as the lab finds it."""
    given = os.environ.get("PANLOOM_PACKAGES")
    if given:
        return Path(given) if Path(given).is_dir() else None
    below = (Path.cwd(), *Path(__file__).resolve().parents)
    return next((base / UNPACKED for base in below if (base / UNPACKED).is_dir()), None)


def checks(tree: Path | None) -> tuple[Check, ...]:
    """Look for the packages of every purpose; ``tree`` is where some may be unpacked."""
    return tuple(_check(line, tree) for line in lines())


def _check(line: Line, tree: Path | None) -> Check:
    place = _place(line.proof, tree)
    name = line.packages[0]
    if place is not None:
        return Check(line.purpose, name, State.OK, place)
    mend = "scripts/setup" if line.is_file else ""
    packages = () if line.is_file else line.packages
    return Check(line.purpose, name, State.MISSING, line.what_for, mend, packages)


def _place(proof: str, tree: Path | None) -> str | None:
    """Return where the proof is, None if it is nowhere."""
    kind, _, name = proof.partition(":")
    match kind:
        case "program":
            ours = [str(tree / "usr" / directory) for directory in ("sbin", "bin")] if tree else []
            return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *ours)))
        case "library":
            return _library(name, tree)
    found = next(iter(sorted(tree.glob(name))), None) if tree else None
    return str(found) if found else None


def _library(name: str, tree: Path | None) -> str | None:
    try:
        ctypes.CDLL(name)
    except OSError:
        found = next(tree.glob(f"usr/lib/*/{name}"), None) if tree else None
        return str(found) if found else None
    return name
