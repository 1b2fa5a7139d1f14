"""``panloom get``: list the resources of a kind."""

import sys
from typing import Any

import click

from panloom.command import completing
from panloom.command.columns import Kind, kind_of, table
from panloom.command.output import emit_data, emit_table, output_option, say, suggest
from panloom.control.client import Client

_REFRESH_SECONDS = 2
_NEXT = {
    "server": ("See one", "panloom show server {pan}/{server}"),
    "node": ("See one, with the stages of its last boot", "panloom show node {node}"),
    "image": ("Use it: write `image: {image}` in a server, then", "panloom plan FILE"),
    "volume": ("See one", "panloom show volume {volume}"),
    "snapshot": ("Clone it: write `snapshot: …` in a server's `disk:`, then", "panloom plan FILE"),
    "update": ("See one, server by server", "panloom show update {image}"),
    "pan": ("See its servers", "panloom get servers"),
    "lan": ("See one", "panloom show lan {pan}/{lan}"),
    "rule": ("See the machines", "panloom get nodes"),
    "platform": ("See how it is", "panloom status"),
    "event": ("Follow them", "panloom events -f"),
}


@click.command("get", short_help="List resources.")
@click.argument("kind", metavar="KIND", shell_complete=completing.kinds)
@output_option
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever something happens, until interrupted.")
@click.pass_obj
def command(client: Client, kind: str, form: str, *, watch: bool) -> int:
    """List the resources of a KIND.

    Kinds are servers, nodes, images, updates, volumes, snapshots, pans, lans, rules, platform and events.
    """
    found = kind_of(kind)
    rows = _rows(client, found)
    _show(found, rows, form)
    if watch:
        _watch(client, found, form, rows)
    if form in ("table", "wide"):
        _suggest(found, rows)
    return 0


def _rows(client: Client, kind: Kind) -> Any:  # noqa: ANN401 -- JSON
    if kind.name == "event":
        return client.get("events")["events"]
    return client.get("resources", kind.name)["rows"]


def _show(kind: Kind, rows: Any, form: str) -> None:  # noqa: ANN401 -- JSON
    if form in ("json", "yaml"):
        emit_data(rows, form)
        return
    header, cells = table(kind, rows, wide=form == "wide")
    if cells:
        emit_table(header, cells)
    else:
        say(f"There are no {kind.words[0]} yet.")


def seen(rows: Any, form: str) -> Any:  # noqa: ANN401 -- JSON
    """Return what a form shows of rows: no table but the wide one has statistics, which change with every operation."""
    return [{**row, "statistics": None} for row in rows] if form == "table" else rows


def _suggest(kind: Kind, rows: Any) -> None:  # noqa: ANN401 -- JSON
    if not rows:
        suggest("Describe some in a file, then", "panloom plan FILE")
        return
    what, text = _NEXT[kind.name]
    filled = {key: str(value) for key, value in rows[0].items()}
    try:
        suggest(what.format(**filled), text.format(**filled))
    except KeyError:
        suggest("See how the platform is", "panloom status")


def _watch(client: Client, kind: Kind, form: str, shown: Any) -> None:  # noqa: ANN401 -- JSON
    """Show the rows again after each event, and now and then for what ages; on a terminal in the same place."""
    events = client.get("events")["events"]
    number = events[-1]["number"] if events else 0
    while True:
        news = client.get("events", after=number, wait=_REFRESH_SECONDS)["events"]
        number = news[-1]["number"] if news else number
        rows = _rows(client, kind)
        if sys.stdout.isatty():
            click.clear()
        elif seen(rows, form) == seen(shown, form):
            continue
        shown = rows
        _show(kind, rows, form)
