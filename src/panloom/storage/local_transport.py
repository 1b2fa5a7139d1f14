"""The Local Transport: local devices as Descriptors that the Remote Transport calls directly.

    start        scan every platform: its devices are found and looked at, a broken one is noted, the others go on
    login        connect ──▶ Descriptor: geometry, names, send handler, and a context that is opaque to all others
    a frame      send handler ──▶ the device, at once on the caller's thread ──▶ answer
                      └─ or on one of the device's own: a slow medium, or a limit that holds the frame back
    session over disconnect: on return no write through its Descriptor is under way, and none will ever be

Which thread does a frame, ``sending`` decides.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from panloom.errors import ConfigError, PanloomError
from panloom.storage.access import ContentAccess, StoreAccess, VolumeAccess
from panloom.storage.calls import DeviceFacts, DeviceStatistics
from panloom.storage.descriptor import Descriptor
from panloom.storage.device import Device
from panloom.storage.elsewhere import Delays
from panloom.storage.exports import ExportedLun
from panloom.storage.limits import NO_LIMITS, Limits
from panloom.storage.overlay import Volume
from panloom.storage.platforms import VOLUMES, Platform, found_at, scan_all
from panloom.storage.sending import send
from panloom.storage.stores.names import open_store
from panloom.storage.stores.store import DeviceType, Store, identity_of
from panloom.storage.turnstile import Turnstile
from panloom.storage.volume_store import BLOCK_OCTETS

PHYSICAL_OCTETS = 4096

log = logging.getLogger(__name__)


class Volumes(Protocol):
    """Where volumes are: ``VolumeStore``, or nothing at all."""

    def open(self, name: str) -> Volume:
        """Return a volume; UnavailableError if there is none, ConfigError if it is damaged."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all volumes, those that cannot be read included."""

    def look(self, name: str) -> int:
        """Return a volume's octets; errors as ``open``."""

    def reopen(self, name: str) -> None:
        """Open a volume anew that is offline."""

    def close(self, name: str) -> None:
        """Flush a volume and let it go."""

    def grow(self, name: str, octets: int) -> int:
        """Make a volume larger; return its blocks."""

    def delete(self, name: str) -> None:
        """Remove a volume."""

    def shut_down(self) -> None:
        """Flush and close everything."""


