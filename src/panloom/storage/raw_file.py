"""A raw file of somebody's as a disk: its octets are the disk's, as qemu-img and dd know it.

After a failed fdatasync the kernel has forgotten which pages it lost: from then on everything fails with EIO, and no
later sync is believed.
"""

import errno
import hashlib
import logging
import os
import stat
import threading
from pathlib import Path

from panloom.disk_io import (
    SyncError,
    close_file,
    open_file,
    read_fully,
    status,
    sync_data,
    write_octets,
    zero_range,
)
from panloom.errors import ConfigError
from panloom.storage.frame import StaleEpochError

BLOCK_OCTETS = 512
_MACHINE = Path("/etc/machine-id")

log = logging.getLogger(__name__)


class Writer:
    """The right of one session to write, until ``end``."""

    def __init__(self, *, read_only: bool) -> None:
        self.writing = threading.Lock()
        self.read_only = read_only
        self.ended = False

    def end(self) -> None:
        """Take the right back; on return no write of the session is under way, and none will ever be."""
        with self.writing:
            self.ended = True


class RawFile:
    """An open file; all who use it share it.  Offsets and lengths are octets."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Open; ConfigError says what is wrong with the file and how to mend it."""
        self.path = path
        try:
            self._fd = open_file(path, os.O_RDONLY if read_only else os.O_RDWR)
        except FileNotFoundError:
            raise ConfigError(str(path), f"there is no such file; make one: truncate -s 1G {path}") from None
        except PermissionError:
            mend = "let us read it" if read_only else "let us write it, or add ,ro"
            raise ConfigError(str(path), f"may not be opened; {mend}") from None
        except OSError as error:
            mend = "; name a file" if error.errno == errno.EISDIR else ", or add ,ro" * (error.errno == errno.EROFS)
            raise ConfigError(str(path), f"cannot be opened: {error.strerror}{mend}") from error
        try:
            self.octets = _checked_size(path, status(self._fd))
        except ConfigError:
            close_file(self._fd)
            raise
        self.identity = _identity(path)
        self._lost = False

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the view; OSError."""
        self._check()
        read_fully(self._fd, into, offset)

    def write(self, writer: Writer, offset: int, data: memoryview) -> None:
        """Write; kept by the kernel on return, by the disk after ``flush``.  StaleEpochError after ``Writer.end``."""
        with writer.writing:
            self._check(writer)
            write_octets(self._fd, data, offset)

    def unmap(self, writer: Writer, offset: int, length: int) -> None:
        """Make the range read as zeros and give its space back; errors as for ``write``."""
        with writer.writing:
            self._check(writer)
            zero_range(self._fd, offset, length)

    def flush(self) -> None:
        """Return when all writes that returned before are on the disk; OSError, and then offline, if that failed."""
        self._check()
        try:
            sync_data(self._fd)
        except SyncError as error:
            self._lost = True
            log.error("device=%s offline=yes why=%r", self.path, f"a sync failed: {error.strerror}")  # noqa: TRY400
            raise
        self._check()

    def close(self) -> None:
        """Flush and close; OSError if what was written may be lost."""
        try:
            self.flush()
        finally:
            close_file(self._fd)

    def _check(self, writer: Writer | None = None) -> None:
        if self._lost:
            raise OSError(errno.EIO, "a sync failed; check the disk, then start again")
        if writer is not None and writer.ended:
            raise StaleEpochError("the session is over")
        if writer is not None and writer.read_only:
            raise OSError(errno.EROFS, "this unit is read-only")


def _checked_size(path: Path, found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(str(path), "is no file; name one")
    if found.st_size == 0:
        raise ConfigError(str(path), f"is empty; give it a size: truncate -s 1G {path}")
    if found.st_size % BLOCK_OCTETS:
        more = -(-found.st_size // BLOCK_OCTETS) * BLOCK_OCTETS
        raise ConfigError(
            str(path),
            f"has {found.st_size} octets, not a whole number of blocks of {BLOCK_OCTETS}; "
            f"fill the last one up: truncate -s {more} {path}",
        )
    return found.st_size


def _identity(path: Path) -> bytes:
    """Return an NAA 3 designator: the same for a path of this machine whoever serves it (SPC-4 r37 7.8.6.6.4)."""
    machine = _MACHINE.read_text() if _MACHINE.exists() else os.uname().nodename
    digest = hashlib.sha256(f"{machine.strip()} {path.resolve()}".encode(errors="surrogateescape")).digest()
    return bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]
