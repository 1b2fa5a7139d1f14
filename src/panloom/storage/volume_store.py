"""A directory of images and volumes, served by one process at a time.

    DIRECTORY/lock                    flock of the process that serves it
    DIRECTORY/images/…                ``image``
    DIRECTORY/volumes/NAME.volume     ``overlay``

A volume is open once at most, and all who use it share it.
"""

import logging
import re
import secrets
import threading
from pathlib import Path

from panloom.disk_io import Directory, close_file, make_directory, take_lock
from panloom.errors import ConfigError, ConflictError, PanloomError, UnavailableError
from panloom.storage.calls import ImageFacts, VolumeFacts, Volumes
from panloom.storage.image import Image, ImageStore
from panloom.storage.overlay import Volume, create_volume, read_header

BLOCK_OCTETS = 512
MAX_VOLUME_OCTETS = 1 << 44  # 16 TiB; its maps take 1 GiB of file, and of memory what is written

_VOLUME_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}")
_SUFFIX = ".volume"

log = logging.getLogger(__name__)


class VolumeStore:
    """The images and volumes of one directory; every method may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; UnavailableError if another process has it."""
        try:
            make_directory(directory)
            self._lock_fd = take_lock(directory / "lock")
            self._images = ImageStore(directory / "images")
            self._directory = Directory(directory / "volumes")
        except BlockingIOError:
            raise UnavailableError(f"another storage process serves {directory}; end that one first") from None
        except OSError as error:
            raise UnavailableError(f"{directory} cannot be used: {error.strerror}") from error
        self._importing = threading.Lock()  # an import takes long and must delay nothing else
        self._opening = threading.Lock()
        self._open: dict[str, Volume] = {}

    def import_image(self, name: str, source: Path) -> ImageFacts:
        """Copy an image in; see ``ImageStore.import_file``."""
        with self._importing:
            image = self._images.import_file(name, source)
        return _image_facts(image)

    def create(self, name: str, image_name: str | None, size_octets: int) -> tuple[int, bool]:
        """Make a volume; return its octets and whether it is new.

        Size 0 is the image's, rounded up to whole blocks.  ConflictError if it exists with another image or size,
        ConfigError for what cannot be, UnavailableError without the image.
        """
        path = self._path(name)
        image = self._images.get(image_name) if image_name else None
        octets = _octets(size_octets, image)
        with self._opening:
            if self._directory.holds(path.name):
                header, _ = read_header(path)
                wanted = (octets, image.name, image.sha256) if image else (octets, "", bytes(32))
                if (header.octets, header.image_name, header.image_sha256) != wanted:
                    raise ConflictError(
                        f"volume {name} exists with {header.octets} octets over {header.image_name or 'no image'}"
                    )
                self._directory.sync()  # it can be seen, which does not mean that its name is durable
                return octets, False
            identity = bytes([0x30 | secrets.randbits(4)]) + secrets.token_bytes(7)  # NAA 3, locally assigned
            create_volume(self._directory, path.name, octets=octets, image=image, identity=identity)
        return octets, True

    def open(self, name: str) -> Volume:
        """Return a volume, the same one to all; UnavailableError if there is none, ConfigError if it is damaged."""
        path = self._path(name)
        with self._opening:
            volume = self._open.get(name)
            if volume is None:
                if not self._directory.holds(path.name):
                    raise UnavailableError(f"there is no volume {name}; create it first")
                image_name = read_header(path)[0].image_name
                volume = Volume.open(path, self._images.get(image_name) if image_name else None)
                self._open[name] = volume
            return volume

    def close(self, name: str) -> None:
        """Flush a volume and let it go, if it is open; whoever still uses it gets EIO."""
        with self._opening:
            self._close(name)

    def delete(self, name: str) -> None:
        """Destroy a volume; nothing happens if there is none.  The caller knows that nobody uses it."""
        path = self._path(name)
        with self._opening:
            self._close(name)
            self._directory.remove(path.name)

    def facts(self) -> Volumes:
        """Return what there is; a damaged volume is left out, with a line in the log."""
        volumes = []
        for file_name in self._directory.names():
            if not file_name.endswith(_SUFFIX):
                continue
            name = file_name.removesuffix(_SUFFIX)
            try:
                header, allocated = read_header(self._directory.path / file_name)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except PanloomError as error:
                log.warning("volume=%s damaged=%s", name, error)
                continue
            volumes.append(VolumeFacts(name, header.image_name or None, header.octets, allocated, header.epoch))
        return Volumes(tuple(volumes), tuple(_image_facts(image) for image in self._images.all()))

    def shut_down(self) -> None:
        """Flush all volumes and give the directory back."""
        with self._opening:
            for name in tuple(self._open):
                self._close(name)
        close_file(self._lock_fd)

    def _close(self, name: str) -> None:
        volume = self._open.pop(name, None)
        if volume:
            try:
                volume.close()
            except OSError as error:
                log.warning("volume=%s flushed=no why=%s", name, error.strerror)

    def _path(self, name: str) -> Path:
        if not _VOLUME_NAME.fullmatch(name):
            raise ConfigError("volume", f"{name!r} is no volume name; write one like shop.web1")
        return self._directory.path / (name + _SUFFIX)


def _octets(size_octets: int, image: Image | None) -> int:
    needed = -(-image.octets // BLOCK_OCTETS) * BLOCK_OCTETS if image else BLOCK_OCTETS
    octets = size_octets or (needed if image else 0)
    if octets % BLOCK_OCTETS or not needed <= octets <= MAX_VOLUME_OCTETS:
        raise ConfigError(
            "size", f"{octets} octets: write a multiple of {BLOCK_OCTETS} from {needed} to {MAX_VOLUME_OCTETS}"
        )
    return octets


def _image_facts(image: Image) -> ImageFacts:
    return ImageFacts(image.name, image.octets, image.sha256.hex())
