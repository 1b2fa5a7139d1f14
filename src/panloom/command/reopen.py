"""``panloom reopen``: open a volume anew that is offline since a sync failed."""

import click

from panloom.command import completing
from panloom.command.output import emit
from panloom.command.show import volume_label
from panloom.control.client import Client


@click.command("reopen", short_help="Open a volume anew that a failed sync took offline.")
@click.argument("volume", metavar="PAN/VOLUME", shell_complete=completing.volumes)
@click.pass_obj
def command(client: Client, volume: str) -> int:
    """Open PAN/VOLUME anew, once its disk and file system are checked.

    It holds what was flushed before, as after a power cut; its server logs in anew.
    """
    label = volume_label(volume)
    if label.count("/") != 1:
        raise click.UsageError(f"{volume!r} names no volume; write PAN/VOLUME, like shop/web1")
    client.post("volumes", label, "reopen")
    emit(f"{label}: online")
    return 0
