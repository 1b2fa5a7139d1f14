"""``panloom status``: how the platform is."""

import click

from panloom.command.output import emit, emit_data, emit_table, output_option, suggest
from panloom.control.client import Client


@click.command("status", short_help="Show how the platform is.")
@output_option
@click.pass_obj
def command(client: Client, form: str) -> int:
    """Show how the platform is, part by part."""
    status = client.get("status")
    if form in ("json", "yaml"):
        emit_data(status, form)
        return 0
    emit(str(status["state"]))
    rows = [(part["part"], part["state"], part.get("why") or "") for part in status.get("parts", [])]
    if rows:
        emit_table(("PART", "STATE", "WHY"), rows)
    suggest("See the servers", "panloom get servers")
    return 0
