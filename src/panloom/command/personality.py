"""``panloom personality export``: what makes a machine be a server, as JSON."""

import click

from panloom.command import completing
from panloom.command.output import emit_data, suggest
from panloom.control.client import Client


@click.group("personality", short_help="Export what makes a machine be a server.")
def command() -> None:
    """A server's personality: its virtual network and virtual storage."""


@command.command("export")
@click.argument("server", metavar="PAN/SERVER", shell_complete=completing.servers)
@click.option("-o", "--output", "form", type=click.Choice(("json", "yaml")), default="json", show_default=True)
@click.pass_obj
def export(client: Client, server: str, form: str) -> int:
    """Write the personality of PAN/SERVER: MACs, addresses, LANs, disks. Secrets are left out."""
    if server.count("/") != 1:
        raise click.UsageError(f"{server!r} names no server; write PAN/SERVER, like shop/web1")
    emit_data(client.get("personalities", server), form)
    suggest("See where it runs", f"panloom show server {server}")
    return 0
