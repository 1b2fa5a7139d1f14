"""A target that stands alone: the parts of the storage process without its channel, its file and its control node.

    options ── Export ──▶ Connection Manager ──▶ Local Transport ──▶ files, volumes
                                ▲
    initiators ── portals ──▶ Remote Transport

There is one target, and whoever proves what ``--chap`` asks for may log in, several at a time.  SIGUSR1 has it tell
what each disk has done.
"""

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from panloom.errors import ConfigError, UnavailableError
from panloom.storage.calls import Event, Statistics
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import Access, Export, NoFile
from panloom.storage.local_transport import Volumes
from panloom.storage.overlay import Volume
from panloom.storage.portals import portal_text
from panloom.storage.remote_transport import RemoteTransport
from panloom.storage.stand_alone_options import Options
from panloom.storage.unit_table import UnitTable
from panloom.storage.volume_store import VolumeStore

LOOK_SECONDS = 0.1  # how soon a silent session is noticed
INTERRUPTED = 130  # as a shell shows SIGINT
_MENDS = {
    errno.EADDRINUSE: "choose another port, or end what listens there; ss -ltnp shows it",
    errno.EADDRNOTAVAIL: "name an address of this machine; ip -brief address shows them",
    errno.EACCES: "choose a port above 1023, or be root",
}


class NoStore:
    """In the place of a store of volumes where there is none."""

    def open(self, name: str) -> Volume:
        """There is no volume."""
        raise ConfigError(name, "which store is it in? Add --store DIR")

    def names(self) -> tuple[str, ...]:
        """There is no volume."""
        return ()

    def look(self, name: str) -> int:
        """There is no volume."""
        return self.open(name).octets

    def reopen(self, name: str) -> None:
        """There is no volume."""
        self.open(name)

    def close(self, name: str) -> None:
        """Nothing is open."""

    def grow(self, name: str, octets: int) -> int:  # noqa: ARG002
        """There is no volume."""
        return self.open(name).octets

    def delete(self, name: str) -> None:
        """There is no volume."""
        self.open(name)

    def shut_down(self) -> None:
        """Nothing is open."""


async def serve(
    options: Options,
    listening: Callable[[str], None],
    report: Callable[[Event], None],
    tell: Callable[[Statistics], None],
) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for what is under way.

    ``listening`` gets each portal as text once all can be reached, ``tell`` what the disks have done at each SIGUSR1.
    ConfigError and UnavailableError say what keeps it from being served.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    manager = _manager(options, report)
    transport = RemoteTransport(options.portals, manager, _units(options.store))
    try:
        _start(transport)
        for number in numbers:
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: tell(manager.statistics()))
        for address, port in transport.addresses:
            manager.listens(address, port)
            listening(portal_text(address, port))
        while not stop.is_set():
            manager.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        for number in numbers:
            loop.add_signal_handler(number, os._exit, INTERRUPTED)
        await asyncio.to_thread(transport.stop)
    finally:
        await asyncio.to_thread(manager.shut_down)


def _units(store: Path | None) -> UnitTable:
    """Return what the units remember: in the store's directory, or nothing beyond the process."""
    return UnitTable(None if store is None else store / "units")


def _manager(options: Options, report: Callable[[Event], None]) -> ConnectionManager:
    store = _store(options.store)
    manager = ConnectionManager(store, NoFile(), report)
    with ExitStack() as opened:
        opened.callback(manager.shut_down)
        proof = options.credentials
        access = Access(None, None, proof.user, proof.secret, proof.target_user, proof.target_secret)
        manager.export(Export(str(options.target), _epoch(store, options), options.luns, access, options.moved))
        opened.pop_all()
    return manager


def _store(directory: Path | None) -> Volumes:
    if directory is None:
        return NoStore()
    if not (directory / "volumes").is_dir():
        raise ConfigError(f"--store {directory}", "there are no volumes; name the directory of a storage process")
    return VolumeStore(directory)


def _epoch(store: Volumes, options: Options) -> int:
    """Return the epoch that the volumes are at: it is not ours to raise, for a control node may have set it."""
    epochs = {lun.volume: store.open(lun.volume).epoch for lun in options.luns if lun.volume and not lun.read_only}
    if len(set(epochs.values())) > 1:
        told = ", ".join(f"{name} at {epoch}" for name, epoch in sorted(epochs.items()))
        raise ConfigError("--lun", f"the volumes are at several epochs ({told}); serve them one by one, or add ,ro")
    return max((1, *epochs.values()))


def _start(transport: RemoteTransport) -> None:
    try:
        transport.start()
    except UnavailableError as error:
        number = (error.__cause__.errno or 0) if isinstance(error.__cause__, OSError) else 0
        raise ConfigError("--portal", f"{error}; {_MENDS.get(number, 'choose another one')}") from error
