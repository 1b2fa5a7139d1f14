"""``panloom diff``: what applying files would change, field by field."""

import click

from panloom.command import changes
from panloom.command import files as reading
from panloom.command.output import emit, emit_data, output_option, suggest
from panloom.control.client import Client


@click.command("diff", short_help="Show field by field what applying files would change.")
@changes.files_argument
@output_option
@click.pass_obj
def command(client: Client, files: tuple[str, ...], form: str) -> int:
    """Show field by field what applying FILEs would change.

    Exit code: 0 no changes, 2 changes, 1 an error.
    """
    plan = client.post("plan", body={"files": reading.read(files)})
    if form in ("json", "yaml"):
        emit_data(plan, form)
    elif changes.is_empty(plan):
        emit("No changes.")
    else:
        changes.show_fields(plan)
        suggest("Apply it", changes.command("apply", files, prune=bool(plan["remove"])))
    return 0 if changes.is_empty(plan) else 2
