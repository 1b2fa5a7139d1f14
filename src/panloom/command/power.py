"""``panloom power``: switch a node on or off, or reset it."""

import click

from panloom.command.output import emit, suggest
from panloom.control.client import Client


@click.command("power", short_help="Switch a node on or off, or reset it.")
@click.argument("node", metavar="NODE")
@click.argument("action", type=click.Choice(("on", "off", "reset")))
@click.pass_obj
def command(client: Client, node: str, action: str) -> int:
    """Switch NODE on or off, or reset it."""
    answer = client.post("nodes", node, "power", body={"action": action})
    emit(f"{node}: power {answer['power']}")
    suggest("See how it boots" if action != "off" else "See it", f"panloom show node {node}")
    return 0
