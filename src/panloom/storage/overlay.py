"""A volume: a disk that is written in a file of its own, over what it is a copy-on-write clone of.

    ┌────────────────────── Volume ──────────────────────┐
    │  VolumeFile    clusters written or unmapped        │  ← write, unmap, flush, grow
    │      over                                          │
    │  Below         frozen files  ─▶  image  ─▶  zeros  │
    └────────────────────────────────────────────────────┘

    snapshot   flush  →  the file is frozen under a name of the snapshot  →  a new, empty one takes its place
    flatten    what is below is copied, piece by piece  →  header: nothing below is read any more

The epoch in the header is the fencing token: a write under an older grant fails, and raising the epoch or ending a
grant returns only when no such write is under way.

After a failed fdatasync the kernel has forgotten which pages it lost: until the next start the volume is offline,
everything fails with EIO, and no later sync is believed.  So it is when a header cannot be written through, which
reports, once, whatever the kernel failed to write to the file since it was last asked.  Who flushes and who changes the
header may ask at the same time: each asks through an opening of the file that is its own (``volume_file``), under the
lock that the next to ask through it has to take, and the volume is offline before that lock is free.  So a sync that
succeeds has heard of all that was lost before.  A flush looks once more whether the volume is offline by then, for what
another was told is as good a reason to refuse.
"""

import errno
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from enum import Enum, auto
from pathlib import Path
from typing import Self

import msgspec

from panloom.disk_io import copy_range, read_fully, tells_what_waits
from panloom.errors import ConflictError
from panloom.storage.below import Below, check_below
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.image import Image
from panloom.storage.provisioning import run_at
from panloom.storage.volume_file import Fill, VolumeFile
from panloom.storage.volume_header import NO_ID, VolumeHeader
from panloom.storage.volume_layout import CLUSTER_OCTETS

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_OFFLINE = "the volume is offline"
_CLUSTER_BITS = CLUSTER_OCTETS.bit_length() - 1
RUN_CLUSTERS = 4096  # at most this many clusters are looked at together

log = logging.getLogger(__name__)


class _State(Enum):
    ONLINE = auto()
    CLOSED = auto()
    LOST = auto()  # a sync failed


_ONLINE = _State.ONLINE


def this_boot() -> bytes:
    """Return the 16 octets that name this boot of the machine."""
    return bytes.fromhex(BOOT_ID_FILE.read_text().strip().replace("-", ""))


def tell_lost(name: str, error: OSError) -> None:
    """Log that a volume is offline, and what to do."""
    mend = "check its disk and its file system, then panloom reopen it, or restart the storage process"
    log.error("volume=%s online=no why=%r mend=%r", name, error.strerror, mend)