class LocalTransport:
    """Makes Descriptors for what the store holds, and for devices.

    ``report_lost`` gets a line when a device is taken offline, in the thread where that happens.
    """

    def __init__(self, store: Volumes, report_lost: Callable[[str], None] = lambda _: None) -> None:
        self._store = store
        self._report_lost = report_lost
        self._devices_lock = threading.Lock()  # of the next; never held over the disk
        self._devices: dict[str, Device] = {}  # by name; volumes as volume:NAME
        self._lock = threading.Lock()  # of the next; held while a store is opened
        self._opened: dict[str, tuple[Store, Turnstile]] = {}
        self._replaced: dict[str, tuple[Store, Turnstile]] = {}  # those that were opened for reading only before
        self._delays = Delays()
        self._platforms = [Platform(VOLUMES, store.names, self._look_at_volume)]

    # -- platforms -----------------------------------------------------------------------------------------------

    def add_platform(self, name: str) -> None:
        """Have devices found at a platform, with the next scan; ConfigError if none is called so."""
        self._platforms.append(found_at(name, self._store_in_use))

    def scan(self) -> None:
        """Find the devices of all platforms, each by itself; what fails is noted and holds up nothing."""
        scan_all(self._platforms)

    def platforms(self) -> tuple[tuple[str, Any], ...]:
        """Return the name and the context of each platform."""
        return tuple((platform.name, platform) for platform in self._platforms)

    def _store_in_use(self, name: str) -> Store | None:
        opened = self._opened.get(name)
        return opened[0] if opened else None

    # -- devices -------------------------------------------------------------------------------------------------

    def open_device(self, name: str, *, read_only: bool, thick: bool = False) -> Store:
        """Return a device's store, the same one to all.

        ConfigError says what is wrong with its name or with itself, UnavailableError what is not there.
        """
        with self._lock:
            return self._open(name, read_only=read_only, thick=thick)[0]

    def open_devices(self, luns: Iterable[ExportedLun]) -> None:
        """Open the devices behind LUNs; errors as ``open_device``."""
        for lun in luns:
            if lun.device is not None:
                self.open_device(lun.device, read_only=lun.read_only, thick=lun.thick)

    def let_go(self, name: str) -> tuple[Store, ...]:
        """Forget a device, if it is open, and return what is to be closed; the caller knows that nobody uses it."""
        with self._lock:
            opened = self._opened.pop(name, None)
            replaced = self._replaced.pop(name, None)
        return tuple(each[0] for each in (replaced, opened) if each)

    def shut_down(self) -> None:
        """Flush the devices and close them; what cannot be flushed is logged."""
        for name in (*self._opened, *self._replaced):
            close_stores(self.let_go(name))

    def limit(self, lun: ExportedLun, limits: Limits) -> None:
        """Hold what is behind a LUN to these limits from now on, whoever uses it."""
        if lun.content is None and (limits != NO_LIMITS or _key(lun) in self._devices):
            self._device(lun).limit(limits)

    def apply_limits(self, luns: Iterable[ExportedLun]) -> None:
        """Hold what is behind LUNs to their own limits."""
        for lun in luns:
            self.limit(lun, lun.limits)

    def statistics(self) -> tuple[DeviceStatistics, ...]:
        """Return what each volume and device has done since the process began to serve it, sorted by name."""
        with self._devices_lock:
            devices = sorted(self._devices.items())
        return tuple(DeviceStatistics(name, device.limits, device.statistics.totals()) for name, device in devices)

    def forget_volume(self, name: str) -> None:
        """Forget what a volume has done that is no more: the next of its name begins at nothing."""
        with self._devices_lock:
            self._devices.pop(f"volume:{name}", None)

    def _look_at_volume(self, name: str) -> DeviceFacts:
        try:
            volume = self._store.look(name)
        except (PanloomError, OSError) as error:
            return DeviceFacts(f"volume:{name}", failed=error.why if isinstance(error, ConfigError) else str(error))
        return DeviceFacts(f"volume:{name}", "disk", volume, BLOCK_OCTETS)

    def _open(self, name: str, *, read_only: bool, thick: bool) -> tuple[Store, Turnstile]:
        opened = self._opened.get(name)
        if opened and opened[0].read_only and not read_only and not opened[0].lost:
            again = open_store(name, read_only=False, thick=thick)  # refused where the other opening is in the way
            if again.read_only:
                close_stores((again,))
                return opened
            self._replaced[name] = opened  # until nobody has the device
            self._opened[name] = again, Turnstile()
        elif opened is None:
            self._opened[name] = open_store(name, read_only=read_only, thick=thick), Turnstile()
        return self._opened[name]

    def _device(self, lun: ExportedLun) -> Device:
        key = _key(lun)
        with self._devices_lock:
            device = self._devices.get(key)
            if device is None:
                if lun.volume is None:
                    device = Device("device", key, self._report_lost)
                else:
                    device = Device("volume", lun.volume, self._report_lost)
                self._devices[key] = device
            return device

    # -- sessions ------------------------------------------------------------------------------------------------

    def connect(self, target: str, lun: ExportedLun, epoch: int) -> Descriptor:
        """Return the Descriptor of one LUN for one session.

        StaleEpochError if the volume's epoch is higher; UnavailableError or ConfigError if it cannot be opened.
        """
        if lun.content is not None:
            return self._connect_content(target, lun.lun, lun.octets())
        if lun.device is not None:
            return self._connect_store(lun, lun.device)
        volume = self._store.open(lun.volume or "")
        grant = None if lun.read_only else volume.grant(epoch)
        device = self._device(lun)
        if not volume.lost:
            device.opened()
        return Descriptor(
            blocks=volume.octets // BLOCK_OCTETS,
            read_only=lun.read_only,
            identity=volume.identity,
            serial=volume.identity.hex(),
            product="VOLUME",
            removable=lun.removable,
            physical_octets=PHYSICAL_OCTETS if lun.physical_4k else BLOCK_OCTETS,
            context=VolumeAccess(device, self._delays, volume, grant),
            send_handler=send,
            thin=volume.thin,
        )

    def disconnect(self, descriptor: Descriptor) -> None:
        """End what the Descriptor allows; waits for a write that is under way."""
        descriptor.context.end()

    def _connect_store(self, lun: ExportedLun, name: str) -> Descriptor:
        with self._lock:
            store, turnstile = self._open(name, read_only=lun.read_only, thick=lun.thick)
        device = self._device(lun)
        if not store.lost:
            device.opened()
        access = StoreAccess(device, self._delays, store, turnstile, read_only=lun.read_only)
        return Descriptor(
            blocks=store.octets // store.block_octets,
            read_only=access.read_only,
            identity=store.identity,
            serial=store.identity.hex(),
            product=store.product,
            removable=lun.removable or store.device_type is DeviceType.OPTICAL,
            physical_octets=PHYSICAL_OCTETS if lun.physical_4k else BLOCK_OCTETS,
            context=access,
            send_handler=send,
            block_octets=store.block_octets,
            thin=store.thin,
            device_type=int(store.device_type),
        )

    def _connect_content(self, target: str, lun: int, content: bytes) -> Descriptor:
        padded = content.ljust(-(-len(content) // BLOCK_OCTETS) * BLOCK_OCTETS, b"\0")
        identity = identity_of(f"{target} {lun}")
        device = Device("device", f"content of {target}", self._report_lost)
        return Descriptor(
            blocks=len(padded) // BLOCK_OCTETS,
            read_only=True,
            identity=identity,
            serial=identity.hex(),
            product="CONTENT",
            context=ContentAccess(device, self._delays, padded),
            send_handler=send,
        )


def found(platform: Platform) -> tuple[Sequence[DeviceFacts], str | None]:
    """Return the devices of a platform's context as of the last scan, and why nothing could be listed, if so."""
    return platform.devices, platform.failed


def _key(lun: ExportedLun) -> str:
    return lun.device if lun.device is not None else f"volume:{lun.volume}"


def close_stores(stores: Iterable[Store]) -> None:
    """Flush devices and close them; what cannot be flushed is logged."""
    for store in stores:
        try:
            store.close()
        except OSError as error:
            log.warning("device=%s flushed=no why=%r", store.name, error.strerror)
