"""``panloom doctor``: what this machine lacks, and what brings it."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from panloom.command.main import DEFAULT_SOCKET
from panloom.command.output import emit, emit_data, output_option, suggest
from panloom.control.client import Client

if TYPE_CHECKING:
    from panloom.doctor.check import Check

_COLOURS = {"ok": "green", "without": "yellow", "missing": "red", "unknown": "yellow"}
_PURPOSES = ("control-node", "demo", "tests", "benchmarks")
_DEFAULT = ("control-node", "demo")
_INDENT = 2
_DIRECTORY, _STORAGE = Path("/var/lib/panloom/storage"), Path("/run/panloom/storage.sock")


@click.command("doctor", short_help="Look what this machine lacks, and what brings it.")
@click.option(
    "--for",
    "purposes",
    multiple=True,
    type=click.Choice(_PURPOSES),
    default=_DEFAULT,
    show_default=True,
    help="What it is wanted for.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=None,
    show_default=f"{_DIRECTORY}, or beside --socket",
    help="Where the storage process keeps images and volumes.",
)
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default=None,
    show_default=f"{_STORAGE}, or beside --socket",
    help="The storage process's control channel.",
)
@output_option
@click.pass_obj
def command(client: Client, purposes: Sequence[str], directory: Path | None, storage: Path | None, form: str) -> int:
    """Look at kernel, tools, processes and directories; change nothing.

    ok is there; without is not, and it goes without; missing is needed; unknown this user may not see. Exit code: 1
    if something is missing.
    """
    from panloom.doctor import host, packages, service
    from panloom.doctor.check import State, lacks

    tree = packages.unpacked_tree()
    control = Path(client.path)
    own = (_STORAGE, _DIRECTORY) if client.path == DEFAULT_SOCKET else service.beside(control)
    processes = service.checks(control, storage or own[0], directory or own[1])
    found = (*host.checks(), *processes, *packages.checks(tree))
    found = tuple(check for check in found if check.purpose.value in purposes)
    wrong = lacks(found, {check.purpose for check in found})
    if form in ("json", "yaml"):
        emit_data({"state": "missing" if wrong else "ok", "checks": msgspec.to_builtins(found)}, form)
        return int(wrong)
    for purpose in purposes:
        _show(purpose, [check for check in found if check.purpose.value == purpose])
    _suggest([check for check in found if check.state is State.MISSING])
    return int(wrong)


def _show(purpose: str, checks: "Sequence[Check]") -> None:
    emit(click.style(purpose, bold=True))
    width = max((len(check.what) for check in checks), default=0)
    for check in checks:
        state = check.state.value
        told = "; ".join(filter(None, (check.found, check.mend if state != "ok" else "")))
        lines = _wrapped(told, indent=_INDENT + len("missing") + 2 + width + 2)
        emit(f"{'':{_INDENT}}{click.style(f'{state:<7}', fg=_COLOURS[state])}  {check.what:<{width}}  {lines}".rstrip())


def _wrapped(text: str, *, indent: int) -> str:
    """Break a text at the edge of the terminal; as it is where there is none."""
    if not sys.stdout.isatty():
        return text
    room = max(shutil.get_terminal_size().columns - indent, 20)
    return f"\n{'':{indent}}".join(textwrap.wrap(text, room, break_on_hyphens=False))


def _suggest(missing: "Sequence[Check]") -> None:
    names = sorted({package for check in missing for package in check.packages})
    if names:
        suggest("Install what is missing", f"apt-get install --no-install-recommends {' '.join(names)}")
    if any(
        check.purpose.value != "control-node" and (check.packages or check.mend == "scripts/setup") for check in missing
    ):
        suggest("Or, in a checkout, unpack it below .cache and install nothing", "scripts/setup test")
    if not missing:
        suggest("Nothing that is needed is missing. See it at work", "panloom demo")
