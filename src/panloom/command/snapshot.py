"""``panloom snapshot``: freeze what a volume holds now, under a name, while its server goes on."""

import click

from panloom.command import completing
from panloom.command.output import emit, suggest
from panloom.command.show import volume_label
from panloom.control.client import Client


@click.command("snapshot", short_help="Freeze what a volume holds now, under a name.")
@click.argument("snapshot", metavar="PAN/VOLUME@NAME", shell_complete=completing.volumes)
@click.pass_obj
def command(client: Client, snapshot: str) -> int:
    """Take the snapshot PAN/VOLUME@NAME of PAN/VOLUME, in constant time; its server goes on meanwhile.

    It holds what the disk would after a power cut now: file systems replay their journals. A clone of it is a disk that
    says `snapshot: VOLUME@NAME`.
    """
    volume, _, name = volume_label(snapshot).partition("@")
    if volume.count("/") != 1 or not name:
        raise click.UsageError(f"{snapshot!r} names no snapshot; write PAN/VOLUME@NAME, like shop/web1@before")
    answer = client.post("volumes", volume, "snapshots", body={"name": name})
    took = (
        f"taken in {answer['seconds'] * 1000:.0f} ms" if answer["created"] else "is there already, and stays as it was"
    )
    emit(f"{answer['snapshot']}: {took}")
    suggest("See all", "panloom get snapshots")
    return 0
