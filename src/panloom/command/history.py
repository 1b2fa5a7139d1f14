"""``panloom history``: who changed the documents, when, and what."""

from typing import Any

import click

from panloom.command import changes, completing
from panloom.command.columns import at_clock
from panloom.command.output import emit, emit_data, emit_table, output_option, say, suggest
from panloom.control.client import Client


@click.command("history", short_help="Show who changed the documents, when, and what.")
@click.argument(
    "revision", type=click.IntRange(1), required=False, metavar="[REVISION]", shell_complete=completing.revisions
)
@output_option
@click.pass_obj
def command(client: Client, revision: int | None, form: str) -> int:
    """List the revisions of the documents, or show one REVISION field by field.

    Each apply, delete, rollback and approved machine is one. The last 200 are remembered.
    """
    if revision is None:
        return _show_all(client.get("revisions")["revisions"], form)
    found = client.get("revisions", str(revision))
    if form in ("json", "yaml"):
        emit_data(found, form)
        return 0
    _show_one(found["revision"], found["plan"])
    return 0


def _show_all(revisions: Any, form: str) -> int:  # noqa: ANN401 -- JSON
    if form in ("json", "yaml"):
        emit_data(revisions, form)
        return 0
    if not revisions:
        say("Nothing was applied yet.")
        suggest("Describe something in a file, then", "panloom plan FILE")
        return 0
    header = ["REVISION", "AT", "WHO", "WHAT", "CHANGES", "FROM"]
    rows = [
        [str(one["number"]), at_clock(one["at"]), one["who"], _what(one), _counts(one), ", ".join(one["files"]) or "-"]
        for one in revisions
    ]
    if form == "wide":
        header.append("NAMES")
        rows = [[*row, ", ".join(one["changes"])] for row, one in zip(rows, revisions, strict=True)]
    emit_table(header, rows)
    suggest("See one", f"panloom history {revisions[-1]['number']}")
    return 0


def _show_one(revision: Any, plan: Any) -> None:  # noqa: ANN401 -- JSON
    number = revision["number"]
    emit(
        click.style(f"revision {number}", bold=True)
        + f"   {_what(revision)} by {revision['who']}, {at_clock(revision['at'])}"
    )
    if revision["files"]:
        emit(f"from {', '.join(revision['files'])}")
    if plan is None:
        for line in revision["changes"]:
            emit(line)
        say("What it replaced is forgotten: there is no way back to before it.")
        return
    changes.show_fields(plan)
    suggest("Go back to before it", f"panloom rollback {number - 1}")


def _what(revision: Any) -> str:  # noqa: ANN401 -- JSON
    return f"{revision['what']} to {revision['to']}" if revision["to"] is not None else str(revision["what"])


def _counts(revision: Any) -> str:  # noqa: ANN401 -- JSON
    marks = (("+", "add"), ("~", "change"), ("-", "remove"))
    return " ".join(f"{mark}{revision[key]}" for mark, key in marks if revision[key]) or str(len(revision["changes"]))
