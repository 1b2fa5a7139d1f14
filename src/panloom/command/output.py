"""How the command line looks: data on stdout, talk on stderr, colours only on a terminal and never the only sign."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import click

FORMATS = ("table", "wide", "json", "yaml")
_NARROWEST = 20  # columns that a folded text takes at least
_MARKS = {"+": "green", "~": "yellow", "-": "red"}

output_option: Callable[[Any], Any] = click.option(
    "-o", "--output", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="Form of the data."
)


def is_coloured() -> bool:
    """Whether stdout is a terminal and its user has not asked for no colours (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def say(text: str) -> None:
    """Tell the person at the terminal something that is no data."""
    click.echo(text, err=True)


def suggest(what: str, command: str) -> None:
    """Name the next useful command."""
    say(f"{what}: {command}")


def emit(text: str) -> None:
    """Write a line of data."""
    click.echo(text, color=is_coloured())


def emit_data(data: Any, form: str) -> None:  # noqa: ANN401 -- JSON
    """Write data for a program to read."""
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml  # 30 ms that only this form needs

    click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Write aligned columns; an empty header is not written.

    On a terminal that is too narrow the last column is folded.
    """
    lines = [tuple(row) for row in rows]
    every = [tuple(header), *lines] if header else lines
    widths = [max((len(line[column]) for line in every), default=0) for column in range(len(every[0]) if every else 0)]
    for number, line in enumerate(every):
        before = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(line[:-1], widths, strict=False))
        emit_folded(before, line[-1], bold=bool(header) and number == 0)


def emit_folded(before: str, text: str, *, bold: bool = False) -> None:
    """Write a line of data; on a terminal that is too narrow ``text`` goes on beneath itself."""
    room = shutil.get_terminal_size().columns - len(before) if sys.stdout.isatty() else 0
    first, *others = (textwrap.wrap(text, room) if room >= _NARROWEST else []) or [text]
    for line in ((before + first).rstrip(), *(" " * len(before) + piece for piece in others)):
        emit(click.style(line, bold=True) if bold else line)


def mark(sign: str) -> str:
    """Return + ~ or - in its colour."""
    return click.style(sign, fg=_MARKS.get(sign))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return what was probably meant, or everything there is."""
    names = list(known)
    close = get_close_matches(word, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"there are {', '.join(names)}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``1 server`` or ``2 servers``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
