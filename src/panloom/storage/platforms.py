"""Platforms: where devices are found without anybody naming them, one context for each.

    volumes                  our own volumes                     of the storage process' directory
    DIRECTORY                its files, optical images included
    block                    the machine's block devices, partitions left out
    rbd:POOL[:conf=PATH]     the images of a Ceph pool
    iscsi://HOST/IQN         the units of another target

Scanning lists a platform's devices and looks at each: it is opened for reading, measured, and closed.  What fails is
listed as failed, with why, and holds up nothing else.
"""

import logging
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from panloom.disk_io import names_in, read_file, status_of
from panloom.errors import ConfigError, ConfigErrors, PanloomError, UnavailableError
from panloom.storage.calls import DeviceFacts
from panloom.storage.stores import rbd, remote
from panloom.storage.stores.names import open_store
from panloom.storage.stores.store import DeviceType, Store

VOLUMES, BLOCK = "volumes", "block"
_BLOCK_DEVICES = Path("/sys/block")

log = logging.getLogger(__name__)

Look = Callable[[str], DeviceFacts]


class Platform:
    """One platform: the context that the Local Transport builds for it; nobody else looks into it."""

    def __init__(self, name: str, names: Callable[[], Iterable[str]], look: Look) -> None:
        self.name = name
        self._names = names
        self._look = look
        self._scanning = threading.Lock()
        self.devices: tuple[DeviceFacts, ...] = ()
        self.failed: str | None = None  # why nothing could be listed at all

    def scan(self) -> None:
        """List the devices anew and look at each; nothing is raised."""
        with self._scanning:
            try:
                names = tuple(self._names())
            except (PanloomError, OSError) as error:
                self.failed, self.devices = str(error), ()
                log.warning("platform=%s failed=%r", self.name, str(error))
                return
            self.failed, self.devices = None, tuple(self._look(name) for name in names)
        failed = sum(device.failed is not None for device in self.devices)
        log.info("platform=%s devices=%d failed=%d", self.name, len(self.devices), failed)


def found_at(name: str, opened: Callable[[str], Store | None]) -> Platform:
    """Return the platform of a name; ``opened`` gives the store of a device that is in use here.

    ConfigError if no platform is called so.
    """

    def look(device: str) -> DeviceFacts:
        store = opened(device)
        return _facts(store) if store else _look(device)

    if name == BLOCK:
        return Platform(name, _block_devices, look)
    if name.startswith(rbd.SCHEME):
        return Platform(name, lambda: rbd.image_names(name), look)
    if name.startswith(remote.SCHEME):
        return Platform(name, lambda: remote.unit_names(name), look)
    if not Path(name).is_dir():
        raise ConfigError(name, "is no platform; write a directory, block, rbd:POOL or iscsi://HOST/IQN")
    return Platform(name, lambda: _files(Path(name)), look)


def scan_all(platforms: Iterable[Platform]) -> None:
    """Scan platforms side by side: one that does not answer delays itself alone."""
    threads = [threading.Thread(target=each.scan, name=f"scan-{each.name}", daemon=True) for each in platforms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _look(name: str) -> DeviceFacts:
    try:
        store = open_store(name, read_only=True)
    except (ConfigErrors, PanloomError, OSError) as error:
        why = error.why if isinstance(error, ConfigError) else str(error)
        log.warning("device=%s failed=%r", name, why)
        return DeviceFacts(name, failed=why)
    try:
        return _facts(store)
    finally:
        store.close()


def _facts(store: Store) -> DeviceFacts:
    kind: Literal["optical", "disk"] = "optical" if store.device_type is DeviceType.OPTICAL else "disk"
    return DeviceFacts(store.name, kind, store.octets, store.block_octets, store.lost or None)


def _files(directory: Path) -> Iterable[str]:
    """Return the files and block devices of a directory; hidden ones are somebody's own business."""
    for name in names_in(directory):
        path = directory / name
        try:
            kind = status_of(path).st_mode
        except OSError:  # a link that leads nowhere, or removed meanwhile
            continue
        if not name.startswith(".") and (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            yield str(path)


def _block_devices() -> Iterable[str]:
    """Return the block devices that have a medium."""
    try:
        names = names_in(_BLOCK_DEVICES)
    except OSError as error:
        raise UnavailableError(f"{_BLOCK_DEVICES} cannot be read: {error.strerror}") from error
    for name in names:
        try:
            sectors = int(read_file(_BLOCK_DEVICES / name / "size"))
        except (OSError, ValueError):  # detached meanwhile
            continue
        if sectors:
            yield f"/dev/{name.replace('!', '/')}"
