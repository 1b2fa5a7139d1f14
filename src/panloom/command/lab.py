"""``panloom lab up|status|down``: a whole chassis on this machine, in the background."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panloom.command.output import counted, emit, emit_data, emit_table, output_option, say, suggest
from panloom.control.client import Client
from panloom.errors import PanloomError

if TYPE_CHECKING:
    from panloom.lab.qemu import FirmwareKind
    from panloom.lab.whereabouts import Whereabouts

DEFAULT_DIRECTORY = Path("/run/panloom-lab")
_HEADER = ("NODE", "KIND", "POWER", "STATE", "SERVER", "STAGE")
_KINDS = {"qemu": "QEMU", "shared": "emulated", "lone": "emulated"}
_UNKNOWN = "?"
_ENVIRONMENT = "PANLOOM_LAB"

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=_ENVIRONMENT,
    default=DEFAULT_DIRECTORY,
    show_default=True,
    show_envvar=True,
    help="Where the lab is found; another one is another lab.",
)


@click.group("lab", short_help="Keep a whole chassis on this machine, in the background.")
def command() -> None:
    """Start a chassis of machines with its control node, look at it, and remove it without a trace.

    It lives in namespaces of its own. Other commands reach it by the socket that `up` names.
    """


@command.command("up")
@click.option("--nodes", type=int, default=3, show_default=True, metavar="N", help="How many machines, n1 to nN.")
@click.option("--qemu", type=int, default=0, show_default=True, metavar="N", help="The first N are QEMU's.")
@click.option(
    "--firmware",
    type=click.Choice(("bios", "uefi", "uefi-pxe", "uefi-http")),
    multiple=True,
    default=("bios",),
    show_default=True,
    help="Of QEMU's machines; given several times, one after the other.",
)
@_directory
def up(nodes: int, qemu: int, firmware: tuple["FirmwareKind", ...], directory: Path) -> int:
    """Start a lab and leave it running: machines that are off, a control node that knows them, the image `web`.

    Machines are emulated, and boot in a fraction of a second, but for the first --qemu ones: those run a real Linux.
    By bios and uefi iPXE in the network card boots them, by the others the firmware itself.
    """
    from panloom.lab.background import start
    from panloom.lab.chassis import Chassis

    whereabouts = _whereabouts(directory)
    status = start(whereabouts, Chassis.of(nodes=nodes, qemu=qemu, firmware=firmware))
    if status == 0:
        suggest("Point other commands at it", f"export PANLOOM_SOCKET={whereabouts.socket}")
        suggest("Then boot two servers", "panloom apply examples/web.yaml")
        if record := whereabouts.record():
            suggest("Look at a page", f"nsenter -t {record.pid} -n curl -s http://10.1.0.11/facts.txt")
        suggest("And pull a plug", "panloom node power kill n1")
        suggest("See its machines", whereabouts.command("status"))
        suggest("And end it", whereabouts.command("down"))
    return status


def _whereabouts(directory: Path) -> "Whereabouts":
    """Return the place of a lab; the commands that it names have the directory where they would not find it without."""
    from panloom.lab.whereabouts import Whereabouts

    found_anyhow = Path(os.environ.get(_ENVIRONMENT) or DEFAULT_DIRECTORY).absolute()
    place = directory.absolute()
    return Whereabouts(place, option="" if place == found_anyhow else f" --directory {shlex.quote(str(place))}")


@command.command("status")
@_directory
@output_option
def status(directory: Path, form: str) -> int:
    """List the machines of the lab. Exit code 1 when no lab is up, or its control process does not answer."""
    whereabouts = _whereabouts(directory)
    record = whereabouts.record()
    if record is None:
        say(f"no lab is up in {whereabouts.directory}; start one: {whereabouts.command('up')}")
        return 1
    client = Client(str(whereabouts.socket), timeout_seconds=10.0)
    trouble = ""
    rows = []
    for machine in record.chassis.machines:
        row: dict[str, Any] = {}
        if not trouble:
            try:
                row = client.get("resources", "node", machine.name)
            except PanloomError as error:
                trouble = str(error)
        rows.append({"node": machine.name, "kind": _KINDS[machine.kind], **_seen(row)})
    if form in ("json", "yaml"):
        emit_data({"pid": record.pid, "socket": str(whereabouts.socket), "nodes": rows}, form)
    else:
        emit_table(_HEADER, [[str(row[column.lower()] or "-") for column in _HEADER] for row in rows])
    if trouble:
        say(trouble)
        return 1
    suggest("Point other commands at it", f"export PANLOOM_SOCKET={whereabouts.socket}")
    return 0


def _seen(row: dict[str, Any]) -> dict[str, Any]:
    """Return what of a node's row is shown; the stage is that of a boot under way or done, not of one before it."""
    if not row:
        return dict.fromkeys(("power", "state", "server", "stage"), _UNKNOWN)
    stages = row.get("boot", {}).get("stages", [])
    stage = stages[-1][0] if stages and row["power"] != "off" else None
    return {"power": row["power"] or _UNKNOWN, "state": row["state"], "server": row["server"], "stage": stage}


@command.command("down")
@_directory
def down(directory: Path) -> int:
    """End the lab and remove everything of it: processes, namespaces, disks, files. Nothing to end is no error."""
    record = _whereabouts(directory).end()
    if record is None:
        emit("no lab is up; nothing of one is left")
    else:
        emit(f"the lab is gone: {counted(len(record.chassis.machines), 'node')}, their disks, its processes")
    return 0
