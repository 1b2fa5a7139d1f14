"""A volume: a copy-on-write disk over a read-only image, in one sparse file.

    ┌────────────┬────────────┬─────────────┬──────────────┬──────────────────────────────
    │ header A   │ header B   │ durable map │ volatile map │ data: cluster n of the disk
    │ 4096       │ 4096       │ whole pages │ whole pages  │ stands at data + n × 4096
    └────────────┴────────────┴─────────────┴──────────────┴──────────────────────────────

A cluster whose bit is set is read from the data, any other one from the image, zeros beyond its end.  A new volume is
a header and holes: making one costs the same whatever the size of the image.

    write   data, whole clusters where the bit is not set yet  →  bit in the volatile map            the kernel has it
    flush   fdatasync  →  the bits of what was synced, in the durable map  →  fdatasync              the disk has it
    unmap   hole in the data, reads as zeros  →  bit in the volatile map
    open    volatile map, if the header says that it is of this boot of the machine; else the durable map

So a killed process loses nothing: the kernel holds data and volatile map.  A power cut drops the clusters that were
first written after the last flush, whole: a durable bit is written only when all of its cluster is on the disk, and
bits are never cleared, so any mixture of old and new sectors of a map is true.  The volatile map of an earlier boot is
made equal to the durable one before the header names this boot; whoever dies in between does it again.

The two header copies are written in turn: one that is torn leaves the other.  Opening writes the newest again, since a
process that was killed may not have waited for the disk.  The epoch in it is the fencing token: a
write under an older grant fails, and raising the epoch or ending a grant returns only when no such write is under way.

After a failed fdatasync the kernel has forgotten which pages it lost: the volume is offline, everything fails with
EIO, and no later sync is believed.  So it is when a header cannot be written through, which reports, once, whatever
the kernel failed to write to the file since it was last asked.
"""

import errno
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from panloom.disk_io import (
    Directory,
    PartialFile,
    close_file,
    data_extents,
    open_file,
    read_fully,
    read_octets,
    reserve,
    set_size,
    status,
    sync_data,
    write_fully,
    write_through,
    zero_range,
)
from panloom.errors import ConfigError, ConflictError
from panloom.storage.allocation_map import PAGE_OCTETS, AllocationMap, map_octets
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.image import Image
from panloom.storage.volume_header import (
    CLUSTER_OCTETS,
    HEADER_OCTETS,
    NewerFormatError,
    VolumeHeader,
    decode_header,
    encode_header,
)

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
MAP_START = 2 * HEADER_OCTETS
RUN_CLUSTERS = 4096  # at most this many clusters are looked at together


def this_boot() -> bytes:
    """Return the 16 octets that name this boot of the machine."""
    return bytes.fromhex(BOOT_ID_FILE.read_text().strip().replace("-", ""))


