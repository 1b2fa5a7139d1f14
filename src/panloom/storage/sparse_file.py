"""What the kernel can do with files and Python's ``os`` cannot: holes, reflinks, reads and writes that are whole.

Errors are the kernel's own ``OSError``; a file that is shorter than it must be is ``EIO``.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file
FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h
COPY_OCTETS = 1 << 26

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def read_fully(fd: int, into: memoryview, offset: int) -> None:
    """Fill ``into`` from the file; EIO where the file ends first."""
    while into:
        count = os.preadv(fd, [into], offset)
        if count == 0:
            raise OSError(errno.EIO, "the file is shorter than it must be")
        into = into[count:]
        offset += count


def write_fully(fd: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    """Write the parts one after the other; on an error some of them may have been written."""
    views = [memoryview(part) for part in parts]
    count = os.pwritev(fd, views, offset)
    while True:
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if not views:
            return
        views[0] = views[0][count:]
        count = os.pwritev(fd, views, offset)


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the parts of ``start … end`` that are no holes; outside of them the file reads as zeros."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= end:
            return
        hole = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, hole
        start = hole


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make the range read as zeros and give its blocks back, where the file system can; else write zeros."""
    if length == 0:
        return
    if _libc.fallocate(fd, FALLOC_FL_KEEP_SIZE_PUNCH_HOLE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(code, os.strerror(code))
    zeros = bytes(min(length, COPY_OCTETS))
    for position in range(offset, offset + length, len(zeros)):
        write_fully(fd, [zeros[: offset + length - position]], position)


def copy_file(source: int, target: int) -> None:
    """Make the empty file ``target`` equal to ``source``: by reflink where possible, else copied, holes kept."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:  # the file system has no reflinks, or these are two file systems
        octets = os.fstat(source).st_size
        os.ftruncate(target, octets)
        for start, end in data_extents(source, 0, octets):
            _copy_range(source, target, start, end)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    os.lseek(target, start, os.SEEK_SET)
    while start < end:
        count = os.sendfile(target, source, start, min(end - start, COPY_OCTETS))
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += count
