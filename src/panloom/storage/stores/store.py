"""What the Local Transport asks of a store.

    open      ``names.open_store``; an error says what is wrong with the name, or with what it names
    read      fill a view            write    take a view; kept until ``flush`` makes it durable
    unmap     reads as zeros         resize   only to grow          close    flush, and let go

Offsets and lengths are octets, whole blocks, inside the store.  Any number of threads may call at once.  Every error is
an OSError; its errno becomes sense data (``storage.medium``).
"""

import errno
import hashlib
import threading
from abc import ABC, abstractmethod
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


class OpenStore(ABC):
    """What all stores have in common: each answers until it is closed, or until a flush fails."""

    def __init__(self, name: str, octets: int, *, identity: bytes, read_only: bool) -> None:
        self.name = name
        self.octets = octets
        self.identity = identity
        self.read_only = read_only
        self._flushing = threading.Lock()  # a failed flush is told once, to whoever asks first
        self.lost = ""  # why nothing is answered any more

    def lose(self, why: str) -> None:
        """Answer nothing any more."""
        self.lost = self.lost or why

    def check_room(self, offset: int, octets: int) -> None:
        """Raise OSError unless a range is inside and the store still answers."""
        if self.lost:
            raise OSError(errno.EIO, self.lost)
        if offset < 0 or offset + octets > self.octets:
            raise OSError(errno.EINVAL, "beyond the end of the device")

    def check_change(self, offset: int, octets: int) -> None:
        """Raise OSError unless a range may be written."""
        if self.read_only:
            raise OSError(errno.EROFS, "this device is read-only")
        self.check_room(offset, octets)

    def read_now(self, offset: int, into: memoryview) -> bool:
        """Fill nothing: a store that has something at hand says so itself."""
        self.check_room(offset, len(into))
        return False

    def flush(self) -> None:
        """Return when all writes that returned before are on stable storage; OSError, and then lost, if that failed."""
        with self._flushing:
            self.check_room(0, 0)
            if self.read_only:
                return
            try:
                self._sync()
            except OSError as error:
                self.lose(f"a flush of {self.name} failed: {error.strerror}")
                raise

    def close(self) -> None:
        """Flush, let go and answer nothing any more; OSError if what was written may be lost."""
        try:
            self.flush()
        finally:
            self.lose(f"{self.name} is closed")
            self._let_go()

    @abstractmethod
    def _sync(self) -> None:
        """Return when all writes that returned before are on stable storage."""

    @abstractmethod
    def _let_go(self) -> None:
        """Let others have it."""


def identity_of(name: str) -> bytes:
    """Return an NAA 3 designator that is the same for a name for ever (SPC-4 r37 7.8.6.6.4)."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]
