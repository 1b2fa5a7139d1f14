"""``panloom apply``: make files what is wanted."""

import click

from panloom.command import changes
from panloom.command import files as reading
from panloom.command.output import emit, say, suggest
from panloom.control.client import Client


@click.command("apply", short_help="Make files what is wanted.")
@changes.files_argument
@click.option("--prune", is_flag=True, help="Remove what the files no longer name; disks stay.")
@click.pass_obj
def command(client: Client, files: tuple[str, ...], *, prune: bool) -> int:
    """Make FILEs what is wanted, all or nothing, and let the machines follow.

    FILE may be a directory of YAML files, or - for stdin.
    """
    done = client.post("apply", body={"files": reading.read(files), "prune": prune})
    if done["kept"]:
        again = changes.command("apply", files, prune=True)
        say(f"No longer named, but kept: {', '.join(done['kept'])}. Remove it: {again}")
    if changes.is_empty(done):
        emit("No changes.")
        suggest("See how it runs", "panloom get servers")
        return 0
    changes.show(done)
    emit(f"Applied: {changes.summary(done, 'done')}.")
    if done["boots"] or done["reboots"] or done["stops"]:
        suggest("Watch it", "panloom get servers --watch")
    else:
        suggest("See how the platform is", "panloom status")
    return 0
