"""All that Panloom does to an open file in which it keeps volumes, images, exports and state.

Each call that reads or changes a file goes through the table of ``system_calls``; what makes names durable is in
``durable_names``.

Errors are the kernel's own ``OSError``; a file that is shorter than it must be is ``EIO``.  When a sync fails, the
kernel forgets what it could not write: no later sync of that file proves anything.  Who owns it never syncs it again.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from panloom import system_calls

PIECE_OCTETS = 1 << 26


class SyncError(OSError):
    """A sync failed: what was written may be lost, and no later sync of the same file tells."""


@contextmanager
def _believed_once() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SyncError(error.errno, error.strerror) from error


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor that programs we start do not inherit."""
    return system_calls.kernel.open(path, flags | os.O_CLOEXEC, mode)


def close_file(fd: int) -> None:
    """Close a descriptor.  What fails now costs nothing: whatever must be on the disk was synced before."""
    try:
        system_calls.kernel.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise


def take_lock(path: Path) -> int:
    """Return a descriptor that holds a lock until it is closed; BlockingIOError if another process has it."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    with ExitStack() as opened:
        opened.callback(close_file, fd)
        lock_file(fd, exclusive=True)
        opened.pop_all()
    return fd


def lock_file(fd: int, *, exclusive: bool) -> None:
    """Take a lock that lasts as long as the descriptor; BlockingIOError if another process has it."""
    system_calls.kernel.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def unlock_file(fd: int) -> None:
    """Give the lock back."""
    system_calls.kernel.flock(fd, fcntl.LOCK_UN)


def status(fd: int) -> os.stat_result:
    """Return what the kernel knows of an open file."""
    return system_calls.kernel.fstat(fd)


def read_fully(fd: int, into: memoryview, offset: int) -> None:
    """Fill ``into`` from the file; EIO where the file ends first."""
    while (count := system_calls.kernel.preadv(fd, [into], offset)) != len(into):
        if count == 0:
            raise OSError(errno.EIO, "the file is shorter than it must be")
        into = into[count:]
        offset += count


def read_cached(fd: int, into: memoryview, offset: int) -> bool:
    """Fill ``into`` if that needs no waiting for the disk, and return whether it did; EIO as for ``read_fully``."""
    try:
        return system_calls.kernel.preadv_now(fd, [into], offset) == len(into)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    read_fully(fd, into, offset)  # tmpfs, which waits for nothing; of others see ``tells_what_waits``
    return True


def tells_what_waits(fd: int) -> bool:
    """Whether ``read_cached`` can be believed: those of network file systems and FUSE wait without a word."""
    try:
        system_calls.kernel.preadv_now(fd, [memoryview(bytearray(1))], 0)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP or _is_in_memory(fd)
    return True


def _is_in_memory(fd: int) -> bool:
    device = status(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())  # proc(5)
    kinds = [mount[mount.index("-") + 1] for mount in mounts if mount[2] == wanted]
    return not kinds or kinds[0] in ("tmpfs", "ramfs", "hugetlbfs")  # memfd_create(2) needs no mount


def fill_cached(fd: int, into: memoryview, offset: int) -> None:
    """Fill ``into`` without waiting for the disk; BlockingIOError where that cannot be, EIO as for ``read_fully``."""
    if not read_cached(fd, into, offset):
        raise BlockingIOError(errno.EAGAIN, "the disk would have to be waited for")


def read_octets(fd: int, length: int, offset: int) -> bytes:
    """Return ``length`` octets of the file, fewer only where it ends."""
    octets = bytearray(length)
    view = memoryview(octets)
    done = 0
    while done < length and (count := system_calls.kernel.preadv(fd, [view[done:]], offset + done)):
        done += count
    return bytes(octets[:done])


def read_file(path: Path) -> bytes:
    """Return all of a file."""
    fd = open_file(path, os.O_RDONLY)
    try:
        return read_octets(fd, status(fd).st_size, 0)
    finally:
        close_file(fd)


def write_fully(fd: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    """Write the parts one after the other; on an error some of them may have been written."""
    _write(fd, parts, offset, 0)


def write_octets(fd: int, octets: bytes | memoryview, offset: int) -> None:
    """Write one part, which is quicker; on an error some of it may have been written."""
    count = system_calls.kernel.pwritev(fd, (octets,), offset, 0)
    if count != len(octets):
        _write_rest(fd, (octets,), offset, count, 0)


def write_through(fd: int, octets: bytes, offset: int) -> None:
    """Write, and return when just this is on the disk; SyncError, which may be that of an older write."""
    with _believed_once():
        _write(fd, [octets], offset, os.RWF_DSYNC)


def _write(fd: int, parts: Sequence[bytes | memoryview], offset: int, flags: int) -> None:
    count = system_calls.kernel.pwritev(fd, parts, offset, flags)
    if count != sum(map(len, parts)):
        _write_rest(fd, parts, offset, count, flags)


def _write_rest(fd: int, parts: Sequence[bytes | memoryview], offset: int, count: int, flags: int) -> None:
    """Go on after a write that ``count`` octets of came to the disk."""
    views = [memoryview(part) for part in parts if len(part)]
    while True:
        if count == 0:
            raise OSError(errno.EIO, "the disk takes nothing and does not say why")
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if not views:
            return
        views[0] = views[0][count:]
        count = system_calls.kernel.pwritev(fd, views, offset, flags)


def names_in(path: Path) -> tuple[str, ...]:
    """Return what a directory of somebody's holds, sorted."""
    return tuple(sorted(system_calls.kernel.listdir(path)))


