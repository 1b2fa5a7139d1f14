"""``panloom storage``: run the storage process; its options are its own."""

import click


@click.command(
    "storage",
    short_help="Run the storage process.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
def command(arguments: tuple[str, ...]) -> int:
    """Run the storage process in the foreground."""
    from panloom.storage.__main__ import main

    return main(list(arguments))
