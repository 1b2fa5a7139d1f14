"""What one session does with one device: the opaque context of the Local Transport.

    VolumeAccess ──▶ Volume, WriteGrant of this session
    StoreAccess  ──▶ Store of any kind, Rights of this session in its Turnstile
    ContentAccess ─▶ literal octets

They differ in how they are read and written, not in what is asked of them (``Access``).
"""

import errno
from collections.abc import Callable
from typing import Any, Protocol

from panloom.disk_io import fill_cached
from panloom.storage.device import Device
from panloom.storage.elsewhere import Delays
from panloom.storage.frame import Frame
from panloom.storage.overlay import Volume, WriteGrant
from panloom.storage.stores.store import Store
from panloom.storage.turnstile import Rights, Turnstile

Change = Callable[[bytearray], memoryview]
"""Gets the octets that are there and returns those that shall be; MiscompareError: none."""


class Access(Protocol):
    """What the send handler needs; offsets and lengths are octets, errors are OSError or StaleEpochError."""

    device: Device
    delays: Delays
    counters: Any  # of what is done at once
    may_block: bool

    @property
    def lost(self) -> str:
        """Why the device answers nothing any more, "" while all is well."""

    @property
    def ended(self) -> bool:
        """Whether the session is over."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the view."""

    def read_now(self, offset: int, into: memoryview) -> bool:
        """Fill the view if that needs no waiting; return whether it did."""

    def name_extent(self, frame: Frame) -> None:
        """Set ``file`` and ``at`` of a frame, if a file holds its range in one piece."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write the view."""

    def unmap(self, offset: int, octets: int) -> None:
        """Make the range read as zeros."""

    def modify(self, offset: int, octets: int, change: Change) -> None:
        """Read, have changed, and write; nobody else writes between."""

    def look_up(self, offset: int, end: int) -> tuple[int, bool]:
        """Return how many octets from an offset on are alike, and whether they take space."""

    def flush(self) -> None:
        """Make what was written durable."""

    def end(self) -> None:
        """End the session's rights; on return no write of it is under way, and none will ever be."""


class _Access:
    def __init__(self, device: Device, delays: Delays, *, may_block: bool = False) -> None:
        self.device = device
        self.delays = delays
        self.counters = device.statistics.begin()
        self.may_block = may_block
        self.ended = False

    def name_extent(self, frame: Frame) -> None:
        """Name none."""

    def write(self, offset: int, data: memoryview) -> None:  # noqa: ARG002
        raise _read_only()

    def end(self) -> None:
        self.ended = True
        self.delays.hasten(self)
        self.device.statistics.end(self.counters)


class VolumeAccess(_Access):
    """``grant`` None: for reading only."""

    def __init__(self, device: Device, delays: Delays, volume: Volume, grant: WriteGrant | None) -> None:
        super().__init__(device, delays, may_block=volume.may_block)
        self.volume = volume
        self.grant = grant
        self.read = volume.read
        self.flush = volume.flush
        self.look_up = volume.look_up
        self._extent = volume.extent

    @property
    def lost(self) -> str:
        return "a sync failed; check its disk, then reopen it" if self.volume.lost else ""

    def read_now(self, offset: int, into: memoryview) -> bool:
        try:
            self.volume.read(offset, into, fill_cached)
        except BlockingIOError:
            return False
        return True

    def name_extent(self, frame: Frame) -> None:
        found = self._extent(frame.offset, frame.octets)
        if found is not None:
            frame.file, frame.at = found

    def write(self, offset: int, data: memoryview) -> None:
        if self.grant is None:
            raise _read_only()
        self.volume.write(self.grant, offset, data)

    def unmap(self, offset: int, octets: int) -> None:
        if self.grant is None:
            raise _read_only()
        self.volume.unmap(self.grant, offset, octets)

    def modify(self, offset: int, octets: int, change: Change) -> None:
        found = bytearray(octets)
        with self.volume.alone:
            self.volume.read(offset, memoryview(found))
            self.write(offset, change(found))

    def end(self) -> None:
        super().end()
        if self.grant is not None:
            self.volume.end(self.grant)


class StoreAccess(_Access):
    """A session's access to a store that others may have, too; ``read_only`` is the session's, not the store's."""

    def __init__(self, device: Device, delays: Delays, store: Store, turnstile: Turnstile, *, read_only: bool) -> None:
        super().__init__(device, delays, may_block=store.may_block)
        self.store = store
        self.turnstile = turnstile
        self.rights = Rights()
        self.read_only = read_only or store.read_only
        self.read = store.read
        self.read_now = store.read_now
        self.flush = store.flush
        self.look_up = getattr(store, "look_up", _all_mapped)
        self._file = getattr(store, "fd", None) is not None

    @property
    def lost(self) -> str:
        return self.store.lost

    def name_extent(self, frame: Frame) -> None:
        store = self.store
        if self._file and not store.lost and frame.offset + frame.octets <= store.octets:
            frame.file, frame.at = store, frame.offset

    def write(self, offset: int, data: memoryview) -> None:
        if self.read_only:
            raise _read_only()
        self.turnstile.enter(self.rights)
        try:
            self.store.write(offset, data)
        finally:
            self.turnstile.leave(self.rights)

    def unmap(self, offset: int, octets: int) -> None:
        if self.read_only:
            raise _read_only()
        self.turnstile.enter(self.rights)
        try:
            self.store.unmap(offset, octets)
        finally:
            self.turnstile.leave(self.rights)

    def modify(self, offset: int, octets: int, change: Change) -> None:
        if self.read_only:
            raise _read_only()
        found = bytearray(octets)
        with self.turnstile.alone(self.rights):
            self.store.read(offset, memoryview(found))
            self.store.write(offset, change(found))

    def end(self) -> None:
        super().end()
        self.turnstile.end(self.rights)


class ContentAccess(_Access):
    """Literal octets, for reading only."""

    lost = ""

    def __init__(self, device: Device, delays: Delays, content: bytes) -> None:
        super().__init__(device, delays)
        self._content = memoryview(content)

    def read(self, offset: int, into: memoryview) -> None:
        if offset + len(into) > len(self._content):
            raise OSError(errno.EINVAL, "beyond the end of the content")
        into[:] = self._content[offset : offset + len(into)]

    def read_now(self, offset: int, into: memoryview) -> bool:
        self.read(offset, into)
        return True

    def unmap(self, offset: int, octets: int) -> None:  # noqa: ARG002
        raise _read_only()

    def modify(self, offset: int, octets: int, change: Change) -> None:  # noqa: ARG002
        raise _read_only()

    def look_up(self, offset: int, end: int) -> tuple[int, bool]:
        return _all_mapped(offset, end)

    def flush(self) -> None:
        """Nothing is ever written."""


def _all_mapped(offset: int, end: int) -> tuple[int, bool]:
    return end - offset, True


def _read_only() -> OSError:
    return OSError(errno.EROFS, "this unit is read-only")
