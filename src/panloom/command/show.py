"""``panloom show``: one resource with everything known of it; for a node, the stages of its last boot."""

import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from panloom.command import completing
from panloom.command.boot_timeline import timeline
from panloom.command.columns import age, at_clock, disk, kind_of
from panloom.command.disk_statistics import limits_text, statistics_lines
from panloom.command.output import emit, emit_data, emit_table, output_option, suggest
from panloom.control.client import Client
from panloom.values import format_size

_NEXT = {
    "server": ("See its machine", "panloom show node {node}"),
    "node": ("Follow what happens", "panloom events -f"),
    "snapshot": ("Delete it", "panloom delete snapshot {snapshot} --yes"),
    "volume": ("Destroy it with its data", "panloom delete volume {volume} --yes"),
}


@click.command("show", short_help="Show one resource with everything known of it.")
@click.argument("kind", metavar="KIND", shell_complete=completing.resource_kinds)
@click.argument("name", metavar="NAME", shell_complete=completing.names)
@output_option
@click.pass_obj
def command(client: Client, kind: str, name: str, form: str) -> int:
    """Show one resource: KIND as in get, NAME as n1, web@3 or shop/web1."""
    found = kind_of(kind)
    row = client.get("resources", found.name, volume_label(name) if found.name in ("volume", "snapshot") else name)
    if form in ("json", "yaml"):
        emit_data(row, form)
        return 0
    emit(click.style(f"{found.name} {name}", bold=True) + (f"   {row['state']}" if row.get("state") else ""))
    boot = row.get("boot")
    emit_table((), _lines(found.name, row), indent="  ")
    if isinstance(boot, Mapping):
        for line in timeline(boot, columns=shutil.get_terminal_size((100, 24)).columns):
            emit(line)
    what, text = _NEXT.get(found.name, ("See all", f"panloom get {found.words[0]}"))
    filled = {key: value for key, value in row.items() if value}
    try:
        suggest(what, text.format(**filled))
    except KeyError:
        suggest("See all", f"panloom get {found.words[0]}")
    return 0


def volume_label(name: str) -> str:
    """Return PAN/NAME, also from PAN.NAME as the storage process calls a volume."""
    return name if "/" in name else name.replace(".", "/", 1)


def _lines(kind: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in row.items():
        if kind == "volume" and key == "statistics":
            yield from statistics_lines(value, now=time.time()) if value else [(key, "unknown")]
        elif kind == "volume" and key == "limits":
            yield key, limits_text(value)
        elif key == "turns":
            yield from ((turn["server"], turn["stage"] + (f": {turn['why']}" if turn["why"] else "")) for turn in value)
        elif key not in ("boot", "name", "state") and (text := _value(key, value, row)):
            yield _key(key), text


def _key(key: str) -> str:
    return key.removesuffix("_octets").removesuffix("_seconds").replace("_", " ")


def _value(key: str, value: Any, row: Mapping[str, Any]) -> str:  # noqa: ANN401 -- JSON
    """Return a value as people read it, nothing for what is not set or stands in another line."""
    match value:
        case None | "" | []:
            return ""
        case True | False:
            return "yes" if value else "no"
        case int() if key == "disk_octets":
            return disk(row)
        case int() if key == "allocated_octets":
            return ""
        case int() if key.endswith("octets"):
            return format_size(value)
        case int() | float() if key.endswith("_seconds"):
            return f"{value:g} s"
        case int() | float() if key in ("since", "at", "agent_heard"):
            return f"{at_clock(value)} ({age(time.time() - value)} ago)"
        case Mapping():
            return ", ".join(
                f"{_key(inner)} {_value(inner, item, row)}" for inner, item in value.items() if item is not None
            )
        case list():
            return "; ".join(_value("", item, row) for item in value)
    return str(value)
