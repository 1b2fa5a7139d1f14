"""The logical units that are shared by sessions, by the identity of their device; and what they remember.

    a session's Descriptors ──▶ UnitTable.join ──▶ LogicalUnits over units that other sessions have, too
    LogicalUnit.remember ──▶ DIRECTORY/IDENTITY.unit: digest, JSON; replaced as a whole, durable before GOOD

What is remembered goes with the device, not with the target: it holds again when the device is exported by another
target, or by another process over the same directory.  A unit whose file is damaged is not served: nobody could say who
may write to it.
"""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path

from panloom.disk_io import read_file, write_fully
from panloom.durable_names import Directory, PartialFile
from panloom.errors import ConfigError, UnavailableError
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_reservations import NexusName
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.storage.descriptor import Descriptor
from panloom.storage.erasing import Eraser
from panloom.storage.medium import write_durably

_DIGEST_OCTETS = 32


class UnitTable:
    """``directory`` None: nothing outlives the process, and no initiator is promised that it would."""

    def __init__(self, directory: Path | None = None) -> None:
        """Open the directory, or make it; UnavailableError."""
        self._path = directory
        self._directory: Directory | None = None
        if directory is not None:
            try:
                self._directory = Directory(directory)
            except OSError as error:
                raise UnavailableError(f"{directory} cannot be used: {error.strerror}") from error
        self._lock = threading.RLock()  # of all units, and of the two maps
        self._units: dict[bytes, LogicalUnit] = {}
        self._erasers: dict[bytes, Eraser] = {}

    def join(self, descriptors: Mapping[int, Descriptor], name: NexusName) -> LogicalUnits:
        """Return the units of a new session, which are those of all.

        ConfigError when one's file is damaged; UnavailableError when what a crash interrupted cannot be ended.
        """
        shared = {lun: self.share(descriptor, name.target) for lun, descriptor in descriptors.items()}
        units = {lun: unit for lun, (_, unit) in shared.items()}
        return LogicalUnits({lun: disk for lun, (disk, _) in shared.items()}, units=units, name=name)

    def share(self, descriptor: Descriptor, target: str) -> tuple[Disk, LogicalUnit]:
        """Return what a session is to know of one unit, and the unit that it shares; errors as ``join``."""
        with self._lock:
            unit = self._of(descriptor.identity)
            eraser = self._erasers[descriptor.identity]
        _end_intent(unit, descriptor)
        eraser.resume(descriptor)
        return self._disk(descriptor, target), unit

    def stop(self) -> None:
        """Stop what is being erased."""
        with self._lock:
            erasers = tuple(self._erasers.values())
        for eraser in erasers:
            eraser.stop()

    def _of(self, identity: bytes) -> LogicalUnit:
        unit = self._units.get(identity)
        if unit is None:
            name = identity.hex()

            def keep(octets: bytes) -> None:
                self._keep(name, octets)

            unit = LogicalUnit(
                lock=self._lock,
                keeping=threading.Lock(),
                keep=None if self._directory is None else keep,
                remembered=self._remembered(name),
            )
            self._units[identity] = unit
            self._erasers[identity] = eraser = Eraser(name, unit)
            unit.erase = eraser.begin
        return unit

    def _keep(self, name: str, octets: bytes) -> None:
        """Replace a unit's file, durable on return; OSError."""
        if self._directory is None:
            return
        content = hashlib.sha256(octets).digest() + octets
        with PartialFile(self._directory, f"{name}.unit", 0o600) as file:
            write_fully(file.fd, [content], 0)
            file.appear(f"{name}.unit")

    def _remembered(self, name: str) -> bytes | None:
        """Return what a unit remembers; None when that is nothing."""
        if self._path is None:
            return None
        path = self._path / f"{name}.unit"
        try:
            content = read_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
        digest, octets = content[:_DIGEST_OCTETS], content[_DIGEST_OCTETS:]
        if digest != hashlib.sha256(octets).digest():
            why = "is damaged: who has reserved the disk is not known; restore it, or remove it to forget reservations"
            raise ConfigError(str(path), why)
        return octets

    def _disk(self, descriptor: Descriptor, target: str) -> Disk:
        return Disk(
            blocks=descriptor.blocks,
            read_only=descriptor.read_only,
            identity=descriptor.identity,
            serial=descriptor.serial,
            product=descriptor.product,
            block_octets=descriptor.block_octets,
            thin=descriptor.thin,
            removable=descriptor.removable,
            physical_octets=descriptor.physical_octets,
            device_type=descriptor.device_type,
            target=target,
            atomic=self._directory is not None,
        )


def _end_intent(unit: LogicalUnit, descriptor: Descriptor) -> None:
    """Do again what a crash may have interrupted: of a WRITE ATOMIC all is written, or nothing was begun."""
    with unit.keeping:
        if unit.intent is None or descriptor.read_only:
            return
        offset, data = unit.intent
        failed = write_durably(descriptor, offset, data)
        if failed is not None:
            raise UnavailableError(f"a write that a crash interrupted cannot be ended: sense {failed}")
        try:
            unit.forget_intent()
        except OSError as error:
            raise UnavailableError(f"a write that a crash interrupted is not forgotten: {error.strerror}") from error
