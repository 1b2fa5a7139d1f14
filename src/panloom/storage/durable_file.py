"""Files that are there whole or not at all, whatever is killed or unplugged while they are written.

    write NAME.partial → fsync it → rename → fsync the directory

Whoever finds a ``.partial`` file knows that nobody was told of it, and removes it.
"""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PARTIAL = ".partial"


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_partials(directory: Path) -> None:
    """Remove what a crash left half written."""
    for partial in directory.glob("*" + PARTIAL):
        partial.unlink()


class PartialFile:
    """An empty file to be written through ``fd``; gone when the ``with`` block ends without ``appear``."""

    def __init__(self, directory: Path, name: str, mode: int) -> None:
        self._path = directory / (name + PARTIAL)
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        os.fchmod(self.fd, mode)  # whatever the umask says

    def appear(self, name: str) -> Path:
        """Put the file, durable on return, under this name of its directory, in place of what is there."""
        os.fsync(self.fd)
        path = self._path.with_name(name)
        self._path.rename(path)
        sync_directory(path.parent)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self.fd)
        with suppress(OSError):  # it has appeared, or the next start removes it
            self._path.unlink()
