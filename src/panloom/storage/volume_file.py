"""One file of a volume: its header, its maps, and the clusters that it holds itself, laid out as in ``volume_layout``.

    write   data, whole clusters where the bit is not set yet  →  bit in the volatile map            the kernel has it
    flush   fdatasync  →  the bits of what was synced, in the durable map  →  fdatasync              the disk has it
    unmap   hole in the data, reads as zeros  →  bit in the volatile map
    grow    a longer file  →  header with the new size
    open    volatile map, if the header says that it is of this boot of the machine; else the durable map

So a killed process loses nothing: the kernel holds data and volatile map.  A power cut drops the clusters that were
first written after the last flush, whole: a durable bit is written only when all of its cluster is on the disk, and
bits are never cleared, so any mixture of old and new sectors of a map is true.  The volatile map of an earlier boot is
made equal to the durable one before the header names this boot; whoever dies in between does it again.

The two header copies are written in turn: one that is torn leaves the other.  Opening writes the newest again, since a
process that was killed may not have waited for the disk.

A file that was frozen by a snapshot is only read, and by its durable map alone: all of it was flushed.

The kernel tells of pages that it lost once for each opening of a file, whoever asks first (errseq_t of Linux 4.13).  So
a file is opened twice: ``fd`` is synced by flushes, of which there is one at a time, ``header_fd`` by whoever changes
the header, one at a time, too.  Neither can be told in place of the other, and neither waits for the other's disk.
"""

import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import msgspec

from panloom.disk_io import (
    close_file,
    data_extents,
    drop_cached,
    open_file,
    read_fully,
    read_octets,
    reserve,
    set_size,
    status,
    sync_data,
    write_fully,
    write_octets,
    write_through,
    zero_range,
)
from panloom.durable_names import Directory, PartialFile
from panloom.errors import ConfigError
from panloom.storage.allocation_map import AllocationMap
from panloom.storage.image import Image
from panloom.storage.volume_header import (
    HEADER_OCTETS,
    NO_ID,
    NewerFormatError,
    VolumeHeader,
    decode_header,
    encode_header,
)
from panloom.storage.volume_layout import CLUSTER_OCTETS, MAP_START, PAGE_OCTETS, VolumeLayout

Fill = Callable[[int, memoryview, int], None]
"""Fills a view from an open file at an offset, as ``disk_io.read_fully`` does."""


def write_new_file(fd: int, header: VolumeHeader) -> None:
    """Fill an empty file: a header, space for the other copy, holes; a thick one takes all.  OSError without space."""
    write_fully(fd, [encode_header(header)], header.sequence % 2 * HEADER_OCTETS)
    octets = VolumeLayout(header.map_octets).file_octets(header.octets)
    set_size(fd, octets)
    reserve(fd, 0, octets if header.thick else MAP_START)


def create_volume(
    directory: Directory,
    name: str,
    *,
    octets: int,
    identity: bytes,
    image: Image | None = None,
    frozen: VolumeHeader | None = None,
    origin: str = "",
    thick: bool = False,
) -> None:
    """Make an empty volume of ``octets`` (a multiple of 512) over an image or a frozen file; durable on return.

    In constant time; a ``thick`` one takes all its space, or raises ``OSError``.
    """
    header = VolumeHeader(
        sequence=0,
        epoch=0,
        octets=octets,
        image_name=image.name if image else frozen.image_name if frozen else "",
        image_sha256=image.sha256 if image else frozen.image_sha256 if frozen else bytes(32),
        image_octets=image.octets if image else frozen.image_octets if frozen else 0,
        identity=identity,
        boot_id=bytes(16),
        id=secrets.token_bytes(16),
        parent=frozen.id if frozen else NO_ID,
        origin=origin,
        thick=thick,
    )
    with PartialFile(directory, name, 0o600) as file:
        write_new_file(file.fd, header)
        file.appear(name)


def read_header(path: Path) -> tuple[VolumeHeader, os.stat_result]:
    """Return the header that counts, and what the kernel knows of the file; ConfigError if it is damaged or newer."""
    fd = open_file(path, os.O_RDONLY)
    try:
        return _newest_header(path, fd), status(fd)
    finally:
        close_file(fd)


