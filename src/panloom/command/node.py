"""``panloom node approve|release``: let a machine into the pool of spares."""

import click

from panloom.command.output import emit, suggest
from panloom.control.client import Client


@click.group("node", short_help="Approve a discovered machine, or release one from quarantine.")
def command() -> None:
    """Approve a discovered machine, or release one from quarantine."""


@command.command("approve")
@click.argument("node", metavar="NODE")
@click.pass_obj
def approve(client: Client, node: str) -> int:
    """Take a discovered machine, by its name or MAC, into the pool of spares."""
    client.post("nodes", node, "approve")
    emit(f"{node}: approved")
    suggest("See the pool", "panloom get nodes")
    return 0


@command.command("release")
@click.argument("node", metavar="NODE")
@click.pass_obj
def release(client: Client, node: str) -> int:
    """End a node's quarantine: it is a spare again."""
    client.post("nodes", node, "release")
    emit(f"{node}: released")
    suggest("See the pool", "panloom get nodes")
    return 0
