"""``panloom failover``: move a server to another node now."""

import click

from panloom.command import completing
from panloom.command.output import emit, suggest
from panloom.control.client import Client


@click.command("failover", short_help="Move a server to another node now.")
@click.argument("server", metavar="PAN/SERVER", shell_complete=completing.servers)
@click.pass_obj
def command(client: Client, server: str) -> int:
    """Fence the node that carries PAN/SERVER and let a spare boot it."""
    if server.count("/") != 1:
        raise click.UsageError(f"{server!r} names no server; write PAN/SERVER, like shop/web1")
    answer = client.post("servers", server, "failover")
    source = f" from {answer['from']}" if answer.get("from") else ""
    emit(f"{server} moves{source}: fence first, then a spare boots.")
    suggest("Watch it", "panloom events -f")
    return 0
