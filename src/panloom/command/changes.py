"""A plan as people read it."""

from collections.abc import Sequence
from typing import Any

import click

from panloom.command.output import counted, emit, emit_table, mark, say


def show(plan: Any, *, wide: bool = False) -> None:  # noqa: ANN401 -- JSON
    """Write one line a change; what comes with a server shows only when wide, or when it makes it boot again."""
    rows = []
    for change in plan["changes"]:
        if change["implied"] and not wide and not change["effect"]:
            continue
        note = change["note"] or change["effect"]
        rows.append((change["mark"], f"{change['kind']} {change['name']}", change["detail"], note))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for sign, name, detail, note in rows:
        line = f"{name:<{widths[1]}}   {detail:<{widths[2]}}   {note}".rstrip()
        emit(f"  {mark(sign)} {line}")
    for warning in plan.get("warnings", ()):
        say(f"warning: {warning}")


def show_fields(plan: Any) -> None:  # noqa: ANN401 -- JSON
    """Write each change with its fields."""
    for change in plan["changes"]:
        if change["implied"] and not change["effect"]:
            continue
        note = change["note"] or change["effect"]
        emit(f"{mark(change['mark'])} {change['kind']} {change['name']}" + (f"   {note}" if note else ""))
        if change["fields"]:
            arrow = [(field["path"], field["old"], "→", field["new"]) for field in change["fields"]]
            emit_table((), arrow, indent="    ")
        elif change["detail"]:
            emit(f"    {change['detail']}")


def summary(plan: Any, tense: str) -> str:  # noqa: ANN401 -- JSON
    """Return the counts; ``tense`` is ``plan`` or ``done``."""
    verbs = ("to add", "to change", "to remove") if tense == "plan" else ("added", "changed", "removed")
    counts = ", ".join(f"{plan[key]} {verb}" for key, verb in zip(("add", "change", "remove"), verbs, strict=True))
    effects = [
        f"{counted(len(plan[effect]), 'server')} {_verb(effect, len(plan[effect]))}"
        for effect in ("boots", "reboots", "stops")
        if plan[effect]
    ]
    return "; ".join([counts, *effects])


def is_empty(plan: Any) -> bool:  # noqa: ANN401 -- JSON
    """Whether there is nothing to do."""
    return not plan["changes"]


def command(verb: str, names: Sequence[str], *, prune: bool) -> str:
    """Return the command line that goes on from here."""
    import shlex

    return shlex.join(["panloom", verb, *(("--prune",) if prune else ()), *names])


def _verb(effect: str, count: int) -> str:
    return effect if count == 1 else effect.removesuffix("s")


files_argument = click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE…")
