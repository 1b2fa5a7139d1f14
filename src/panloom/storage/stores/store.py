"""What the Local Transport asks of a store.

    open      ``names.open_store``; an error says what is wrong with the name, or with what it names
    read      fill a view            write    take a view; kept until ``flush`` makes it durable
    unmap     reads as zeros         resize   only to grow          close    flush, and let go

Offsets and lengths are octets, whole blocks, inside the store.  Any number of threads may call at once.  Every error is
an OSError; its errno becomes sense data (``storage.medium``).
"""

import errno
import hashlib
from enum import IntEnum
from typing import Protocol


class DeviceType(IntEnum):
    """What a device is to its initiators (SPC-4 r37 table 142)."""

    DISK = 0x00
    OPTICAL = 0x05


class Store(Protocol):
    """An open store."""

    name: str  # as it was asked for
    identity: bytes  # see ``identity_of``
    octets: int
    block_octets: int
    read_only: bool
    thin: bool  # whether ``unmap`` gives space back
    device_type: DeviceType
    product: str  # ASCII, at most 16 characters
    may_block: bool
    """Whether a call may take as long as a network or a peer: then no thread that serves others may make it."""

    @property
    def lost(self) -> str:
        """Why nothing is answered any more, "" while all is well; it stays so until the store is opened anew."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the whole view."""

    def read_now(self, offset: int, into: memoryview) -> bool:
        """Fill the whole view if that needs no waiting for a medium; return whether it did."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of the view; it may stay in a cache until ``flush``."""

    def flush(self) -> None:
        """Return when every write that returned before is on stable storage."""

    def unmap(self, offset: int, octets: int) -> None:
        """Make exactly this range read as zeros, and give its space back where the store can."""

    def resize(self, octets: int) -> None:
        """Make it larger, or take note that somebody has."""

    def close(self) -> None:
        """Flush, and let go; OSError if what was written may be lost."""


def identity_of(name: str) -> bytes:
    """Return an NAA 3 designator that is the same for a name for ever (SPC-4 r37 7.8.6.6.4)."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]


def check_room(store: Store, offset: int, octets: int) -> None:
    """Raise OSError unless a range is inside and the store still answers."""
    if store.lost:
        raise OSError(errno.EIO, store.lost)
    if offset < 0 or offset + octets > store.octets:
        raise OSError(errno.EINVAL, "beyond the end of the device")


def check_writable(store: Store) -> None:
    """Raise OSError for a store that is only read."""
    if store.read_only:
        raise OSError(errno.EROFS, "this device is read-only")
