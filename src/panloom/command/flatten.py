"""``panloom flatten``: let a volume copy what it reads of image and snapshots, and need them no more."""

import click

from panloom.command import completing
from panloom.command.output import emit, suggest
from panloom.command.show import volume_label
from panloom.control.client import Client


@click.command("flatten", short_help="Make a volume independent of its image and snapshots.")
@click.argument("volume", metavar="PAN/VOLUME", shell_complete=completing.volumes)
@click.pass_obj
def command(client: Client, volume: str) -> int:
    """Copy what PAN/VOLUME reads of its image and of snapshots into its own file, while its server goes on.

    Snapshots that it was a clone of can then be deleted.
    """
    label = volume_label(volume)
    if label.count("/") != 1:
        raise click.UsageError(f"{volume!r} names no volume; write PAN/VOLUME, like shop/web1")
    client.post("volumes", label, "flatten")
    emit(f"{label}: being flattened")
    suggest("See how it goes", f"panloom show volume {label}")
    return 0
