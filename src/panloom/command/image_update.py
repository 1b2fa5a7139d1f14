"""``panloom image update``: give the servers of an image new disks of another version, one after the other.

image update web@2                 all servers of web, each well before the next begins
image update web@stable --width 3  three at a time
image update web@2 shop/web1       this one alone
"""

import time
from collections.abc import Mapping
from typing import Any

import click

from panloom.command import completing
from panloom.command.output import emit, say, suggest
from panloom.control.client import Client

_POLL_SECONDS = 0.2


@click.command("update", short_help="Give the servers of an image new disks of another version.")
@click.argument("image", metavar="NAME[@VERSION|@TAG]", shell_complete=completing.images)
@click.argument("servers", nargs=-1, metavar="[PAN/SERVER]...", shell_complete=completing.servers)
@click.option("--width", type=click.IntRange(1, 100), default=1, show_default=True, help="How many at a time.")
@click.option("--wait/--no-wait", default=True, help="Whether to stay until it has ended.")
@click.option("--stop", is_flag=True, help="Let no further server begin; those that have begun come to their end.")
@click.pass_obj
def command(client: Client, image: str, servers: tuple[str, ...], *, width: int, wait: bool, stop: bool) -> int:
    """Give the servers of an image new disks, clones of a version, one after the other, each well before the next.

    A server starts anew from the new disk and finds there what the image holds, and none of its own data: these stay on
    its old disk, a volume of its own from then on, until somebody deletes that. A server that is not well in time (its
    document's `health:` says what that is) gets its old disk back, and no further one begins.
    """
    name, _, to = image.partition("@")
    if stop:
        row = client.post("images", name, "update", "stop")
    else:
        row = client.post("images", name, "update", body={"to": to, "servers": list(servers), "width": width})
    if not row["turns"]:
        emit(f"There is nothing to update: every server meant has {row['version']}.")
        return 0
    if wait:
        row = _follow(client, name, row)
    emit(f"{name}: {row['story']}")
    if row["state"] in ("under way", "stopping"):
        suggest("Follow it", f"panloom show update {name}")
    else:
        suggest("See the disks", "panloom get volumes")
    return 1 if row["state"] == "stopped" and not stop else 0


def _follow(client: Client, name: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say each new stage of each server until the update has ended; return how it ended."""
    began, told = row["since"], {turn["server"]: "waiting" for turn in row["turns"]}
    while True:
        for turn in row["turns"]:
            if told.get(turn["server"]) != turn["stage"]:
                told[turn["server"]] = turn["stage"]
                say(f"{turn['server']}: {turn['stage']}" + (f": {turn['why']}" if turn["why"] else ""))
        if row["state"] not in ("under way", "stopping") or row["since"] != began:
            return row
        time.sleep(_POLL_SECONDS)
        row = client.get("resources", "update", name)
