"""All that Panloom does to the files in which it keeps volumes, images, exports and state: one module, so that it can
be recorded, made to fail, and proved.

    volumes, images, exports.json ─┐                      ┌─ the kernel
    copies of the state store     ─┼─▶ disk_io ─▶ _system ┼─ a recorder: what may a power cut leave?
    locks                         ─┘                      └─ a fault injector: EIO, ENOSPC, short writes

What must be there whole or not at all is a ``PartialFile``:

    write NAME.partial → fsync it → rename → fsync the directory

Whoever finds a ``.partial`` file knows that nobody was told of it, and removes it.

Errors are the kernel's own ``OSError``; a file that is shorter than it must be is ``EIO``.  When a sync fails, the
kernel forgets what it could not write: no later sync of that file or directory proves anything.  A ``Directory`` sees
to that itself; who owns a file never syncs it again.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PARTIAL = ".partial"
PIECE_OCTETS = 1 << 26
_FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file
_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h: FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
_ZERO_RANGE = 0x01 | 0x10  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _punch_hole(fd: int, offset: int, length: int) -> None:
    _fallocate(fd, _PUNCH_HOLE, offset, length)


def _zero_blocks(fd: int, offset: int, length: int) -> None:
    _fallocate(fd, _ZERO_RANGE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _preadv_now(fd: int, views: Sequence[memoryview], offset: int) -> int:
    return os.preadv(fd, views, offset, os.RWF_NOWAIT)


def _reflink(target: int, source: int) -> None:
    fcntl.ioctl(target, _FICLONE, source)


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """Every system call that is made on a file, by the kernel's name and in its order of arguments."""

    open: Callable[[Path, int, int], int] = os.open
    close: Callable[[int], None] = os.close
    fstat: Callable[[int], os.stat_result] = os.fstat
    lseek: Callable[[int, int, int], int] = os.lseek
    flock: Callable[[int, int], None] = fcntl.flock
    preadv: Callable[[int, Sequence[memoryview], int], int] = os.preadv
    preadv_now: Callable[[int, Sequence[memoryview], int], int] = _preadv_now
    pwritev: Callable[[int, Sequence[bytes | memoryview], int, int], int] = os.pwritev
    fdatasync: Callable[[int], None] = os.fdatasync
    fsync: Callable[[int], None] = os.fsync
    ftruncate: Callable[[int, int], None] = os.ftruncate
    posix_fallocate: Callable[[int, int, int], None] = os.posix_fallocate
    posix_fadvise: Callable[[int, int, int, int], None] = os.posix_fadvise
    punch_hole: Callable[[int, int, int], None] = _punch_hole
    zero_blocks: Callable[[int, int, int], None] = _zero_blocks
    copy_file_range: Callable[[int, int, int, int, int], int] = os.copy_file_range
    sendfile: Callable[[int, int, int, int], int] = os.sendfile
    reflink: Callable[[int, int], None] = _reflink
    fchmod: Callable[[int, int], None] = os.fchmod
    mkdir: Callable[[Path, int], None] = os.mkdir
    listdir: Callable[[Path], list[str]] = os.listdir
    stat: Callable[[Path], os.stat_result] = os.stat
    link: Callable[[Path, Path], None] = os.link
    rename: Callable[[Path, Path], None] = os.rename
    unlink: Callable[[Path], None] = os.unlink


_system = SystemCalls()


class SyncError(OSError):
    """A sync failed: what was written may be lost, and no later sync of the same file tells."""


@contextmanager
def _believed_once() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SyncError(error.errno, error.strerror) from error


@contextmanager
def instead_of_the_kernel(calls: SystemCalls) -> Iterator[None]:
    """Have ``calls`` made in place of the kernel's, by all threads, until the ``with`` block ends."""
    global _system
    before, _system = _system, calls
    try:
        yield
    finally:
        _system = before


# --- open files -------------------------------------------------------------------------------------------------------


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor that programs we start do not inherit."""
    return _system.open(path, flags | os.O_CLOEXEC, mode)


def close_file(fd: int) -> None:
    """Close a descriptor.  What fails now costs nothing: whatever must be on the disk was synced before."""
    try:
        _system.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise


def take_lock(path: Path) -> int:
    """Return a descriptor that holds a lock until it is closed; BlockingIOError if another process has it."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        _system.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        close_file(fd)
        raise
    return fd


