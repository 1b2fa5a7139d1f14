"""The storage process: ``python -m panloom.storage --directory DIR --socket PATH --portal ADDRESS:PORT …``.

    control process ── Unix socket ──▶ channel ──▶ Connection Manager ──▶ exports.json
                                                        ▲       │
    initiators ────────── portals ────▶ Remote Transport┘       └──▶ Local Transport ──▶ volumes

It serves what its own file says from the first moment, whether or not a control process is there.  SIGTERM and SIGINT
end it cleanly; SIGKILL loses nothing that was flushed.  Exit status: 0 ended by a signal, 1 it could not start, 2 wrong
arguments.
"""

import argparse
import asyncio
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from panloom.errors import PanloomError, UnavailableError
from panloom.notify import sd_notify
from panloom.storage.channel import Channel, Events
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import ExportsFile
from panloom.storage.flattening import Flattening
from panloom.storage.portals import parse_portal as portal
from panloom.storage.remote_transport import RemoteTransport
from panloom.storage.unit_table import UnitTable
from panloom.storage.volume_store import VolumeStore

LOOK_SECONDS = 0.1  # how soon a silent session is noticed
BIND_SECONDS = 0.2  # how soon a portal is tried again whose address is not there yet

log = logging.getLogger("panloom.storage")


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m panloom.storage", description="Serve volumes over iSCSI.")
    parser.add_argument("--directory", type=Path, required=True, help="where images, volumes and exports are kept")
    parser.add_argument("--socket", type=Path, required=True, help="the control channel")
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="PLACE",
        help="where devices are found: a directory of files, block, rbd:POOL, iscsi://HOST/IQN",
    )
    parser.add_argument("--portal", type=portal, action="append", required=True, metavar="ADDRESS:PORT")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_serve(chosen.directory, chosen.socket, chosen.portal, chosen.platform))
    except PanloomError as error:
        print(f"panloom.storage: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(directory: Path, socket_path: Path, portals: list[tuple[str, int]], platforms: list[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    events = Events()
    store = VolumeStore(directory)
    manager = ConnectionManager(store, ExportsFile(directory / "exports.json"), events.report)
    manager.platforms.add(platforms)
    units = UnitTable(directory / "units")
    flattening = Flattening(store)
    channel = Channel(store, manager, flattening, events)
    await channel.start(socket_path)
    log.info("started=yes directory=%s socket=%s", directory, socket_path)
    sd_notify("READY=1")
    flattening.resume()
    scanned = asyncio.create_task(asyncio.to_thread(manager.platforms.facts, scan=True))  # it may wait for far ones
    served = [asyncio.create_task(_serve_portal(portal, manager, units, stop)) for portal in portals]
    while not stop.is_set():
        manager.look()
        await _pause(stop, LOOK_SECONDS)
    sd_notify("STOPPING=1")
    await channel.stop()
    scanned.cancel()
    await asyncio.to_thread(flattening.stop)
    await asyncio.gather(*served)
    manager.shut_down()
    await asyncio.to_thread(socket_path.unlink, missing_ok=True)
    log.info("started=no")


async def _serve_portal(
    address: tuple[str, int], manager: ConnectionManager, units: UnitTable, stop: asyncio.Event
) -> None:
    """Serve one portal until the process stops; its address may come later than we do."""
    said = ""
    while not stop.is_set():
        transport = RemoteTransport([address], manager, units)
        try:
            transport.start()
        except UnavailableError as error:
            if str(error) != said:
                log.warning("portal=%s:%d listening=no why=%r", *address, str(error))
                said = str(error)
            await _pause(stop, BIND_SECONDS)
            continue
        manager.listens(*transport.addresses[0])
        log.info("portal=%s:%d listening=yes", *transport.addresses[0])
        await stop.wait()
        await asyncio.to_thread(transport.stop)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


if __name__ == "__main__":
    sys.exit(main())
