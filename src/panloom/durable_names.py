"""Names of files that are there after a power cut, with files that are there whole or not at all.

What must be whole is a ``PartialFile``:

    write NAME.partial → fsync it → rename → fsync the directory

Whoever finds a ``.partial`` file knows that nobody was told of it, and removes it.

Errors are the kernel's own ``OSError``.  When a sync fails, the kernel forgets what it could not write, and no later
one proves anything: a ``Directory`` sees to that itself.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from panloom import system_calls
from panloom.disk_io import close_file, open_file

PARTIAL = ".partial"


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durable on return; nothing happens if they are there and durable."""
    above = path.absolute().parents
    for each in (*reversed(above), path):
        with suppress(FileExistsError):
            system_calls.kernel.mkdir(each, 0o700)
    device = system_calls.kernel.stat(path).st_dev
    for each in above:  # an earlier process may have made one of them, and been killed
        if system_calls.kernel.stat(each).st_dev != device:  # what is mounted has its place already
            break
        with suppress(PermissionError), _opened_directory(each) as fd:
            system_calls.kernel.fsync(fd)


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
        for name in system_calls.kernel.listdir(path):
            if name.endswith(PARTIAL):
                system_calls.kernel.unlink(path / name)
        self.sync()

    def names(self) -> tuple[str, ...]:
        """Return what is in it, sorted, and durable."""
        if self._changed:
            self.sync()
        return tuple(sorted(system_calls.kernel.listdir(self.path)))

    def holds(self, name: str) -> bool:
        """Return whether there is a file of this name; so it stays, unless an earlier process changed it."""
        if name in self._changed:
            self.sync()
        try:
            system_calls.kernel.stat(self.path / name)
        except FileNotFoundError:
            return False
        return True

    def inode(self, name: str) -> int:
        """Return the number of the file of a name, 0 without one; durable or not, it waits for nothing."""
        try:
            return system_calls.kernel.stat(self.path / name).st_ino
        except FileNotFoundError:
            return 0

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; durable on return."""
        with self._change(name), suppress(FileNotFoundError):
            system_calls.kernel.unlink(self.path / name)

    def link(self, name: str, other: str) -> None:
        """Give a file a second name, durable on return; FileExistsError if that is taken."""
        with self._change(other):
            system_calls.kernel.link(self.path / name, self.path / other)

    def move(self, name: str, other: str) -> None:
        """Give a file another name, durable on return."""
        with self._change(name, other):
            system_calls.kernel.rename(self.path / name, self.path / other)

    def sync(self) -> None:
        """Make the names durable; EIO if that failed before, since the kernel then forgot which ones it lost."""
        with self._changing:
            if self._failed:
                raise OSError(errno.EIO, f"an earlier sync of {self.path} failed; mend its disk and restart")
            with _opened_directory(self.path) as fd:  # if it cannot even be opened, nothing is lost
                try:
                    system_calls.kernel.fsync(fd)
                except OSError:
                    self._failed = True
                    raise
            self._changed.clear()

    def appears(self, partial: Path, name: str) -> Path:
        """Put a file that is whole under its name; durable on return."""
        path = self.path / name
        with self._change(name):
            system_calls.kernel.rename(partial, path)
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
            system_calls.kernel.unlink(self.path)
        self.fd = open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        system_calls.kernel.fchmod(self.fd, mode)  # whatever the umask says

    def appear(self, name: str) -> Path:
        """Put the file, durable on return, under this name of its directory, in place of what is there."""
        system_calls.kernel.fsync(self.fd)
        return self._directory.appears(self.path, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close_file(self.fd)
        with suppress(OSError):  # it has appeared, or the next start removes it
            system_calls.kernel.unlink(self.path)


@contextmanager
def _opened_directory(path: Path) -> Iterator[int]:
    fd = open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        close_file(fd)
