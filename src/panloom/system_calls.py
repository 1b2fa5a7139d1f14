"""The system calls that are made on files: a table, so that it can be recorded, made to fail, and proved.

volumes, images, exports.json ─┐                              ┌─ the kernel
copies of the state store     ─┼─▶ durable_names ┐            ├─ a recorder: what may a power cut leave?
locks                         ─┴─────────────────┴▶ disk_io ─▶┴─ a fault injector: EIO, ENOSPC, short writes
"""

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


kernel = SystemCalls()
"""The kernel, or whatever stands in for it just now; to be looked up for each call."""


@contextmanager
def instead_of_the_kernel(calls: SystemCalls) -> Iterator[None]:
    """Have ``calls`` made in place of the kernel's, by all threads, until the ``with`` block ends."""
    global kernel
    before, kernel = kernel, calls
    try:
        yield
    finally:
        kernel = before
