"""The Local Transport: local devices as Descriptors that the Remote Transport calls directly.

    Descriptor ── context ──▶ _VolumeContext ──▶ Volume, WriteGrant of this session
               └─ context ──▶ _ContentContext ─▶ literal octets

The context is opaque to everybody else.  ``disconnect`` takes it back: on return no write through it is under way, and
none will ever be, whatever the connection's thread still tries.
"""

import errno
import hashlib
import logging
import math
import time

import msgspec

from panloom.storage.descriptor import Descriptor
from panloom.storage.exports import ExportedLun
from panloom.storage.overlay import Volume, WriteGrant
from panloom.storage.volume_store import BLOCK_OCTETS, VolumeStore

TELL_AGAIN_SECONDS = 60.0  # a disk that goes on failing is a line a minute

log = logging.getLogger(__name__)


class _VolumeContext(msgspec.Struct, frozen=True):
    volume: Volume


class _WritableContext(_VolumeContext, frozen=True):
    grant: WriteGrant


class _ContentContext(msgspec.Struct, frozen=True):
    octets: memoryview


class LocalTransport:
    """Makes Descriptors for what the store holds."""

    def __init__(self, store: VolumeStore) -> None:
        self._store = store

    def connect(self, target: str, lun: ExportedLun, epoch: int) -> Descriptor:
        """Return the Descriptor of one LUN for one session.

        StaleEpochError if the volume's epoch is higher; UnavailableError or ConfigError if the volume cannot be opened.
        """
        if lun.content is not None:
            return _content_descriptor(target, lun.lun, lun.content)
        volume = self._store.open(lun.volume or "")
        context = _VolumeContext(volume) if lun.read_only else _WritableContext(volume, volume.grant(epoch))
        return Descriptor(
            blocks=volume.octets // BLOCK_OCTETS,
            read_only=lun.read_only,
            identity=volume.identity,
            serial=volume.identity.hex(),
            product="VOLUME",
            context=context,
            read=_read_volume,
            write=_refuse_write if lun.read_only else _write_volume,
            flush=_flush_volume,
            unmap=_refuse_unmap if lun.read_only else _unmap_volume,
            thin=volume.thin,
        )

    def disconnect(self, descriptor: Descriptor) -> None:
        """End what the Descriptor allows; waits for a write that is under way."""
        match descriptor.context:
            case _WritableContext(volume=volume, grant=grant):
                volume.end(grant)


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
        read=_read_content,
        write=_refuse_write,
        flush=_flush_content,
        unmap=_refuse_unmap,
    )


def _read_volume(context: _VolumeContext, offset: int, into: memoryview) -> None:
    try:
        context.volume.read(offset, into)
    except OSError as error:
        _tell(context.volume, "read", error)
        raise


def _write_volume(context: _WritableContext, offset: int, data: memoryview) -> None:
    try:
        context.volume.write(context.grant, offset, data)
    except OSError as error:
        _tell(context.volume, "write", error)
        raise


def _flush_volume(context: _VolumeContext) -> None:
    try:
        context.volume.flush()
    except OSError as error:
        _tell(context.volume, "flush", error)
        raise


def _unmap_volume(context: _WritableContext, offset: int, length: int) -> None:
    try:
        context.volume.unmap(context.grant, offset, length)
    except OSError as error:
        _tell(context.volume, "unmap", error)
        raise


def _tell(volume: Volume, what: str, error: OSError) -> None:
    """Log what the initiator is told as sense data; of a volume that is lost it has been said."""
    now, trouble = time.monotonic(), (what, error.errno)
    if volume.lost or now - volume.told.get(trouble, -math.inf) < TELL_AGAIN_SECONDS:
        return
    volume.told[trouble] = now
    log.warning("volume=%s %s=failed why=%r", volume.name, what, error.strerror)


def _read_content(context: _ContentContext, offset: int, into: memoryview) -> None:
    if offset + len(into) > len(context.octets):
        raise OSError(errno.EINVAL, "beyond the end of the content")
    into[:] = context.octets[offset : offset + len(into)]


def _flush_content(_context: _ContentContext) -> None:
    """Nothing is ever written."""


def _refuse_write(_context: object, _offset: int, _data: memoryview) -> None:
    raise OSError(errno.EROFS, "this unit is read-only")


def _refuse_unmap(_context: object, _offset: int, _length: int) -> None:
    raise OSError(errno.EROFS, "this unit is read-only")
