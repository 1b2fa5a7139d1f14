"""``panloom control``: run the control process; its options are its own."""

import click

from panloom.control.client import Client


@click.command(
    "control",
    short_help="Run the control process.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
@click.pass_obj
def command(client: Client, arguments: tuple[str, ...]) -> int:
    """Run the control process in the foreground; it listens on the socket that all commands speak to."""
    from panloom.control.main import main

    return main(["--socket", client.path, *arguments])
