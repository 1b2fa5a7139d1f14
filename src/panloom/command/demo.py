"""``panloom demo``: the main job, shown in a laboratory of its own."""

import click


@click.command("demo", short_help="Show the main job on this machine.")
@click.option("--keep", is_flag=True, help="Leave it running and name the next useful commands.")
@click.option(
    "--patience",
    type=click.IntRange(1, 3600),
    default=60,
    metavar="SECONDS",
    show_default=True,
    help="How long a machine may take to boot; a slow computer may need more.",
)
def command(*, keep: bool, patience: int) -> int:
    """Boot diskless machines as servers, kill one, and see its server come back on a spare.

    Everything runs in namespaces of its own and is removed at the end.
    """
    from panloom.lab.demo import run

    return run(keep=keep, patience_seconds=patience)
