"""``panloom version``."""

import click

from panloom.command.output import emit, suggest


@click.command("version", short_help="Show the version.")
def command() -> int:
    """Show the version of the command line."""
    from importlib.metadata import version

    emit(f"panloom {version('panloom')}")
    suggest("See it at work", "panloom demo")
    return 0