def lock_file(fd: int, *, exclusive: bool) -> None:
    """Take a lock that lasts as long as the descriptor; BlockingIOError if another process has it."""
    _system.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def unlock_file(fd: int) -> None:
    """Give the lock back."""
    _system.flock(fd, fcntl.LOCK_UN)


def status(fd: int) -> os.stat_result:
    """Return what the kernel knows of an open file."""
    return _system.fstat(fd)


def read_fully(fd: int, into: memoryview, offset: int) -> None:
    """Fill ``into`` from the file; EIO where the file ends first."""
    while (count := _system.preadv(fd, [into], offset)) != len(into):
        if count == 0:
            raise OSError(errno.EIO, "the file is shorter than it must be")
        into = into[count:]
        offset += count


def read_cached(fd: int, into: memoryview, offset: int) -> bool:
    """Fill ``into`` if that needs no waiting for the disk, and return whether it did; EIO as for ``read_fully``."""
    try:
        return _system.preadv_now(fd, [into], offset) == len(into)
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
        _system.preadv_now(fd, [memoryview(bytearray(1))], 0)
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
    while done < length and (count := _system.preadv(fd, [view[done:]], offset + done)):
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
    count = _system.pwritev(fd, (octets,), offset, 0)
    if count != len(octets):
        _write_rest(fd, (octets,), offset, count, 0)


def write_through(fd: int, octets: bytes, offset: int) -> None:
    """Write, and return when just this is on the disk; SyncError, which may be that of an older write."""
    with _believed_once():
        _write(fd, [octets], offset, os.RWF_DSYNC)


def _write(fd: int, parts: Sequence[bytes | memoryview], offset: int, flags: int) -> None:
    count = _system.pwritev(fd, parts, offset, flags)
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
        count = _system.pwritev(fd, views, offset, flags)


def names_in(path: Path) -> tuple[str, ...]:
    """Return what a directory of somebody's holds, sorted."""
    return tuple(sorted(_system.listdir(path)))


def status_of(path: Path) -> os.stat_result:
    """Return what the kernel knows of a file, opened or not."""
    return _system.stat(path)


def sync_file(path: Path) -> None:
    """Return when the file that another descriptor writes to is on the disk; SyncError if that failed."""
    fd = open_file(path, os.O_RDONLY)
    try:
        with _believed_once():
            _system.fsync(fd)
    finally:
        close_file(fd)


def sync_data(fd: int) -> None:
    """Return when all that was written to the file, and its size, is on the disk; SyncError if that failed."""
    with _believed_once():
        _system.fdatasync(fd)


def end_of(fd: int) -> int:
    """Return where a file ends, or a block device."""
    return _system.lseek(fd, 0, os.SEEK_END)


def drop_cached(fd: int) -> None:
    """Have the kernel forget the pages that it holds clean: what is read next is what the disk has."""
    _system.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def set_size(fd: int, octets: int) -> None:
    """Cut the file off, or let it end in a hole."""
    _system.ftruncate(fd, octets)


def reserve(fd: int, offset: int, length: int) -> None:
    """Take space on the disk for this range, so that writing there cannot fail for lack of it."""
    _system.posix_fallocate(fd, offset, length)


# --- holes and copies -------------------------------------------------------------------------------------------------


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the parts of ``start … end`` that are no holes; outside of them the file reads as zeros."""
    while start < end:
        try:
            start = _system.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= end:
            return
        hole = min(_system.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, hole
        start = hole


def zero_range(fd: int, offset: int, length: int, *, keep: bool = False) -> None:
    """Make the range read as zeros; give its blocks back, or ``keep`` them; where the system cannot, write zeros."""
    if length == 0:
        return
    try:
        (_system.zero_blocks if keep else _system.punch_hole)(fd, offset, length)
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
        _system.reflink(target, source)
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
    _system.lseek(target, start, os.SEEK_SET)
    while start < end:
        count = _system.sendfile(target, source, start, min(end - start, PIECE_OCTETS))
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
        return _system.copy_file_range(source, target, length, start, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return 0


def sha256(fd: int) -> bytes:
    """Return the digest of all of a file."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(1 << 20))
    offset = 0
    while count := _system.preadv(fd, [piece], offset):
        digest.update(piece[:count])
        offset += count
    return digest.digest()


