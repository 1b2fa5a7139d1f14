"""Images: read-only golden disks, each one file whose name carries its version and its content.

    images/web@1.6b86b273…ff2e32b6      mode 0400; the part after the last dot is the SHA-256

One rename makes content and digest appear together, so an import that was torn has no name and is never used.
"""

import os
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from panloom.disk_io import Directory, PartialFile, close_file, copy_file, open_file, sha256, status
from panloom.errors import ConfigError, ConflictError, UnavailableError

IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}@[1-9][0-9]{0,9}")
_FILE_NAME = re.compile(rf"({IMAGE_NAME.pattern})\.([0-9a-f]{{64}})")


class Image:
    """An open image."""

    def __init__(self, path: Path, name: str, sha256: bytes) -> None:
        self.path = path
        self.name = name
        self.sha256 = sha256
        self.fd = open_file(path, os.O_RDONLY)
        weakref.finalize(self, close_file, self.fd)  # volumes that are still being read hold the image
        self.octets = status(self.fd).st_size

    @classmethod
    def from_file(cls, path: Path) -> Self | None:
        """Open an image file; None if its name is not that of an image."""
        match = _FILE_NAME.fullmatch(path.name)
        return cls(path, match[1], bytes.fromhex(match[2])) if match else None


class ImageStore:
    """The directory of images.  Not for several threads at once: the volume store holds its lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = Directory(directory)
        found = (Image.from_file(directory / name) for name in self._directory.names())
        self._images = {image.name: image for image in found if image}

    def all(self) -> tuple[Image, ...]:
        """Return all images, sorted by name."""
        return tuple(image for _, image in sorted(self._images.items()))

    def get(self, name: str) -> Image:
        """Return an image; UnavailableError if it was never imported."""
        try:
            return self._images[name]
        except KeyError:
            raise UnavailableError(f"there is no image {name}; import it first") from None

    def import_file(self, name: str, source: Path) -> Image:
        """Copy a file in, durable on return; reads all of it.

        The same content again changes nothing; ConflictError for other content under a name that is taken, ConfigError
        if the name or the source cannot be one of an image.
        """
        if not IMAGE_NAME.fullmatch(name):
            raise ConfigError("image", f"{name!r} is no image name; write one like web@1")
        with _opened(source) as file:
            known = self._images.get(name)
            if known:
                if status(file).st_size != known.octets or sha256(file) != known.sha256:
                    raise ConflictError(f"image {name} exists with other content; give the new one a new version")
                return known
            path = self._copy(name, file)
        image = Image.from_file(path)
        if image is None:
            raise UnavailableError(f"{path} vanished")
        self._images[name] = image
        return image

    def _copy(self, name: str, source: int) -> Path:
        with PartialFile(self._directory, name, 0o400) as file:
            copy_file(source, file.fd)
            return file.appear(f"{name}.{sha256(file.fd).hex()}")


@contextmanager
def _opened(source: Path) -> Iterator[int]:
    try:
        fd = open_file(source, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(str(source), f"cannot be read as an image: {error.strerror}") from error
    try:
        known = status(fd)
        if not stat.S_ISREG(known.st_mode) or known.st_size == 0:
            raise ConfigError(str(source), "an image is a regular file that is not empty")
        yield fd
    finally:
        close_file(fd)
