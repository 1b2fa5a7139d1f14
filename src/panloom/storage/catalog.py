"""What lies in the directory of volumes, and which file is read through which.

shop.web1.volume              the file that a volume is written in
shop.web1@before.snapshot     frozen by a snapshot: read-only, and has a name
shop.web1@HEX32.layer         frozen by a snapshot that was deleted, and still read through; HEX32 is its id

shop.web1.volume ─parent─▶ shop.web1@before.snapshot ─parent─▶ … ─▶ image
shop.web2.volume ─parent──▲  a clone of the snapshot
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from panloom.durable_names import Directory
from panloom.errors import ConfigError, PanloomError
from panloom.storage.volume_file import read_header
from panloom.storage.volume_header import NO_ID, VolumeHeader

VOLUME, SNAPSHOT, LAYER = ".volume", ".snapshot", ".layer"

_VOLUME_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}")
_SNAPSHOT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FILE_NAME = re.compile(r"([^@]+)(?:@([^@.]+))?(\.volume|\.snapshot|\.layer)")

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True):
    """A file: of which volume, and of which snapshot, or the id of one that has no name any more."""

    file_name: str
    kind: str
    volume: str
    snapshot: str
    header: VolumeHeader
    inode: int
    allocated_octets: int
    changed_at: float  # wall clock, seconds: of a snapshot when it was taken

    @property
    def label(self) -> str:
        """``shop.web1`` or ``shop.web1@before``."""
        return f"{self.volume}@{self.snapshot}" if self.snapshot else self.volume


class Catalog:
    """All files as they were when they were looked at."""

    def __init__(self, entries: tuple[Entry, ...], unreadable: tuple[str, ...]) -> None:
        self.entries = entries
        self.unreadable = unreadable
        """Names of files that are damaged or could not be read."""
        self._by_id = {entry.header.id: entry for entry in entries if entry.header.id != NO_ID and entry.kind != VOLUME}

    @classmethod
    def read(cls, directory: Directory) -> "Catalog":
        """Read all headers; a file that is damaged or cannot be read is left out, with a line in the log."""
        entries, unreadable = [], []
        for file_name in directory.names():
            match = _FILE_NAME.fullmatch(file_name)
            if match is None:
                continue
            try:
                header, status = read_header(directory.path / file_name)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except (PanloomError, OSError) as error:
                log.warning("volume=%s damaged=%s", file_name, error)
                unreadable.append(file_name)
                continue
            volume, snapshot, kind = match[1], match[2] or "", match[3]
            times = (status.st_ino, status.st_blocks * 512, status.st_ctime)
            entries.append(Entry(file_name, kind, volume, snapshot, header, *times))
        return cls(tuple(entries), tuple(unreadable))

    def of(self, kind: str) -> tuple[Entry, ...]:
        """Return the files of a kind."""
        return tuple(entry for entry in self.entries if entry.kind == kind)

    def find(self, file_name: str) -> Entry | None:
        """Return the file of a name."""
        return next((entry for entry in self.entries if entry.file_name == file_name), None)

    def below(self, header: VolumeHeader) -> Iterator[Entry]:
        """Return the frozen files that a file is read through, the newest first; fewer if one is missing."""
        while header.parent != NO_ID and (entry := self._by_id.get(header.parent)):
            yield entry
            header = entry.header

    def above(self, entry: Entry) -> tuple[Entry, ...]:
        """Return the files directly on top of a frozen one."""
        return tuple(other for other in self.entries if other.header.parent == entry.header.id)

    def image_readers(self, image: str) -> tuple[str, ...]:
        """Return what is read through an image, by names that a person can delete, sorted."""
        readers = (entry for entry in self.entries if entry.header.reads_image and entry.header.image_name == image)
        return tuple(sorted({label for entry in readers for label in self._named(entry)}))

    def _named(self, entry: Entry) -> set[str]:
        """Return its own name; of a file without one, those of what is read through it."""
        above = self.above(entry) if entry.kind == LAYER else ()
        return {label for each in above for label in self._named(each)} or {entry.label}

    def clones(self, entry: Entry) -> tuple[str, ...]:
        """Return the volumes other than its own that are read through a frozen file."""
        through = (other for other in self.of(VOLUME) if entry in tuple(self.below(other.header)))
        return tuple(other.volume for other in through if other.volume != entry.volume)

    def unfinished(self) -> tuple[Entry, ...]:
        """Return snapshots that were begun and never acknowledged: a second name of a file that is still written."""
        written = {entry.inode for entry in self.of(VOLUME)}
        return tuple(entry for entry in self.of(SNAPSHOT) if entry.inode in written)

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        """Return the labels of a volume's snapshots, those that cannot be read included."""
        known = [entry.label for entry in self.of(SNAPSHOT) if entry.volume == volume]
        unknown = [name.removesuffix(SNAPSHOT) for name in self.unreadable if name.endswith(SNAPSHOT)]
        return (*known, *(label for label in unknown if label.partition("@")[0] == volume))

    def unused(self) -> tuple[Entry, ...]:
        """Return the nameless files that nothing is read through; none while one is damaged or missing: it might be."""
        known = {NO_ID, *self._by_id}
        if self.unreadable or any(entry.header.parent not in known for entry in self.entries):
            return ()
        used = {below.file_name for entry in self.entries if entry.kind != LAYER for below in self.below(entry.header)}
        return tuple(entry for entry in self.of(LAYER) if entry.file_name not in used)


def volume_file_name(name: str) -> str:
    """Return the file of a volume; ConfigError if that is no name."""
    if not _VOLUME_NAME.fullmatch(name):
        raise ConfigError("volume", f"{name!r} is no volume name; write one like shop.web1")
    return name + VOLUME


def snapshot_file_name(label: str) -> str:
    """Return the file of a snapshot, VOLUME@NAME; ConfigError if that is no name."""
    volume, _, snapshot = label.partition("@")
    volume_file_name(volume)
    if not _SNAPSHOT_NAME.fullmatch(snapshot):
        raise ConfigError("snapshot", f"{label!r} is no snapshot's name; write one like shop.web1@before")
    return label + SNAPSHOT


def layer_file_name(entry: Entry) -> str:
    """Return the name of a frozen file whose snapshot is deleted."""
    return f"{entry.volume}@{entry.header.id.hex()}{LAYER}"


def path_of(directory: Directory, entry: Entry) -> Path:
    """Return where a file is."""
    return directory.path / entry.file_name
