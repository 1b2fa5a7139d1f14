"""``panloom control``: run the control process; its options are its own."""

import click


@click.command(
    "control",
    short_help="Run the control process.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
def command(arguments: tuple[str, ...]) -> int:
    """Run the control process in the foreground."""
    from panloom.control.main import main

    return main(list(arguments))
