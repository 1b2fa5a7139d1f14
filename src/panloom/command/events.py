"""``panloom events``: what happened, oldest first."""

import json
from typing import Any

import click

from panloom.command.columns import at_clock
from panloom.command.output import emit_data, emit_folded, say, suggest
from panloom.control.client import Client

_WAIT_SECONDS = 30
_DEFAULT_COUNT = 50


@click.command("events", short_help="Show what happened; -f to follow.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more happens, until interrupted.")
@click.option(
    "-n", "--last", "count", type=click.IntRange(0), default=_DEFAULT_COUNT, show_default=True, help="How many."
)
@click.option("-o", "--output", "form", type=click.Choice(("table", "json", "yaml")), default="table")
@click.pass_obj
def command(client: Client, count: int, form: str, *, follow: bool) -> int:
    """Show the last events; with -f also those to come. As JSON, one event a line when following."""
    known = client.get("events")["events"]
    shown = known[-count:] if count else []
    if form != "table" and not follow:
        emit_data(shown, form)
        return 0
    for event in shown:
        _emit(event, form)
    if not follow:
        if not known:
            say("Nothing has happened yet.")
        suggest("Follow them", "panloom events -f")
        return 0
    number = known[-1]["number"] if known else 0
    while True:
        for event in client.get("events", after=number, wait=_WAIT_SECONDS)["events"]:
            number = event["number"]
            _emit(event, form)


def _emit(event: Any, form: str) -> None:  # noqa: ANN401 -- JSON
    if form != "table":
        click.echo(json.dumps(event, ensure_ascii=False))
        return
    who = " ".join(str(event[key]) for key in ("server", "node") if event.get(key))
    emit_folded(f"{at_clock(event['at'])}  {event['kind']:<12}  {who:<16}  ", event["text"])