def status_of(path: Path) -> os.stat_result:
    """Return what the kernel knows of a file, opened or not."""
    return system_calls.kernel.stat(path)


def sync_file(path: Path) -> None:
    """Return when the file that another descriptor writes to is on the disk; SyncError if that failed."""
    fd = open_file(path, os.O_RDONLY)
    try:
        with _believed_once():
            system_calls.kernel.fsync(fd)
    finally:
        close_file(fd)


def sync_data(fd: int) -> None:
    """Return when all that was written to the file, and its size, is on the disk; SyncError if that failed."""
    with _believed_once():
        system_calls.kernel.fdatasync(fd)


def end_of(fd: int) -> int:
    """Return where a file ends, or a block device."""
    return system_calls.kernel.lseek(fd, 0, os.SEEK_END)


def drop_cached(fd: int) -> None:
    """Have the kernel forget the pages that it holds clean: what is read next is what the disk has."""
    system_calls.kernel.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def set_size(fd: int, octets: int) -> None:
    """Cut the file off, or let it end in a hole."""
    system_calls.kernel.ftruncate(fd, octets)


def reserve(fd: int, offset: int, length: int) -> None:
    """Take space on the disk for this range, so that writing there cannot fail for lack of it."""
    system_calls.kernel.posix_fallocate(fd, offset, length)


# --- holes and copies -------------------------------------------------------------------------------------------------


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the parts of ``start … end`` that are no holes; outside of them the file reads as zeros."""
    while start < end:
        try:
            start = system_calls.kernel.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= end:
            return
        hole = min(system_calls.kernel.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, hole
        start = hole


def zero_range(fd: int, offset: int, length: int, *, keep: bool = False) -> None:
    """Make the range read as zeros; give its blocks back, or ``keep`` them; where the system cannot, write zeros."""
    if length == 0:
        return
    try:
        (system_calls.kernel.zero_blocks if keep else system_calls.kernel.punch_hole)(fd, offset, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        zeros = bytes(min(length, PIECE_OCTETS))
        for position in range(offset, offset + length, len(zeros)):
            write_fully(fd, [zeros[: offset + length - position]], position)


def copy_file(source: int, target: int) -> None:
    """Make the empty file ``target`` equal to ``source``: by reflink where possible, else copied, holes kept.

    OSError before anything is written if it does not fit: others live on the same disk.
    """
    try:
        system_calls.kernel.reflink(target, source)
    except OSError:  # the file system has no reflinks, or these are two file systems
        octets = status(source).st_size
        extents = list(data_extents(source, 0, octets))
        needed, there = sum(end - start for start, end in extents), os.fstatvfs(target)
        free = there.f_bavail * there.f_frsize
        if needed > free:
            why = f"No space left on device: {needed >> 20} MiB are needed and {free >> 20} MiB are free"
            raise OSError(errno.ENOSPC, why) from None
        set_size(target, octets)
        for start, end in extents:
            _copy_range(source, target, start, end)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    system_calls.kernel.lseek(target, start, os.SEEK_SET)
    while start < end:
        count = system_calls.kernel.sendfile(target, source, start, min(end - start, PIECE_OCTETS))
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += count


def copy_range(source: int, target: int, start: int, end: int, at: int, *, share: bool = True) -> None:
    """Copy ``start … end`` to ``at`` in another file.

    ``share``: the two share the blocks where the file system can do that, and then overwriting one takes new space.
    """
    while start < end:
        count = _copy_some(source, target, end - start, start, at) if share else 0
        if count == 0:
            piece = read_octets(source, min(end - start, 1 << 20), start)
            write_fully(target, [piece], at)
            count = len(piece)
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += count
        at += count


def _copy_some(source: int, target: int, length: int, start: int, at: int) -> int:
    """Have the kernel copy, or share; return how many octets, 0 where it cannot between these two."""
    try:
        return system_calls.kernel.copy_file_range(source, target, length, start, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return 0


def sha256(fd: int) -> bytes:
    """Return the digest of all of a file."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(1 << 20))
    offset = 0
    while count := system_calls.kernel.preadv(fd, [piece], offset):
        digest.update(piece[:count])
        offset += count
    return digest.digest()