# --- names ------------------------------------------------------------------------------------------------------------


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durable on return; nothing happens if they are there and durable."""
    above = path.absolute().parents
    for each in (*reversed(above), path):
        with suppress(FileExistsError):
            _system.mkdir(each, 0o700)
    device = _system.stat(path).st_dev
    for each in above:  # an earlier process may have made one of them, and been killed
        if _system.stat(each).st_dev != device:  # what is mounted has its place already
            break
        with suppress(PermissionError), _opened_directory(each) as fd:
            _system.fsync(fd)


class Directory:
    """A directory of ours: made if absent, rid of what was left half written, durable with all its names.

    A name that was changed counts for nothing until the directory was synced: whoever asks for it waits for that, or
    is refused.  After a failed ``sync`` every further one fails.
    """

    def __init__(self, path: Path) -> None:
        make_directory(path)
        self.path = path
        self._failed = False
        self._changed: set[str] = set()  # names since the last sync
        self._changing = threading.RLock()
        for name in _system.listdir(path):
            if name.endswith(PARTIAL):
                _system.unlink(path / name)
        self.sync()

    def names(self) -> tuple[str, ...]:
        """Return what is in it, sorted, and durable."""
        if self._changed:
            self.sync()
        return tuple(sorted(_system.listdir(self.path)))

    def holds(self, name: str) -> bool:
        """Return whether there is a file of this name; so it stays, unless an earlier process changed it."""
        if name in self._changed:
            self.sync()
        try:
            _system.stat(self.path / name)
        except FileNotFoundError:
            return False
        return True

    def inode(self, name: str) -> int:
        """Return the number of the file of a name, 0 without one; durable or not, it waits for nothing."""
        try:
            return _system.stat(self.path / name).st_ino
        except FileNotFoundError:
            return 0

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; durable on return."""
        with self._change(name), suppress(FileNotFoundError):
            _system.unlink(self.path / name)

    def link(self, name: str, other: str) -> None:
        """Give a file a second name, durable on return; FileExistsError if that is taken."""
        with self._change(other):
            _system.link(self.path / name, self.path / other)

    def move(self, name: str, other: str) -> None:
        """Give a file another name, durable on return."""
        with self._change(name, other):
            _system.rename(self.path / name, self.path / other)

    def sync(self) -> None:
        """Make the names durable; EIO if that failed before, since the kernel then forgot which ones it lost."""
        with self._changing:
            if self._failed:
                raise OSError(errno.EIO, f"an earlier sync of {self.path} failed; mend its disk and restart")
            with _opened_directory(self.path) as fd:  # if it cannot even be opened, nothing is lost
                try:
                    _system.fsync(fd)
                except OSError:
                    self._failed = True
                    raise
            self._changed.clear()

    def appears(self, partial: Path, name: str) -> Path:
        """Put a file that is whole under its name; durable on return."""
        path = self.path / name
        with self._change(name):
            _system.rename(partial, path)
        return path

    @contextmanager
    def _change(self, *names: str) -> Iterator[None]:
        with self._changing:
            self._changed.update(names)
            yield
            self.sync()


class PartialFile:
    """An empty file, written through ``fd`` or by ``path``; gone when the ``with`` block ends without ``appear``."""

    def __init__(self, directory: Directory, name: str, mode: int) -> None:
        self._directory = directory
        self.path = directory.path / (name + PARTIAL)
        with suppress(FileNotFoundError):
            _system.unlink(self.path)
        self.fd = open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        _system.fchmod(self.fd, mode)  # whatever the umask says

    def appear(self, name: str) -> Path:
        """Put the file, durable on return, under this name of its directory, in place of what is there."""
        _system.fsync(self.fd)
        return self._directory.appears(self.path, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close_file(self.fd)
        with suppress(OSError):  # it has appeared, or the next start removes it
            _system.unlink(self.path)


@contextmanager
def _opened_directory(path: Path) -> Iterator[int]:
    fd = open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        close_file(fd)
