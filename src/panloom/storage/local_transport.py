"""The Local Transport: local devices as Descriptors that the Remote Transport calls directly.

    Descriptor ── send handler, context ──▶ _VolumeContext ──▶ Volume, WriteGrant of this session
               ├─ send handler, context ──▶ _FileContext ────▶ RawFile, Writer of this session
               └─ send handler, context ──▶ _ContentContext ─▶ literal octets

The context is opaque to everybody else.  ``disconnect`` takes it back: on return no write through it is under way, and
none will ever be, whatever the connection's thread still tries.
"""

import errno
import hashlib
import logging
import math
import threading
import time
from pathlib import Path
from typing import Protocol

import msgspec

from panloom.storage.descriptor import Descriptor
from panloom.storage.exports import ExportedLun
from panloom.storage.frame import Frame, Operation, StaleEpochError, answer
from panloom.storage.overlay import Volume, WriteGrant
from panloom.storage.raw_file import RawFile, Writer
from panloom.storage.volume_store import BLOCK_OCTETS

TELL_AGAIN_SECONDS = 60.0  # a disk that goes on failing is a line a minute

log = logging.getLogger(__name__)


class _VolumeContext(msgspec.Struct, frozen=True):
    volume: Volume


class _WritableContext(_VolumeContext, frozen=True):
    grant: WriteGrant


class _ContentContext(msgspec.Struct, frozen=True):
    octets: memoryview


class _FileContext(msgspec.Struct, frozen=True):
    file: RawFile
    writer: Writer


class Store(Protocol):
    """Where volumes are: ``VolumeStore``, or nothing at all."""

    def open(self, name: str) -> Volume:
        """Return a volume; UnavailableError if there is none, ConfigError if it is damaged."""

    def close(self, name: str) -> None:
        """Flush a volume and let it go."""

    def grow(self, name: str, octets: int) -> int:
        """Make a volume larger; return its blocks."""

    def delete(self, name: str) -> None:
        """Remove a volume."""

    def shut_down(self) -> None:
        """Flush and close everything."""


