"""``panloom agent``: what a server runs, where its image is not one of ``panloom image build``."""

from pathlib import Path

import click


@click.command("agent", short_help="Say that this server lives, and what it is.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/"),
    show_default=True,
    help="Where the system's /run, /proc and /sys are.",
)
def command(root: Path) -> int:
    """Send the control node beacons and reports, until killed, of the server that /run/panloom/personality names.

    The Debian of panloom image build has the same program as a service of its own, without the rest of Panloom.
    """
    from panloom.node.agent import main

    return main(root)