class VolumeFile:
    """An open file.  Reading needs no lock; whoever changes anything holds the volume's."""

    def __init__(self, fd: int, header_fd: int, header: VolumeHeader, own: AllocationMap) -> None:
        self.fd = fd
        self.header_fd = header_fd
        self.header = header  # as it is on the disk
        self.own = own
        self.layout = VolumeLayout(header.map_octets)
        self._group_octets = self.layout.group_octets
        self._maps_octets = 2 * header.map_octets
        self._reserved_pages: set[int] = set()
        # A reader takes no lock, so the file is closed only when the last call that uses it has returned.
        for each in {fd, header_fd}:
            weakref.finalize(self, close_file, each)

    @classmethod
    def load(cls, path: Path, boot_id: bytes, *, after_loss: bool = False) -> Self:
        """Open a file to be written to; ConfigError if it is torn, cut short or newer.

        ``after_loss`` of pages that the kernel could not write: what it still has in memory is dropped, and only the
        durable map counts, as after a power cut.
        """
        with ExitStack() as opened:
            fd, header_fd = (_opened(path, opened) for _ in range(2))
            if after_loss:
                drop_cached(fd)
            header, own = _checked_header(path, fd)
            layout = VolumeLayout(header.map_octets)
            reserve(fd, 0, MAP_START)  # a file of an older program may have one copy only; a full disk is no lost page
            same_boot, version_1 = header.boot_id == boot_id and not after_loss, header.id == NO_ID
            (_load_volatile if same_boot else _load_durable)(fd, layout, own)
            if version_1:
                sync_data(header_fd)  # the next header goes in place of the last that is whole on the disk: see below
            if version_1 or not same_boot:
                id_ = secrets.token_bytes(16) if version_1 else header.id
                header = msgspec.structs.replace(header, id=id_, boot_id=boot_id, sequence=header.sequence + 1)
            # Of this boot, too: a killed process may have left it in the kernel's cache only, and the next one would
            # then go in place of the last that is whole on the disk.
            _write_header(header_fd, header)
            opened.pop_all()
        return cls(fd, header_fd, header, own)

    @classmethod
    def load_frozen(cls, path: Path) -> Self:
        """Open a frozen file; errors as ``load``."""
        with ExitStack() as opened:
            fd = open_file(path, os.O_RDONLY)
            opened.callback(close_file, fd)
            header, own = _checked_header(path, fd)
            for start, durable, _ in _map_pages(fd, VolumeLayout(header.map_octets), own.octets):
                own.load(start, durable)
            opened.pop_all()
        return cls(fd, fd, header, own)

    def write_header(self, header: VolumeHeader) -> None:
        """Write the next header, durable on return.  An error may be that of any older write: it counts as a sync."""
        header = msgspec.structs.replace(header, sequence=self.header.sequence + 1)
        _write_header(self.header_fd, header)
        self.header = header

    def flush(self) -> None:
        """Return when all that was written is on the disk; one at a time.  SyncError: some of it is lost."""
        sync_data(self.fd)

    def sync_for_header(self) -> None:
        """As ``flush``, beside one: before a header that speaks of what was changed; whoever may write it may call."""
        sync_data(self.header_fd)

    def read(self, offset: int, into: memoryview, fill: Fill = read_fully) -> None:
        """Fill ``into`` from own clusters."""
        group = offset // self._group_octets
        stop = (group + 1) * self._group_octets
        at = MAP_START + (group + 1) * self._maps_octets + offset  # as ``VolumeLayout.data_at``, for speed
        if offset + len(into) <= stop:
            fill(self.fd, into, at)
            return
        fill(self.fd, into[: stop - offset], at)
        self.read(stop, into[stop - offset :], fill)

    def group_end(self, offset: int) -> int:
        """Return where the group of an octet of the disk ends, as an offset of the disk."""
        return (offset // self._group_octets + 1) * self._group_octets

    def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write what stands within one group; sets no bit."""
        write_fully(self.fd, parts, MAP_START + (offset // self._group_octets + 1) * self._maps_octets + offset)

    def write_octets(self, offset: int, octets: memoryview) -> None:
        """Write one part, as ``write`` does, but quicker."""
        write_octets(self.fd, octets, MAP_START + (offset // self._group_octets + 1) * self._maps_octets + offset)

    def zero(self, first: int, limit: int) -> None:
        """Make these clusters read as zeros, once they are own; their space is given back unless the file is thick."""
        offset, end = first * CLUSTER_OCTETS, limit * CLUSTER_OCTETS
        while offset < end:
            stop = min(end, self.layout.group_end(offset))
            zero_range(self.fd, self.layout.data_at(offset), stop - offset, keep=self.header.thick)
            offset = stop

    def set_own(self, first: int, limit: int) -> None:
        """Set the bits of clusters whose data the kernel has."""
        while first < limit:
            stop = min(limit, self.layout.group_end(first * CLUSTER_OCTETS) // CLUSTER_OCTETS)
            start, octets = self.own.with_run(first, stop)
            self.reserve_maps(first, stop)
            write_fully(self.fd, [octets], self.layout.maps_at(start)[1])
            self.own.put(start, octets)
            first = stop

    def reserve_maps(self, first: int, limit: int) -> None:
        """Take disk space for the maps of these clusters, so that a disk that fills up later cannot fail a flush."""
        per_page = 8 * PAGE_OCTETS
        for page in range(first // per_page, (limit - 1) // per_page + 1):
            if page not in self._reserved_pages:
                for at in self.layout.maps_at(page * PAGE_OCTETS):
                    reserve(self.fd, at, PAGE_OCTETS)
                self._reserved_pages.add(page)

    def take_changed_pages(self) -> dict[int, bytes]:
        """Return the pages of the map that differ from the durable one; they count as unchanged from here on."""
        pages = {number: self.own.page(number) for number in self.own.changed_pages}
        self.own.changed_pages.clear()
        return pages

    def write_durable(self, pages: dict[int, bytes]) -> None:
        """Write pages of the durable map; all that they name is on the disk."""
        for number, page in pages.items():
            write_fully(self.fd, [page], self.layout.maps_at(number * PAGE_OCTETS)[0])

    def lengthen(self, octets: int) -> None:
        """Make the file long enough for a larger disk; a thick one takes the space.  OSError: it is as it was."""
        before, after = self.layout.file_octets(self.header.octets), self.layout.file_octets(octets)
        try:
            if after > status(self.fd).st_size:
                set_size(self.fd, after)
            if self.header.thick:
                reserve(self.fd, before, after - before)
        except OSError:
            with suppress(OSError):
                set_size(self.fd, before)  # what was taken of a full disk is given back: others live on it, too
            raise


def _opened(path: Path, opened: ExitStack) -> int:
    fd = open_file(path, os.O_RDWR)
    opened.callback(close_file, fd)
    return fd


def _newest_header(path: Path, fd: int) -> VolumeHeader:
    try:
        copies = [decode_header(read_octets(fd, HEADER_OCTETS, slot * HEADER_OCTETS)) for slot in (0, 1)]
    except NewerFormatError as error:
        raise ConfigError(str(path), f"{error}: written by a newer Panloom; use that one") from error
    whole = [header for header in copies if header]
    if not whole:
        raise ConfigError(str(path), "no valid header: not a volume, or damaged; restore it from a copy or remove it")
    return max(whole, key=lambda header: header.sequence)


def _checked_header(path: Path, fd: int) -> tuple[VolumeHeader, AllocationMap]:
    header = _newest_header(path, fd)
    if status(fd).st_size < VolumeLayout(header.map_octets).file_octets(header.octets):
        raise ConfigError(str(path), "the file is shorter than its header says; restore it from a copy")
    return header, AllocationMap(-(-header.octets // CLUSTER_OCTETS))


def _write_header(fd: int, header: VolumeHeader) -> None:
    """Write the copy that the sequence says, and wait for the disk."""
    write_through(fd, encode_header(header), header.sequence % 2 * HEADER_OCTETS)


def _map_pages(fd: int, layout: VolumeLayout, octets: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Return where a page of the maps starts, its durable and its volatile octets; not those that are two holes."""
    for group in range(0, octets, layout.map_octets):
        starts: set[int] = set()
        used = min(layout.map_octets, octets - group)
        for map_start in layout.maps_at(group):
            for data, hole in data_extents(fd, map_start, map_start + used):
                starts.update(range((data - map_start) // PAGE_OCTETS * PAGE_OCTETS, hole - map_start, PAGE_OCTETS))
        for start in sorted(starts):
            durable, volatile = (read_octets(fd, PAGE_OCTETS, at) for at in layout.maps_at(group + start))
            yield group + start, durable, volatile


def _load_volatile(fd: int, layout: VolumeLayout, own: AllocationMap) -> None:
    """Take the volatile map; what a killed process had not flushed counts as changed."""
    for start, durable, volatile in _map_pages(fd, layout, own.octets):
        own.load(start, volatile)
        if volatile != durable:
            own.changed_pages.add(start // PAGE_OCTETS)


def _load_durable(fd: int, layout: VolumeLayout, own: AllocationMap) -> None:
    """Take the durable map, and make the volatile one equal to it."""
    for start, durable, volatile in _map_pages(fd, layout, own.octets):
        own.load(start, durable)
        if volatile != durable:
            write_fully(fd, [durable], layout.maps_at(start)[1])
