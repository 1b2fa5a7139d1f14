"""The control process: every part is made and joined here, and nowhere else.

panloom control --directory /var/lib/panloom --socket /run/panloom/panloom.sock --storage /run/panloom/storage.sock

Store ◀── Documents ◀── ControlNode ◀── API ◀── Door (Unix socket)
  ▲                         │
  └── Reconciler ◀──────────┤ wakes
         │ acts             │ reads
         ▼                  ▼
StorageClient, Ports, Edge, PowerDriver  ──observed by──▶  Observer ──▶ Boots, EventLog
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panloom.control import api
from panloom.control.boot_story import BootStory
from panloom.control.boots import Boots
from panloom.control.consoles import Consoles
from panloom.control.documents import Documents
from panloom.control.door import DEFAULT_PATH, Door
from panloom.control.edge import Edge
from panloom.control.events import EventLog
from panloom.control.image_sources import ImageSources
from panloom.control.node import ControlNode
from panloom.control.observer import Observer
from panloom.control.permit import permit
from panloom.control.reconcile import Reconciler
from panloom.control.site_check import SiteCheck
from panloom.durable_names import make_directory
from panloom.errors import PanloomError, UnavailableError
from panloom.notify import sd_notify
from panloom.state.sqlite import SqliteStore
from panloom.storage.client import StorageClient

_log = logging.getLogger("panloom.control")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(prog="panloom control", description="Run the control process.")
    parser.add_argument("--directory", type=Path, default=Path("/var/lib/panloom"), help="where the state is kept")
    parser.add_argument("--socket", type=Path, default=DEFAULT_PATH, help="where the API listens")
    parser.add_argument("--group", help="group whose members may use the API")
    parser.add_argument(
        "--storage", type=Path, default=Path("/run/panloom/storage.sock"), help="the storage process's control channel"
    )
    parser.add_argument("--files", type=Path, help="directory that TFTP and HTTP hand out to machines that boot")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s %(message)s")
    try:
        asyncio.run(serve(options))
    except PanloomError as error:
        print(f"panloom control: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(options: argparse.Namespace) -> None:
    """Join the parts and run them until the process is told to end."""
    try:
        make_directory(options.directory)
    except OSError as error:
        raise UnavailableError(f"{options.directory} cannot be used: {error.strerror}") from error
    store = await SqliteStore.open(options.directory / "state.sqlite")
    try:
        events = EventLog(store)
        await events.load()
        storage = StorageClient(options.storage)
        boots = Boots(store)
        await boots.load()
        observer = Observer(storage, boots, events)
        edge = Edge(store, events, files=options.files, boot_event=observer.boot_event, beacon=observer.beacon)
        reconciler = Reconciler(
            store, storage, edge, observer, events, ImageSources(options.directory / "incoming", storage)
        )
        observer.changed = reconciler.wake
        observer.logged_in = edge.login_seen
        edge.answer = reconciler.lans.news
        documents = Documents(
            store,
            preview=reconciler.preview,
            preflight=reconciler.preflight,
            permit=partial(permit, store),
            imported=observer.imported,
        )
        consoles = Consoles(store, options.directory / "console", observer.heard)
        story = BootStory(observer, events, consoles, edge)
        site = SiteCheck(store, observer, edge, reconciler.preflight)
        control = ControlNode(store, storage, documents, observer, reconciler, events, consoles, story, site)
        door = Door(api.create(control), options.socket, group=options.group)
        await door.open()
        try:
            await _run(events.write(), edge.run(), observer.run(), reconciler.run(), consoles.run())
        finally:
            await door.close()
            await events.close()
            await storage.close()
    finally:
        await store.close()


async def _run(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts until SIGTERM or SIGINT; a part that fails ends them all, and the process with an error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(part) for part in parts]
    stopping = asyncio.create_task(stop.wait())
    sd_notify("READY=1")
    _log.info("control=ready")
    try:
        await asyncio.wait((stopping, *tasks), return_when=asyncio.FIRST_COMPLETED)
        sd_notify("STOPPING=1")
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
