"""An interpreter of the iPXE scripts that Panloom hands out, as strict as iPXE of 2019 is where they use it.

    #!ipxe                             first line
    :label                             goto label
    command words ${setting} && next command || other command ||      an empty one succeeds

It holds no socket: ``Run.acts()`` yields what is to be done in the world and is sent whether that succeeded.  A line
that fails without ``||`` ends the script, as does its last line.

    Echo(text)   Sleep(seconds)   Dhcp()   Chain(url)   Sanboot(root_path)   Choose(items, default, …)
"""

import re
from collections.abc import Generator, MutableMapping
from urllib.parse import quote

import msgspec

from panloom.errors import MalformedError

_SETTING = re.compile(r"\$\{([^}:]*)(?::([a-z]+))?\}")
_MAX_STEPS = 10_000  # between two acts; a script that loops without doing anything never ends


class Echo(msgspec.Struct, frozen=True):
    """Show a line."""

    text: str


class Sleep(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class Dhcp(msgspec.Struct, frozen=True):
    """Ask for an address again and take over what came with it."""


class Chain(msgspec.Struct, frozen=True):
    """Fetch another script and go on with that one; on success the script that asked is not returned to."""

    url: str


class Sanboot(msgspec.Struct, frozen=True):
    """Log in to a disk and boot from it; on success nothing returns."""

    root_path: str


class Choose(msgspec.Struct, frozen=True):
    """Show a menu and have the label of one item set; without a key pressed in time it is the default's."""

    title: str
    items: tuple[tuple[str, str], ...]
    """Label and text of each."""
    default: str
    timeout_seconds: float
    setting: str


Act = Echo | Sleep | Dhcp | Chain | Sanboot | Choose


class RootPath(msgspec.Struct, frozen=True):
    """An iSCSI root path, RFC 4173 section 5."""

    address: str
    port: int
    lun: int
    target: str

    @classmethod
    def parse(cls, text: str) -> "RootPath":
        """Read ``iscsi:ADDRESS:PROTOCOL:PORT:LUN:TARGET``; MalformedError if it is none."""
        match text.split(":", 5):
            case ["iscsi", address, "6" | "", port, lun, target] if address and target:
                try:
                    return cls(address, int(port or "3260"), int(lun or "0", 16), target)
                except ValueError as error:
                    raise MalformedError(f"root path {text!r}: {error}") from error
        raise MalformedError(f"{text!r} is no iSCSI root path")


def run_script(text: str, settings: MutableMapping[str, str]) -> Generator[Act, bool, bool]:
    """Carry a script out, reading and writing ``settings``; return whether it ended well.

    MalformedError for what iPXE does not understand either.
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != "#!ipxe":
        raise MalformedError("no iPXE script: the first line is not #!ipxe")
    labels = {line[1:].strip(): number for number, line in enumerate(lines) if line.startswith(":")}
    number, steps, menu = 1, 0, _Menu()
    while number < len(lines):
        steps += 1
        if steps > _MAX_STEPS:
            raise MalformedError("the script goes round without doing anything")
        line = lines[number]
        number += 1
        if line.startswith((":", "#")) or not line.strip():
            continue
        succeeded, jump = True, None
        for joint, words in _commands(line):
            if joint == ("||" if succeeded else "&&"):
                continue
            expanded = [
                _SETTING.sub(lambda found: _shown(settings.get(found[1], ""), found[2]), word) for word in words
            ]
            step = _command([word for word in expanded if word], settings, labels, menu)
            if isinstance(step, bool):
                succeeded = step
            elif isinstance(step, int):
                jump = step
                break
            else:
                succeeded, steps = (yield step), 0
                if succeeded and isinstance(step, Chain | Sanboot):
                    return True
        if jump is not None:
            number = jump
        elif not succeeded:
            return False
    return True


def _shown(value: str, form: str | None) -> str:
    """Return a setting's value as a type of iPXE's shows it; those of ``hexraw`` are kept as they are shown."""
    match form:
        case None | "string" | "hexraw":
            return value
        case "uristring":
            return quote(value, safe="")
    raise MalformedError(f"iPXE knows no type {form!r}")


def _commands(line: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a line, each with the operator before it, the first with none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for word in line.split():
        if word in ("&&", "||"):
            found.append((word, []))
        else:
            found[-1][1].append(word)
    return found


class _Menu:
    """The menu that ``item`` adds to."""

    def __init__(self) -> None:
        self.title = ""
        self.items: list[tuple[str, str]] = []


def _command(
    words: list[str], settings: MutableMapping[str, str], labels: dict[str, int], menu: _Menu
) -> Act | bool | int:
    """Do one command: what it asks of the world, whether it succeeded, or the line to go on with."""
    match words:
        case []:
            return True
        case ["echo", *text]:
            return Echo(" ".join(text))
        case ["set", name, *value] | ["set", name, "=", *value]:
            settings[name] = " ".join(value)
            return True
        case ["clear", name]:
            return settings.pop(name, None) is not None
        case ["isset"]:
            return False
        case ["isset", _]:
            return True
        case ["goto", label] if label in labels:
            return labels[label]
        case ["sleep", seconds] if seconds.isdigit():
            return Sleep(float(seconds))
        case ["dhcp", *_]:
            return Dhcp()
        case ["chain", *flags, url] if all(flag in ("--replace", "--autofree") for flag in flags):
            return Chain(url)
        case ["sanboot", root_path]:
            return Sanboot(root_path)
        case ["sanhook", _]:  # of no use to a machine without a BIOS
            return False
        case ["menu", *title]:
            menu.title, menu.items = " ".join(title), []
            return True
        case ["item", "--key", key, label, *text] if len(key) == 1:
            menu.items.append((label, " ".join(text)))
            return True
        case ["item", label, *text] if not label.startswith("--"):
            menu.items.append((label, " ".join(text)))
            return True
        case ["choose", "--default", default, "--timeout", milliseconds, setting] if milliseconds.isdigit():
            return Choose(menu.title, tuple(menu.items), default, int(milliseconds) / 1000, setting)
    raise MalformedError(f"iPXE knows no {' '.join(words[:2])!r}, or not like this")
