"""``panloom power``: switch nodes on or off, or reset them; the same as ``panloom node power``, node first."""

import click

from panloom.command import completing
from panloom.command.node import ACTIONS, switch
from panloom.control.client import Client


@click.command("power", short_help="Switch nodes on or off, or reset them.")
@click.argument("node", metavar="NODES", shell_complete=completing.nodes)
@click.argument("action", type=click.Choice(ACTIONS))
@click.pass_obj
def command(client: Client, node: str, action: str) -> int:
    """Switch NODES (n1, n[1-4]) on or off, reset them, or kill them; the same as `panloom node power`."""
    return switch(client, action, (node,))