class WriteGrant:
    """The right of a session to write to a volume: from ``Volume.grant`` to ``Volume.end`` or a higher epoch."""

    __slots__ = ("ended", "epoch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.ended = False


class Volume:
    """An open volume.  Any number of threads may use it at once; one process only, which the store sees to."""

    def __init__(self, name: str, top: VolumeFile, below: Below) -> None:
        self.name = name
        self.octets = top.header.octets
        self.identity = top.header.identity
        self.may_block = not tells_what_waits(top.fd)  # images/ is taken to be on the like of its file system
        self._stack = top, below  # replaced as a whole: readers take no lock
        self._epoch = top.header.epoch  # as it counts; higher than on the disk only after a failed write of the header
        self._state = _State.ONLINE
        self._changing = threading.RLock()  # writes, and whatever must not be in the middle of one
        self._flushing = threading.Lock()  # taken before _changing

    @classmethod
    def open(
        cls,
        path: Path,
        image: Image | None,
        *,
        layers: tuple[VolumeFile, ...] = (),
        boot_id: bytes | None = None,
        after_loss: bool = False,
    ) -> Self:
        """Open a volume over what its header names; ConfigError if torn, newer or over something else.

        ``after_loss``: see ``VolumeFile.load``.
        """
        top = VolumeFile.load(path, boot_id or this_boot(), after_loss=after_loss)
        below = Below(layers, image)
        check_below(path, top.header, below)
        return cls(path.stem, top, below)

    @property
    def header(self) -> VolumeHeader:
        """The header as it is on the disk."""
        return self._stack[0].header

    @property
    def layers(self) -> tuple[VolumeFile, ...]:
        """The frozen files that are read."""
        return self._stack[1].layers

    @property
    def lost(self) -> bool:
        """Whether a sync has failed: what was written is perhaps gone, and opening it anew would hide that."""
        return self._state is _State.LOST

    @property
    def epoch(self) -> int:
        """The fencing token: grants of a lower epoch cannot write."""
        return self._epoch

    @property
    def thin(self) -> bool:
        """Whether space is taken as it is written, and given back."""
        return not self.header.thick

    @property
    def alone(self) -> AbstractContextManager[object]:
        """Hold this to read and write with nobody else writing between."""
        return self._changing

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

        OSError, and then offline, if the disk refuses to remember it.  So if it is offline already: the file is perhaps
        another's by now, open anew, frozen or removed, and a header of ours would undo what that one says.
        """
        with self._changing:
            if epoch < self._epoch:
                raise ConflictError(f"epoch {epoch} is lower than the volume's, {self._epoch}")
            self._epoch = epoch  # fences even then
            self._check(0, 0)
            if epoch != self.header.epoch:
                self._write_header(epoch=epoch)

    def read(self, offset: int, into: memoryview, fill: Fill = read_fully) -> None:
        """Fill ``into`` from the disk at ``offset``; what ``fill`` raises goes on to the caller."""
        end = offset + len(into)
        if self._state is not _ONLINE or offset < 0 or end > self.octets:
            self._check(offset, end)
        top, below = self._stack
        first = offset >> _CLUSTER_BITS
        if first == (end - 1) >> _CLUSTER_BITS:  # within a cluster, as most reads of files and directories are
            (top if top.own.own(first) else below).read(offset, into, fill)
            return
        position = offset
        while position < end:
            first = position // CLUSTER_OCTETS
            limit = min(-(-end // CLUSTER_OCTETS), first + RUN_CLUSTERS)
            own, limit = top.own.run(first, limit)
            stop = min(end, limit * CLUSTER_OCTETS)
            part = into[position - offset : stop - offset]
            if own:
                top.read(position, part, fill)
            else:
                below.read(position, part, fill)
            position = stop

    def extent(self, offset: int, octets: int) -> tuple[VolumeFile | Image, int] | None:
        """Return a file that holds this range in one piece, and from where on; None: ``read`` knows."""
        end = offset + octets
        if self._state is not _ONLINE or end > self.octets:
            return None
        top, below = self._stack
        first, last = offset >> _CLUSTER_BITS, -(-end >> _CLUSTER_BITS)
        own, limit = top.own.run(first, last) if last - first > 1 else (top.own.own(first), last)
        if limit < last or (own and end > top.group_end(offset)):
            return None
        return (top, top.layout.data_at(offset)) if own else below.extent(offset, end)

    def write(self, grant: WriteGrant, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``; kept by the kernel on return, by the disk after ``flush``.

        StaleEpochError if the grant is over; the disk's OSError, in which case any of the sectors may be old or new.
        """
        with self._changing:
            if grant.ended or grant.epoch < self._epoch:
                self._check_grant(grant)
            end = offset + len(data)
            if self._state is not _ONLINE or offset < 0 or end > self.octets:
                self._check(offset, end)
            top, first = self._stack[0], offset >> _CLUSTER_BITS
            if first == (end - 1) >> _CLUSTER_BITS and top.own.own(first):  # as most writes are, once a disk is in use
                top.write_octets(offset, data)
            else:
                self._write(offset, data)

    def unmap(self, grant: WriteGrant, offset: int, length: int) -> None:
        """Make exactly this range read as zeros and give back the blocks of its whole clusters; errors as ``write``."""
        end = offset + length
        first, limit = -(-offset // CLUSTER_OCTETS), end // CLUSTER_OCTETS
        with self._changing:
            self._check_grant(grant)
            self._check(offset, end)
            if first >= limit:  # no whole cluster
                self._write_zeros(offset, end)
                return
            self._write_zeros(offset, first * CLUSTER_OCTETS)
            self._zero(first, limit)
            self._write_zeros(limit * CLUSTER_OCTETS, end)

    def look_up(self, offset: int, end: int) -> tuple[int, bool]:
        """Return how many octets from an offset on are alike, and whether they take space."""
        self._check(offset, end)
        return run_at(*self._stack, offset, end)

    def flush(self) -> None:
        """Return when all writes that returned before are on the disk; OSError, and then offline, if that failed."""
        with self._flushing:
            self._flush()

    def grow(self, octets: int) -> None:
        """Make the disk larger, durable on return; what is new reads as zeros.  ConflictError if it would be smaller.

        OSError when a thick one finds no space: it is as it was.
        """
        with self._changing:
            self._check(0, 0)
            if octets < self.octets:
                raise ConflictError(f"the disk has {self.octets} octets and cannot become smaller")
            if octets == self.octets:
                return
            top, _ = self._stack
            top.lengthen(octets)
            self._sync(top.sync_for_header)  # the header must not speak of what the file has not
            self._write_header(octets=octets)
            top.own.grow(-(-octets // CLUSTER_OCTETS))
            self.octets = octets

    def snapshot(
        self,
        freeze: Callable[[], None],
        renew: Callable[[VolumeHeader], VolumeFile],
        thaw: Callable[[], bool],
    ) -> None:
        """Go on in a new file; the one until now, flushed, is never written to again.

        ``freeze`` names it, or raises, and then nothing has happened; ``renew`` puts a new file in its place that has
        this header.  Where that fails ``thaw`` undoes ``freeze`` and returns whether the volume's file is its own
        again.  If not the volume is offline: which of the two files it is, only opening it anew can tell.
        """
        with self._flushing:
            self._flush()  # most of it, while writing goes on
            with self._changing:
                self._flush()
                top, below = self._stack
                freeze()
                header = msgspec.structs.replace(top.header, epoch=self._epoch, parent=top.header.id, flat=False)
                try:
                    new = renew(header)
                except OSError as error:
                    if not thaw():
                        self._lose(error)
                    raise
                self._stack = new, below.under(top)

    def begin_flattening(self) -> None:
        """Remember, durably, that it is to be made independent of what is below."""
        with self._changing:
            self._check(0, 0)
            if not self.header.flattening:
                self._write_header(flattening=True)

    def pull(self, start: int, end: int) -> int:
        """Take over what is below between two offsets, whole clusters; return how many octets were copied."""
        copied = 0
        with self._changing:
            self._check(0, 0)
            top, below = self._stack
            first, last = start // CLUSTER_OCTETS, -(-min(end, below.octets) // CLUSTER_OCTETS)
            while first < last:
                own, limit = top.own.run(first, last)
                if not own:
                    copied += self._pull(first, limit, below)
                first = limit
        return copied

    def absorb(self, layer: bytes, start: int, end: int) -> int:
        """Take over what one frozen file, directly below, holds between two offsets; return how many were copied.

        ConflictError if a file of another id lies directly below by now.
        """
        copied = 0
        with self._changing:
            frozen = self._directly_below(layer)
            first, last = start // CLUSTER_OCTETS, -(-min(end, frozen.header.octets) // CLUSTER_OCTETS)
            while first < last:
                holds, limit = frozen.own.run(first, last)
                own, limit = self._stack[0].own.run(first, limit)
                if holds and not own:
                    copied += self._pull(first, limit, Below((frozen,)))
                first = limit
        return copied

    def end_absorbing(self, layer: bytes) -> None:
        """Read past a frozen file of which all was taken over, durable on return."""
        self.flush()
        with self._flushing, self._changing:
            self._flush()
            frozen = self._directly_below(layer)
            top, below = self._stack
            self._write_header(parent=frozen.header.parent, flat=frozen.header.flat)
            self._stack = top, Below(below.layers[1:], below.image)

    def _directly_below(self, layer: bytes) -> VolumeFile:
        self._check(0, 0)
        layers = self.layers
        if not layers or layers[0].header.id != layer:
            raise ConflictError("another file lies directly below by now")
        return layers[0]

    def end_flattening(self) -> None:
        """Let go of what is below, durable on return; all of it must have been taken over."""
        self.flush()
        with self._flushing, self._changing:
            self._flush()
            top, below = self._stack
            clusters = -(-below.octets // CLUSTER_OCTETS)
            if clusters and top.own.run(0, clusters) != (True, clusters):
                raise ConflictError("something below was not taken over yet")
            self._write_header(parent=NO_ID, flat=True, flattening=False)
            self._stack = top, Below()

    @property
    def to_pull(self) -> int:
        """How many octets of the disk lie over something."""
        return self._stack[1].octets

    def close(self) -> None:
        """Flush and take the volume offline; calls under way are finished."""
        try:
            self.flush()
        finally:
            with self._changing:
                if self._state is _State.ONLINE:
                    self._state = _State.CLOSED

    def _check(self, offset: int, end: int) -> None:
        if self._state is not _State.ONLINE:
            raise OSError(errno.EIO, _OFFLINE)
        if offset < 0 or end > self.octets:
            raise OSError(errno.EINVAL, "beyond the end of the disk")

    def _check_grant(self, grant: WriteGrant) -> None:
        if grant.ended or grant.epoch < self._epoch:
            raise StaleEpochError(f"epoch {grant.epoch} is over, the volume is at {self._epoch}")

    def _flush(self) -> None:
        with self._changing:
            self._check(0, 0)
            top, _ = self._stack
            pages = top.take_changed_pages()
        with ExitStack() as undone:
            undone.callback(self._put_back, top, pages)  # whatever goes wrong, no memory too
            self._sync(top.flush)
            top.write_durable(pages)
            undone.pop_all()
        if pages:
            self._sync(top.flush)

    def _put_back(self, top: VolumeFile, pages: Mapping[int, bytes]) -> None:
        """Leave pages of the map to the next flush; where the volume is lost there is none, and the disk may hang."""
        if not self.lost:
            with self._changing:
                top.own.changed_pages.update(pages)

    def _sync(self, sync: Callable[[], None]) -> None:
        """Sync, under ``_flushing`` or ``_changing``, whichever that way of syncing has."""
        try:
            sync()
        except OSError as error:
            self._lose(error)
            raise
        if self.lost:
            raise OSError(errno.EIO, _OFFLINE)

    def _lose(self, error: OSError) -> None:
        """Answer nothing any more."""
        if self._state is not _State.LOST:
            self._state = _State.LOST
            tell_lost(self.name, error)

    def _write_header(self, **changes: object) -> None:
        top, _ = self._stack
        try:
            top.write_header(msgspec.structs.replace(top.header, **changes))
        except OSError as error:
            self._lose(error)
            raise

    def _write(self, offset: int, data: memoryview) -> None:
        top, _ = self._stack
        end = offset + len(data)
        first, limit = offset >> _CLUSTER_BITS, -(-end >> _CLUSTER_BITS)
        own, run_end = top.own.run(first, limit) if limit - first > 1 else (top.own.own(first), limit)
        if end > (stop := top.group_end(offset)):
            self._write(offset, data[: stop - offset])
            self._write(stop, data[stop - offset :])
            return
        if own and run_end == limit:
            top.write(offset, [data])
            return
        head = tail = b""
        if not own:
            head = self._part_below(first * CLUSTER_OCTETS, offset)
        if not top.own.run(limit - 1, limit)[0]:
            tail = self._part_below(end, min(limit * CLUSTER_OCTETS, self.octets))
        top.reserve_maps(first, limit)
        top.write(offset - len(head), [head, data, tail])
        top.set_own(first, limit)

    def _write_zeros(self, offset: int, end: int) -> None:
        """Write zeros within one cluster, or nothing."""
        if offset < end:
            self._write(offset, memoryview(bytes(end - offset)))

    def _zero(self, first: int, limit: int) -> None:
        top, below = self._stack
        top.zero(first, limit)
        # Beyond what is below a cluster without a bit reads as zeros already.
        top.set_own(first, min(limit, -(-below.octets // CLUSTER_OCTETS)))

    def _pull(self, first: int, limit: int, below: Below) -> int:
        """Take over clusters that are not own."""
        top, _ = self._stack
        copied, start, end = 0, first * CLUSTER_OCTETS, limit * CLUSTER_OCTETS
        top.reserve_maps(first, limit)
        top.zero(first, limit)  # what a crash left there
        for extent in below.extents(start, end):
            position = extent.start
            while position < extent.end:
                stop = min(extent.end, top.layout.group_end(position))
                at = extent.at + position - extent.start
                to = top.layout.data_at(position)
                copy_range(extent.fd, top.fd, at, at + stop - position, to, share=self.thin)
                copied += stop - position
                position = stop
        top.set_own(first, limit)
        return copied

    def _part_below(self, start: int, end: int) -> bytes:
        part = bytearray(end - start)
        self._stack[1].read(start, memoryview(part))
        return bytes(part)
