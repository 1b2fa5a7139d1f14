"""``panloom target``: serve files as disks over iSCSI, without a control node."""

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from panloom.command.disk_statistics import statistics_lines
from panloom.command.output import emit, emit_table

if TYPE_CHECKING:
    from panloom.storage.calls import Statistics
    from panloom.storage.exports import ExportedLun

DEFAULT_IQN = "iqn.2026-11.dev.panloom:target"


_EXAMPLE = """\b
Example:
  truncate -s 1G disk.img
  panloom target --lun 1=disk.img
  iscsi-ls -s iscsi://127.0.0.1:3260
"""


@click.command("target", short_help="Serve files as disks over iSCSI, without a control node.", epilog=_EXAMPLE)
@click.option(
    "--portal",
    "portals",
    multiple=True,
    default=("127.0.0.1:3260",),
    show_default=True,
    metavar="ADDRESS[:PORT]",
    help="Where to listen; several for several paths. Port 0 takes any that is free.",
)
@click.option(
    "--lun",
    "luns",
    multiple=True,
    metavar="N=PATH[,ro][,removable][,thick][,4k]",
    help="A disk: its number, and what is behind it: a file, a block device, mem:64M, rbd:POOL/IMAGE, "
    "iscsi://HOST/IQN/LUN, or volume:NAME of --store.",
)
@click.option("--iqn", default=DEFAULT_IQN, show_default=True, metavar="IQN", help="The target's name.")
@click.option("--chap", metavar="USER:FILE", help="Let in only who proves the secret in FILE, 12 octets or more.")
@click.option("--store", type=click.Path(path_type=Path), metavar="DIR", help="Where volumes are.")
@click.option(
    "--moved",
    metavar="ADDRESS[:PORT][,permanent]",
    help="In the place of disks: send whoever logs in to another target, for now or for good.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say who comes and goes.")
def command(
    portals: tuple[str, ...],
    luns: tuple[str, ...],
    iqn: str,
    chap: str | None,
    store: Path | None,
    moved: str | None,
    verbose: bool,
) -> int:
    """Serve files as disks over iSCSI until Ctrl-C, to whoever reaches the portal, or with --chap proves a secret.

    At SIGUSR1 it tells what each disk has done.
    """
    from panloom.storage.stand_alone import serve
    from panloom.storage.stand_alone_options import read_options

    options = read_options(iqn=iqn, portals=portals, luns=luns, chap=chap, store=store, moved=moved)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(message)s")

    def listening(portal: str) -> None:
        emit(f"listening {portal} {options.target}")
        sys.stdout.flush()

    asyncio.run(serve(options, listening, lambda _: None, lambda told: _tell(options.luns, told)))
    return 0


def _tell(luns: "tuple[ExportedLun, ...]", told: "Statistics") -> None:
    from panloom.control.disk_statistics import statistics_row
    from panloom.storage.statistics import Totals

    totals = {device.name: device.totals for device in told.devices}
    for lun in luns:
        name = lun.device if lun.device is not None else f"volume:{lun.volume}"
        row = statistics_row(totals.get(name, Totals()), told.since)
        emit(f"LUN {lun.lun} {name}")
        emit_table((), statistics_lines(row, now=time.time()), indent="  ")
    sys.stdout.flush()
