"""``panloom plan``: what applying files would change, and which machines would boot for it."""

import click

from panloom.command import changes
from panloom.command import files as reading
from panloom.command.output import emit, emit_data, output_option, say, suggest
from panloom.control.client import Client


@click.command("plan", short_help="Show what applying files would change.")
@changes.files_argument
@output_option
@click.pass_obj
def command(client: Client, files: tuple[str, ...], form: str) -> int:
    """Show what applying FILEs would change: + add, ~ change, - what they no longer name.

    FILE may be a directory of YAML files, or - for stdin. Exit code: 0 no changes, 2 changes, 1 an error.
    """
    plan = client.post("plan", body={"files": reading.read(files)})
    if form in ("json", "yaml"):
        emit_data(plan, form)
    elif changes.is_empty(plan):
        emit("No changes.")
        suggest("See how it runs", "panloom get servers")
    else:
        changes.show(plan, wide=form == "wide")
        emit(f"Plan: {changes.summary(plan, 'plan')}.")
        if plan["remove"]:
            say("What is marked - stays unless you add --prune.")
        suggest("Apply it", changes.command("apply", files, prune=bool(plan["remove"])))
    return 0 if changes.is_empty(plan) else 2
