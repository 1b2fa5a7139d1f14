"""``panloom diff``: what applying files would change, field by field."""

import click

from panloom.command import changes, completing
from panloom.command import files as reading
from panloom.command.output import emit, emit_data, output_option, suggest
from panloom.control.client import Client


@click.command("diff", short_help="Show field by field what applying files would change.")
@click.argument("files", nargs=-1, type=click.Path(), metavar="[FILE…]")
@click.option(
    "--from",
    "first",
    type=click.IntRange(0),
    shell_complete=completing.revisions,
    metavar="NUMBER",
    help="What changed since that revision.",
)
@click.option(
    "--to",
    "second",
    type=click.IntRange(0),
    shell_complete=completing.revisions,
    metavar="NUMBER",
    help="With --from: up to that revision.",
)
@output_option
@click.pass_obj
def command(client: Client, files: tuple[str, ...], first: int | None, second: int | None, form: str) -> int:
    """Show field by field what applying FILEs would change, or what changed since a revision.

    Exit code: 0 no changes, 2 changes, 1 an error.
    """
    if bool(files) == (first is not None) or (second is not None and first is None):
        raise click.UsageError("name files, or a revision with --from and perhaps --to")
    if first is None:
        plan = client.post("plan", body={"files": reading.read(files)})
    else:
        plan = client.get("diff", **{"from": first}, **({} if second is None else {"to": second}))
    if form in ("json", "yaml"):
        emit_data(plan, form)
    elif changes.is_empty(plan):
        emit("No changes.")
    else:
        changes.show_fields(plan)
        if first is None:
            suggest("Apply it", changes.command("apply", files, prune=bool(plan["remove"])))
        else:
            suggest("Go back to it", f"panloom rollback {first}")
    return 0 if changes.is_empty(plan) else 2
