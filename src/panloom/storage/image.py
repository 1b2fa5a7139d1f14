"""Images: read-only golden disks, each one file whose name carries its version and its content.

    images/web@1.6b86b273…ff2e32b6      mode 0400; the part after the last dot is the SHA-256

One rename makes content and digest appear together, so an import that was torn has no name and is never used.  One that
failed after its rename counts: the next import of that name finds it, and a start does.
"""

import logging
import os
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from panloom.disk_io import close_file, copy_file, open_file, sha256, status
from panloom.durable_names import Directory, PartialFile
from panloom.errors import ConfigError, ConflictError, UnavailableError

IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}@[1-9][0-9]{0,9}")
_FILE_NAME = re.compile(rf"({IMAGE_NAME.pattern})\.([0-9a-f]{{64}})")

log = logging.getLogger(__name__)


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
        self._images = self._on_disk("")
        for name, images in self._images.items():
            if len(images) > 1:
                log.warning("image=%s ready=no why=%r", name, self._ambiguous(images))

    def all(self) -> tuple[Image, ...]:
        """Return all images, sorted by name."""
        return tuple(image for _, images in sorted(self._images.items()) for image in images)

    def get(self, name: str, sha256: bytes | None = None) -> Image:
        """Return an image; UnavailableError if it was never imported, or several have the name and not one the digest.

        No import makes several: files were copied here.
        """
        images = self._images.get(name, ())
        found = tuple(image for image in images if image.sha256 == sha256) or images
        if not found:
            raise UnavailableError(f"there is no image {name}; import it first")
        if len(found) > 1:
            raise UnavailableError(self._ambiguous(found))
        return found[0]

    def import_file(self, name: str, source: Path) -> Image:
        """Copy a file in, durable on return; reads all of it.

        The same content again changes nothing; ConflictError for other content under a name that is taken, ConfigError
        if the name or the source cannot be one of an image.
        """
        if not IMAGE_NAME.fullmatch(name):
            raise ConfigError("image", f"{name!r} is no image name; write one like web@1")
        with _opened(source) as file:
            if name not in self._images:
                self._images.update(self._on_disk(f"{name}."))
            if name in self._images:
                known = self.get(name)
                if status(file).st_size != known.octets or sha256(file) != known.sha256:
                    raise ConflictError(f"image {name} exists with other content; give the new one a new version")
                return known
            self._copy(name, file)
        self._images.update(self._on_disk(f"{name}."))
        return self.get(name)

    def delete(self, name: str) -> None:
        """Remove an image, durable on return; nothing happens if there is none.  The caller knows that nobody reads it.

        Those of one name that are several go together.
        """
        for image in self._images.get(name, ()):
            self._directory.remove(image.path.name)
        self._images.pop(name, None)

    def _on_disk(self, beginning: str) -> dict[str, tuple[Image, ...]]:
        """Return the images whose files' names begin like this, by name."""
        found: dict[str, tuple[Image, ...]] = {}
        for file_name in self._directory.names():
            image = Image.from_file(self._directory.path / file_name) if file_name.startswith(beginning) else None
            if image:
                found[image.name] = (*found.get(image.name, ()), image)
        return found

    def _ambiguous(self, images: tuple[Image, ...]) -> str:
        digests = " and ".join(image.sha256.hex() for image in images)
        where = self._directory.path
        return f"there are several images {images[0].name}, {digests}; remove the wrong ones from {where}, then restart"

    def _copy(self, name: str, source: int) -> None:
        with PartialFile(self._directory, name, 0o400) as file:
            copy_file(source, file.fd)
            file.appear(f"{name}.{sha256(file.fd).hex()}")


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
