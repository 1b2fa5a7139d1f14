"""``panloom delete``: take one resource out of what is wanted; the only way to destroy a volume."""

import click

from panloom.command import changes, completing
from panloom.command.columns import kind_of
from panloom.command.output import emit, suggest
from panloom.command.show import volume_label
from panloom.control.client import Client


@click.command("delete", short_help="Take one resource out of what is wanted.")
@click.argument("kind", metavar="KIND", shell_complete=completing.resource_kinds)
@click.argument("name", metavar="NAME", shell_complete=completing.names)
@click.option("--yes", is_flag=True, help="Yes, destroy a volume, a snapshot or an image for ever.")
@click.pass_obj
def command(client: Client, kind: str, name: str, *, yes: bool) -> int:
    """Take one resource out of what is wanted.

    A server's disk stays. A volume, a snapshot or an image is destroyed with its data, and only with --yes.
    """
    found = kind_of(kind)
    label = volume_label(name) if found.name in ("volume", "snapshot") else name
    done = client.delete("resources", found.name, label, yes="true" if yes else "false")
    changes.show(done)
    emit(f"Deleted: {changes.summary(done, 'done') if found.name != 'snapshot' else label}.")
    suggest("See what is left", f"panloom get {found.words[0]}")
    return 0