class LocalTransport:
    """Makes Descriptors for what the store holds, and for devices."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opening = threading.Lock()
        self._files: dict[tuple[str, bool], RawFile] = {}

    def open_device(self, name: str, *, read_only: bool) -> RawFile:
        """Return a device, the same one to all; ConfigError says what is wrong with its name or with itself."""
        with self._opening:
            file = self._files.get((name, read_only))
            if file is None:
                file = self._files[name, read_only] = RawFile(Path(name), read_only=read_only)
            return file

    def shut_down(self) -> None:
        """Flush the devices and close them; what cannot be flushed is logged."""
        with self._opening:
            for file in self._files.values():
                try:
                    file.close()
                except OSError as error:
                    log.warning("device=%s flushed=no why=%r", file.path, error.strerror)
            self._files.clear()

    def connect(self, target: str, lun: ExportedLun, epoch: int) -> Descriptor:
        """Return the Descriptor of one LUN for one session.

        StaleEpochError if the volume's epoch is higher; UnavailableError or ConfigError if the volume cannot be opened.
        """
        if lun.content is not None:
            return _content_descriptor(target, lun.lun, lun.content)
        if lun.device is not None:
            return _file_descriptor(self.open_device(lun.device, read_only=lun.read_only), lun)
        volume = self._store.open(lun.volume or "")
        context = _VolumeContext(volume) if lun.read_only else _WritableContext(volume, volume.grant(epoch))
        return Descriptor(
            blocks=volume.octets // BLOCK_OCTETS,
            read_only=lun.read_only,
            identity=volume.identity,
            serial=volume.identity.hex(),
            product="VOLUME",
            removable=lun.removable,
            context=context,
            send_handler=_send_to_volume,
            thin=volume.thin,
        )

    def disconnect(self, descriptor: Descriptor) -> None:
        """End what the Descriptor allows; waits for a write that is under way."""
        match descriptor.context:
            case _WritableContext(volume=volume, grant=grant):
                volume.end(grant)
            case _FileContext(writer=writer):
                writer.end()


def _content_descriptor(target: str, lun: int, content: bytes) -> Descriptor:
    padded = content.ljust(-(-len(content) // BLOCK_OCTETS) * BLOCK_OCTETS, b"\0")
    digest = hashlib.sha256(f"{target} {lun}".encode()).digest()
    identity = bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]  # NAA 3, locally assigned
    return Descriptor(
        blocks=len(padded) // BLOCK_OCTETS,
        read_only=True,
        identity=identity,
        serial=identity.hex(),
        product="CONTENT",
        context=_ContentContext(memoryview(padded)),
        send_handler=_send_to_content,
    )


def _file_descriptor(file: RawFile, lun: ExportedLun) -> Descriptor:
    return Descriptor(
        blocks=file.octets // BLOCK_OCTETS,
        read_only=lun.read_only,
        identity=file.identity,
        serial=file.identity.hex(),
        product="FILE",
        context=_FileContext(file, Writer(read_only=lun.read_only)),
        send_handler=_send_to_file,
        thin=not lun.thick,
        removable=lun.removable,
    )


def _send_to_file(context: _FileContext, frame: Frame) -> None:
    file, writer = context.file, context.writer
    try:
        if frame.operation is Operation.READ:
            file.read(frame.offset, frame.data)
        elif frame.operation is Operation.WRITE:
            file.write(writer, frame.offset, frame.data)
        elif frame.operation is Operation.FLUSH:
            file.flush()
        elif frame.operation is Operation.UNMAP:
            file.unmap(writer, frame.offset, frame.octets)
        else:
            raise OSError(errno.EOPNOTSUPP, f"{frame.operation.name} is not to be had here")
    except (OSError, StaleEpochError) as error:
        frame.error = error
    answer(frame)


def _send_to_volume(context: _VolumeContext, frame: Frame) -> None:
    try:
        if frame.operation is Operation.READ:
            context.volume.read(frame.offset, frame.data)
        elif frame.operation is Operation.FLUSH:
            context.volume.flush()
        else:
            _change(context, frame)
    except OSError as error:
        frame.error = error
        _tell(context.volume, frame.operation.name.lower(), error)
    except StaleEpochError as error:
        frame.error = error
    answer(frame)


def _change(context: _VolumeContext, frame: Frame) -> None:
    if not isinstance(context, _WritableContext):
        raise OSError(errno.EROFS, "this unit is read-only")
    if frame.operation is Operation.WRITE:
        context.volume.write(context.grant, frame.offset, frame.data)
    elif frame.operation is Operation.UNMAP:
        context.volume.unmap(context.grant, frame.offset, frame.octets)
    else:
        raise OSError(errno.EOPNOTSUPP, f"{frame.operation.name} is not to be had here")


def _tell(volume: Volume, what: str, error: OSError) -> None:
    """Log what the initiator is told as sense data; of a volume that is lost it has been said."""
    now, trouble = time.monotonic(), (what, error.errno)
    if volume.lost or now - volume.told.get(trouble, -math.inf) < TELL_AGAIN_SECONDS:
        return
    volume.told[trouble] = now
    log.warning("volume=%s %s=failed why=%r", volume.name, what, error.strerror)


def _send_to_content(context: _ContentContext, frame: Frame) -> None:
    if frame.operation is Operation.READ:
        end = frame.offset + len(frame.data)
        if end <= len(context.octets):
            frame.data[:] = context.octets[frame.offset : end]
        else:
            frame.error = OSError(errno.EINVAL, "beyond the end of the content")
    elif frame.operation is not Operation.FLUSH:  # nothing is ever written
        frame.error = OSError(errno.EROFS, "this unit is read-only")
    answer(frame)