class WriteGrant:
    """The right of a session to write to a volume: from ``Volume.grant`` to ``Volume.end`` or a higher epoch."""

    __slots__ = ("ended", "epoch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.ended = False


def create_volume(directory: Directory, name: str, *, octets: int, image: Image | None, identity: bytes) -> None:
    """Make an empty volume of ``octets`` (a multiple of 512) over an image, in constant time; durable on return."""
    header = VolumeHeader(
        sequence=0,
        epoch=0,
        octets=octets,
        image_name=image.name if image else "",
        image_sha256=image.sha256 if image else bytes(32),
        image_octets=image.octets if image else 0,
        identity=identity,
        boot_id=bytes(16),
    )
    with PartialFile(directory, name, 0o600) as file:
        write_fully(file.fd, [encode_header(header)], 0)
        set_size(file.fd, _data_start(octets) + octets)
        file.appear(name)


def read_header(path: Path) -> tuple[VolumeHeader, int]:
    """Return the header that counts, and the octets taken on the disk; ConfigError if it is damaged or newer."""
    fd = open_file(path, os.O_RDONLY)
    try:
        return _newest_header(path, fd), status(fd).st_blocks * 512
    finally:
        close_file(fd)


class Volume:
    """An open volume.  Any number of threads may use it at once; one process only, which the store sees to."""

    def __init__(self, fd: int, header: VolumeHeader, image: Image | None, own: AllocationMap) -> None:
        self.octets = header.octets
        self.identity = header.identity
        self._fd = fd
        self._header = header  # as it is on the disk
        self._epoch = header.epoch  # as it counts; higher than on the disk only after a failed write of the header
        self._image = image
        self._map = own
        self._data_start = _data_start(header.octets)
        self._reserved_pages: set[int] = set()
        self._online = True
        self._changing = threading.Lock()  # writes, and whatever must not be in the middle of one
        self._flushing = threading.Lock()  # taken before _changing
        # A reader takes no lock, so the file is closed only when the last call that uses it has returned.
        weakref.finalize(self, close_file, fd)

    @classmethod
    def open(cls, path: Path, image: Image | None, *, boot_id: bytes | None = None) -> Self:
        """Open a volume over the image that its header names; ConfigError if torn, newer or of another image."""
        boot_id = boot_id or this_boot()
        fd = open_file(path, os.O_RDWR)
        try:
            header = _newest_header(path, fd)
            _check_image(path, header, image)
            if status(fd).st_size < _data_start(header.octets) + header.octets:
                raise ConfigError(str(path), "the file is shorter than its header says; restore it from a copy")
            own = AllocationMap(-(-header.octets // CLUSTER_OCTETS))
            if header.boot_id == boot_id:
                _load_volatile(fd, own)
            else:
                _load_durable(fd, own)
                header = msgspec.structs.replace(header, boot_id=boot_id, sequence=header.sequence + 1)
            # Of this boot, too: a killed process may have left it in the kernel's cache only, and the next one would
            # then go in place of the last that is whole on the disk.
            _write_header(fd, header)
        except BaseException:
            close_file(fd)
            raise
        return cls(fd, header, image, own)

    @property
    def epoch(self) -> int:
        """The fencing token: grants of a lower epoch cannot write."""
        return self._epoch

    @property
    def allocated_octets(self) -> int:
        """What the volume takes on the disk, its maps included."""
        return status(self._fd).st_blocks * 512

    def grant(self, epoch: int) -> WriteGrant:
        """Give the right to write under an epoch; StaleEpochError if the volume's is higher."""
        if epoch < self.epoch:
            raise StaleEpochError(f"epoch {epoch} is over, the volume is at {self.epoch}")
        return WriteGrant(epoch)

    def end(self, grant: WriteGrant) -> None:
        """Take a grant back; on return no write under it is under way, and none will ever be."""
        with self._changing:
            grant.ended = True

    def raise_epoch(self, epoch: int) -> None:
        """Set the epoch, durable on return; no older grant can write any more.  ConflictError if it would go down.

        OSError, and then offline, if the disk refuses to remember it.
        """
        with self._changing:
            if epoch < self._epoch:
                raise ConflictError(f"epoch {epoch} is lower than the volume's, {self._epoch}")
            self._epoch = epoch  # fences even then
            if epoch != self._header.epoch:
                header = msgspec.structs.replace(self._header, epoch=epoch, sequence=self._header.sequence + 1)
                try:
                    _write_header(self._fd, header)
                except OSError:
                    self._online = False
                    raise
                self._header = header

    def read(self, offset: int, into: memoryview) -> None:
        """Fill ``into`` from the disk at ``offset``."""
        self._check(offset, len(into))
        end = offset + len(into)
        position = offset
        while position < end:
            first = position // CLUSTER_OCTETS
            limit = min(-(-end // CLUSTER_OCTETS), first + RUN_CLUSTERS)
            own, limit = self._map.run(first, limit)
            stop = min(end, limit * CLUSTER_OCTETS)
            part = into[position - offset : stop - offset]
            if own:
                read_fully(self._fd, part, self._data_start + position)
            else:
                self._read_image(position, part)
            position = stop

    def write(self, grant: WriteGrant, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``; kept by the kernel on return, by the disk after ``flush``.

        StaleEpochError if the grant is over; the disk's OSError, in which case any of the sectors may be old or new.
        """
        with self._changing:
            self._check_grant(grant)
            self._check(offset, len(data))
            self._write(offset, data)

    def unmap(self, grant: WriteGrant, offset: int, length: int) -> None:
        """Make exactly this range read as zeros and give back the blocks of its whole clusters; errors as ``write``."""
        end = offset + length
        first, limit = -(-offset // CLUSTER_OCTETS), end // CLUSTER_OCTETS
        with self._changing:
            self._check_grant(grant)
            self._check(offset, length)
            if first >= limit:  # no whole cluster
                self._write_zeros(offset, end)
                return
            self._write_zeros(offset, first * CLUSTER_OCTETS)
            zero_range(self._fd, self._data_start + first * CLUSTER_OCTETS, (limit - first) * CLUSTER_OCTETS)
            # Beyond the image a cluster without a bit reads as zeros already.
            self._set_own(first, min(limit, -(-self._header.image_octets // CLUSTER_OCTETS)))
            self._write_zeros(limit * CLUSTER_OCTETS, end)

    def flush(self) -> None:
        """Return when all writes that returned before are on the disk; OSError, and then offline, if that failed."""
        with self._flushing:
            with self._changing:
                self._check(0, 0)
                pages = {number: self._map.page(number) for number in self._map.changed_pages}
                self._map.changed_pages.clear()
            self._sync()
            if not pages:
                return
            try:
                for number, page in pages.items():
                    write_fully(self._fd, [page], MAP_START + number * PAGE_OCTETS)
            except OSError:
                with self._changing:
                    self._map.changed_pages.update(pages)
                raise
            self._sync()

    def close(self) -> None:
        """Flush and take the volume offline; calls under way are finished."""
        try:
            self.flush()
        finally:
            with self._changing:
                self._online = False

    def _check(self, offset: int, length: int) -> None:
        if not self._online:
            raise OSError(errno.EIO, "the volume is offline")
        if offset < 0 or offset + length > self.octets:
            raise OSError(errno.EINVAL, "beyond the end of the disk")

    def _check_grant(self, grant: WriteGrant) -> None:
        if grant.ended or grant.epoch < self._epoch:
            raise StaleEpochError(f"epoch {grant.epoch} is over, the volume is at {self._epoch}")

    def _sync(self) -> None:
        try:
            sync_data(self._fd)
        except OSError:
            self._online = False
            raise

    def _write(self, offset: int, data: memoryview) -> None:
        end = offset + len(data)
        first, limit = offset // CLUSTER_OCTETS, -(-end // CLUSTER_OCTETS)
        own, stop = self._map.run(first, limit)
        if own and stop == limit:
            write_fully(self._fd, [data], self._data_start + offset)
            return
        head = tail = b""
        if not own:
            head = self._image_part(first * CLUSTER_OCTETS, offset)
        if not self._map.run(limit - 1, limit)[0]:
            tail = self._image_part(end, min(limit * CLUSTER_OCTETS, self.octets))
        self._reserve(first, limit)
        write_fully(self._fd, [head, data, tail], self._data_start + offset - len(head))
        self._set_own(first, limit)

    def _write_zeros(self, offset: int, end: int) -> None:
        """Write zeros within one cluster, or nothing."""
        if offset < end:
            self._write(offset, memoryview(bytes(end - offset)))

    def _set_own(self, first: int, limit: int) -> None:
        if first >= limit:
            return
        start, octets = self._map.with_run(first, limit)
        self._reserve(first, limit)
        write_fully(self._fd, [octets], MAP_START + self._map.octets + start)
        self._map.put(start, octets)

    def _reserve(self, first: int, limit: int) -> None:
        """Take disk space for the maps of these clusters, so that a disk that fills up later cannot fail a flush."""
        per_page = 8 * PAGE_OCTETS
        for page in range(first // per_page, (limit - 1) // per_page + 1):
            if page not in self._reserved_pages:
                reserve(self._fd, MAP_START + page * PAGE_OCTETS, PAGE_OCTETS)
                reserve(self._fd, MAP_START + self._map.octets + page * PAGE_OCTETS, PAGE_OCTETS)
                self._reserved_pages.add(page)

    def _image_part(self, start: int, end: int) -> bytes:
        part = bytearray(end - start)
        self._read_image(start, memoryview(part))
        return bytes(part)

    def _read_image(self, offset: int, into: memoryview) -> None:
        held = max(0, min(len(into), self._header.image_octets - offset))
        if self._image and held:
            read_fully(self._image.fd, into[:held], offset)
        if held < len(into):
            into[held:] = bytes(len(into) - held)


def _data_start(octets: int) -> int:
    return MAP_START + 2 * map_octets(-(-octets // CLUSTER_OCTETS))


def _newest_header(path: Path, fd: int) -> VolumeHeader:
    try:
        copies = [decode_header(read_octets(fd, HEADER_OCTETS, slot * HEADER_OCTETS)) for slot in (0, 1)]
    except NewerFormatError as error:
        raise ConfigError(str(path), f"{error}: written by a newer Panloom; use that one") from error
    whole = [header for header in copies if header]
    if not whole:
        raise ConfigError(str(path), "no valid header: not a volume, or damaged; restore it from a copy or remove it")
    return max(whole, key=lambda header: header.sequence)


def _write_header(fd: int, header: VolumeHeader) -> None:
    """Write the copy that the sequence says, and wait for the disk."""
    write_through(fd, encode_header(header), header.sequence % 2 * HEADER_OCTETS)


def _check_image(path: Path, header: VolumeHeader, image: Image | None) -> None:
    if header.image_name and (image is None or image.sha256 != header.image_sha256):
        raise ConfigError(str(path), f"needs the image {header.image_name} with sha256 {header.image_sha256.hex()}")


def _map_pages(fd: int, octets: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Return where a page of the maps starts, its durable and its volatile octets; not those that are two holes."""
    starts: set[int] = set()
    for map_start in (MAP_START, MAP_START + octets):
        for data, hole in data_extents(fd, map_start, map_start + octets):
            starts.update(range((data - map_start) // PAGE_OCTETS * PAGE_OCTETS, hole - map_start, PAGE_OCTETS))
    for start in sorted(starts):
        durable, volatile = (read_octets(fd, PAGE_OCTETS, MAP_START + part + start) for part in (0, octets))
        yield start, durable, volatile


def _load_volatile(fd: int, own: AllocationMap) -> None:
    """Take the volatile map; what a killed process had not flushed counts as changed."""
    for start, durable, volatile in _map_pages(fd, own.octets):
        own.load(start, volatile)
        if volatile != durable:
            own.changed_pages.add(start // PAGE_OCTETS)


def _load_durable(fd: int, own: AllocationMap) -> None:
    """Take the durable map, and make the volatile one equal to it."""
    for start, durable, volatile in _map_pages(fd, own.octets):
        own.load(start, durable)
        if volatile != durable:
            write_fully(fd, [durable], MAP_START + own.octets + start)
