"""A directory of images and volumes, served by one process at a time.

    DIRECTORY/lock          flock of the process that serves it
    DIRECTORY/images/…      ``image``
    DIRECTORY/volumes/…     ``catalog``: volumes, snapshots, and what deleted snapshots leave for others to read

    snapshot   NAME.volume gets a second name, NAME@SNAPSHOT.snapshot  →  a new file over it takes the first
    delete     of a snapshot: renamed to NAME@ID.layer while its volume is read through it; gone when nothing is

A volume is open once at most, and all who use it share it.
"""

import logging
import secrets
import threading
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from panloom.disk_io import SyncError, close_file, take_lock, write_fully
from panloom.durable_names import Directory, PartialFile, make_directory
from panloom.errors import ConfigError, ConflictError, PanloomError, UnavailableError
from panloom.storage.accounts import volumes
from panloom.storage.calls import ImageFacts, Volumes
from panloom.storage.catalog import (
    LAYER,
    VOLUME,
    Catalog,
    Entry,
    layer_file_name,
    path_of,
    snapshot_file_name,
    volume_file_name,
)
from panloom.storage.image import Image, ImageStore
from panloom.storage.overlay import Volume, tell_lost, this_boot
from panloom.storage.volume_file import VolumeFile, create_volume, read_header, write_new_file
from panloom.storage.volume_header import NO_ID, VolumeHeader, encode_header

BLOCK_OCTETS = 512
MAX_LAYERS = 200  # each is an open file, and a step of a read
MAX_VOLUME_OCTETS = 1 << 44  # 16 TiB; its maps take 1 GiB of file, and of memory what is written

log = logging.getLogger(__name__)


class VolumeStore:
    """The images and volumes of one directory; every method may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        """Take the directory and finish what a crash interrupted; UnavailableError if another process has it."""
        self._importing = threading.Lock()  # an import takes long and must delay nothing else
        self._opening = threading.Lock()
        self._open: dict[str, Volume] = {}
        self._lost: set[str] = set()  # volumes that a sync failed of while they were opened
        self._frozen: weakref.WeakValueDictionary[bytes, VolumeFile] = weakref.WeakValueDictionary()
        try:
            make_directory(directory)
            self._lock_fd = take_lock(directory / "lock")
        except BlockingIOError:
            raise UnavailableError(f"another storage process serves {directory}; end that one first") from None
        except OSError as error:
            raise UnavailableError(f"{directory} cannot be used: {error.strerror}") from error
        try:
            self._images = ImageStore(directory / "images")
            self._directory = Directory(directory / "volumes")
            for entry in Catalog.read(self._directory).unfinished():
                self._directory.remove(entry.file_name)
            self._remove_unused()
        except OSError as error:
            close_file(self._lock_fd)
            raise UnavailableError(f"{directory} cannot be used: {error.strerror}") from error

    def import_image(self, name: str, source: Path) -> ImageFacts:
        """Copy an image in; see ``ImageStore.import_file``."""
        with self._importing:
            image = self._images.import_file(name, source)
        return ImageFacts(image.name, image.octets, image.sha256.hex())

    def delete_image(self, name: str) -> None:
        """Destroy an image, durable on return; nothing happens if there is none.

        ConflictError while a volume or a snapshot is read through it, or one that cannot be read might be.
        """
        with self._importing, self._opening:
            catalog = Catalog.read(self._directory)
            users = catalog.image_readers(name)
            if users:
                raise ConflictError(f"image {name} is read by {', '.join(users)}; delete or flatten these first")
            if catalog.unreadable:
                damaged = ", ".join(catalog.unreadable)
                raise ConflictError(f"image {name} may be needed by what cannot be read: {damaged}; mend that first")
            self._images.delete(name)
        log.info("image=%s deleted=yes", name)

    def create(
        self,
        name: str,
        image_name: str | None,
        size_octets: int,
        *,
        image_sha256: str | None = None,
        snapshot: str | None = None,
        thick: bool = False,
    ) -> tuple[int, bool]:
        """Make a volume: a clone of an image, or of a snapshot, or empty; return its octets and whether it is new.

        Size 0 is that of the image or the snapshot, rounded up to whole blocks.  A ``thick`` one takes all its space
        now.  ConflictError if it exists with another origin or size, or if the image is not that of ``image_sha256``
        (hexadecimal; None is any), ConfigError for what cannot be, UnavailableError
        without image, snapshot or space.
        """
        file_name = volume_file_name(name)
        with self._opening:
            image = self._images.get(image_name) if image_name and snapshot is None else None
            if image and image_sha256 not in (None, image.sha256.hex()):
                raise ConflictError(f"image {image_name} is another disk by now: its SHA-256 is {image.sha256.hex()}")
            header = read_header(self._directory.path / file_name)[0] if self._directory.holds(file_name) else None
            gone = header and snapshot and not self._directory.holds(snapshot_file_name(snapshot))  # it was flattened
            frozen = self._frozen_header(snapshot) if snapshot and not gone else None
            origin_octets = frozen.octets if frozen else image.octets if image else 0
            octets = header.octets if header and gone and not size_octets else _octets(size_octets, origin_octets)
            if header:
                same = _is_clone(header, image, snapshot)
                if not same or (header.octets, header.thick) != (octets, thick):
                    raise ConflictError(f"volume {name} exists {_described(header)}")
                self._directory.sync()  # it can be seen, which does not mean that its name is durable
                return octets, False
            identity = bytes([0x30 | secrets.randbits(4)]) + secrets.token_bytes(7)  # NAA 3, locally assigned
            try:
                create_volume(
                    self._directory,
                    file_name,
                    octets=octets,
                    identity=identity,
                    image=image,
                    frozen=frozen,
                    origin=snapshot or "",
                    thick=thick,
                )
            except OSError as error:
                if not thick:
                    raise
                raise UnavailableError(f"no space for a thick volume of {octets} octets: {error.strerror}") from error
        return octets, True

    def open(self, name: str) -> Volume:
        """Return a volume, the same one to all; UnavailableError if there is none, ConfigError if it is damaged."""
        volume = self._open.get(name)
        if volume:  # without the lock: whoever holds it may wait for the disk of another volume
            return volume
        file_name = volume_file_name(name)
        with self._opening:
            return self._opened(name, file_name)

    def names(self) -> tuple[str, ...]:
        """Return the names of all volumes, those that cannot be read included."""
        files = (name for name in self._directory.names() if name.endswith(VOLUME))
        return tuple(name.removesuffix(VOLUME) for name in files)

    def look(self, name: str) -> int:
        """Return a volume's octets without opening it; errors as ``open``."""
        volume = self._open.get(name)
        if name in self._lost or (volume and volume.lost):
            raise UnavailableError(offline(name))
        return read_header(self._directory.path / volume_file_name(name))[0].octets

    def reopen(self, name: str) -> None:
        """Open a volume anew that is offline; nothing happens to one that is not.

        It holds what was flushed, as after a power cut.  OSError if its disk still fails: it stays offline.
        """
        file_name = volume_file_name(name)
        with self._opening:
            volume = self._open.get(name)
            if name not in self._lost and (volume is None or not volume.lost):
                return
            self._open.pop(name, None)
            with ExitStack() as unopened:
                unopened.callback(self._lost.add, name)
                self._lost.discard(name)
                self._opened(name, file_name, after_loss=True)
                unopened.pop_all()
        log.info("volume=%s online=yes", name)

    def close(self, name: str) -> None:
        """Flush a volume and let it go, if it is open; whoever still uses it gets EIO."""
        with self._opening:
            self._close(name)

    def delete(self, name: str) -> None:
        """Destroy a volume; nothing happens if there is none.  The caller knows that nobody uses it.

        ConflictError as long as it has snapshots.
        """
        file_name = volume_file_name(name)
        with self._opening:
            if taken := Catalog.read(self._directory).snapshots_of(name):
                raise ConflictError(f"volume {name} has snapshots; delete them first: {', '.join(taken)}")
            self._close(name)
            self._directory.remove(file_name)
            self._open.pop(name, None)
            self._lost.discard(name)
            self._remove_unused()

    def snapshot(self, label: str) -> bool:
        """Freeze what a volume holds now under the name VOLUME@SNAPSHOT; return whether that is new.

        In constant time, while writing goes on: a write that was not answered yet is in it, whole or in part, or not.
        UnavailableError without the volume, OSError when the disk is full.  ConflictError while it is flattened or
        grows, beyond MAX_LAYERS, or where its file is a copy of one that is frozen.
        """
        frozen_name = snapshot_file_name(label)
        name = label.partition("@")[0]
        file_name = volume_file_name(name)
        with self._opening:
            self._unfreeze(file_name, frozen_name)  # what an earlier call could not take back
            if self._directory.holds(frozen_name):
                self._directory.sync()
                return False
            volume = self._opened(name, file_name)
            if volume.header.flattening:
                raise ConflictError(f"volume {name} is being flattened; take the snapshot when that is done")
            if len(volume.layers) >= MAX_LAYERS:
                raise ConflictError(f"volume {name} is read through {MAX_LAYERS} frozen files; flatten it first")
            frozen = {entry.header.id for entry in Catalog.read(self._directory).entries if entry.kind != VOLUME}
            if volume.header.id in frozen:
                raise ConflictError(f"the file of volume {name} is a copy of one that is frozen; make a clone instead")
            try:
                self._freeze(volume, file_name, frozen_name)
            except (OSError, PanloomError):
                with suppress(OSError):  # the next call does it, or the next start
                    self._unfreeze(file_name, frozen_name)
                raise
        log.info("snapshot=%s taken=yes", label)
        return True

    def delete_snapshot(self, label: str) -> None:
        """Delete a snapshot; nothing happens if there is none.  ConflictError while a clone is read through it."""
        file_name = snapshot_file_name(label)
        with self._opening:
            catalog = Catalog.read(self._directory)
            entry = catalog.find(file_name)
            if entry is None and self._directory.holds(file_name):
                raise ConfigError(label, "cannot be read; restore its file from a copy, or remove the file")
            if entry is None:
                self._directory.sync()  # an earlier call may have been cut off before that
                return
            if clones := catalog.clones(entry):
                raise ConflictError(f"{', '.join(clones)} is a clone of snapshot {label}; flatten or delete that first")
            self._directory.move(file_name, layer_file_name(entry))
            self._remove_unused()
        log.info("snapshot=%s deleted=yes", label)

    def grow(self, name: str, octets: int) -> int:
        """Make a volume larger, durable on return; return its blocks.  ConflictError if it would become smaller."""
        if octets % BLOCK_OCTETS or not 0 < octets <= MAX_VOLUME_OCTETS:
            raise ConfigError("size", f"{octets} octets: write a multiple of {BLOCK_OCTETS} to {MAX_VOLUME_OCTETS}")
        volume = self.open(name)
        volume.grow(octets)
        log.info("volume=%s octets=%d", name, octets)
        return volume.octets // BLOCK_OCTETS

    def end_flattening(self, name: str) -> None:
        """Let a volume go of what it has taken over, durable on return; what nothing else reads is removed."""
        with self._opening:
            self._opened(name, volume_file_name(name)).end_flattening()
            self._remove_unused()

    def to_absorb(self) -> dict[str, Entry]:
        """Return volumes that alone lie directly over a nameless frozen file, and the file."""
        catalog = Catalog.read(self._directory)
        found = {}
        for entry in catalog.of(VOLUME):
            layer = next(iter(catalog.below(entry.header)), None)
            if layer and layer.kind == LAYER and len(catalog.above(layer)) == 1:
                found[entry.volume] = layer
        return found

    def end_absorbing(self, name: str, layer: bytes) -> None:
        """Let a volume read past a file that it has taken over, durable on return; the file is removed."""
        with self._opening:
            self._opened(name, volume_file_name(name)).end_absorbing(layer)
            self._remove_unused()

    def to_flatten(self) -> tuple[str, ...]:
        """Return the volumes whose flattening was begun and not finished."""
        return tuple(entry.volume for entry in Catalog.read(self._directory).of(VOLUME) if entry.header.flattening)

    def facts(self) -> Volumes:
        """Return what there is; a damaged volume is left out, with a line in the log."""
        return volumes(Catalog.read(self._directory), self._images.all())

    def shut_down(self) -> None:
        """Flush all volumes and give the directory back."""
        with self._opening:
            for name in tuple(self._open):
                self._close(name)
        close_file(self._lock_fd)

    # Parts of the above, under _opening

    def _opened(self, name: str, file_name: str, *, after_loss: bool = False) -> Volume:
        volume = self._open.get(name)
        if volume is None:
            if not self._directory.holds(file_name):
                raise UnavailableError(f"there is no volume {name}; create it first")
            if name in self._lost:
                raise UnavailableError(offline(name))
            path = self._directory.path / file_name
            header = read_header(path)[0]
            catalog = Catalog.read(self._directory) if header.parent != NO_ID else None
            layers = tuple(self._layer(entry) for entry in catalog.below(header)) if catalog else ()
            lowest = layers[-1].header if layers else header
            image = self._images.get(lowest.image_name, lowest.image_sha256) if lowest.reads_image else None
            try:
                volume = self._open[name] = Volume.open(path, image, layers=layers, after_loss=after_loss)
            except SyncError as error:
                self._lost.add(name)
                tell_lost(name, error)
                raise
        return volume

    def _layer(self, entry: Entry) -> VolumeFile:
        """Return a frozen file, the same one to all volumes."""
        layer = self._frozen.get(entry.header.id)
        if layer is None:
            layer = self._frozen[entry.header.id] = VolumeFile.load_frozen(path_of(self._directory, entry))
        return layer

    def _frozen_header(self, snapshot: str) -> VolumeHeader:
        path = self._directory.path / snapshot_file_name(snapshot)
        still_written = self._directory.inode(volume_file_name(snapshot.partition("@")[0]))  # it was not finished
        if not self._directory.holds(path.name) or self._directory.inode(path.name) == still_written:
            raise UnavailableError(f"there is no snapshot {snapshot}; take it first")
        return read_header(path)[0]

    def _freeze(self, volume: Volume, file_name: str, frozen_name: str) -> None:
        first = msgspec.structs.replace(volume.header, sequence=0, boot_id=bytes(16), id=secrets.token_bytes(16))
        inode = self._directory.inode(file_name)
        with PartialFile(self._directory, file_name, 0o600) as file:
            write_new_file(file.fd, first)  # before anything stands still: a thick one takes its space here

            def freeze() -> None:
                if volume.header.octets != first.octets:
                    raise ConflictError("the volume grew just now; take the snapshot again")
                self._directory.link(file_name, frozen_name)

            def renew(header: VolumeHeader) -> VolumeFile:
                header = msgspec.structs.replace(header, sequence=0, boot_id=bytes(16), id=first.id)
                write_fully(file.fd, [encode_header(header)], 0)
                new = VolumeFile.load(file.path, this_boot())
                file.appear(file_name)
                return new

            def thaw() -> bool:
                with suppress(OSError):  # that the name is gone need not be durable: the next start removes it, too
                    self._unfreeze(file_name, frozen_name)
                with suppress(OSError):
                    return self._directory.inode(file_name) == inode != self._directory.inode(frozen_name)
                return False

            volume.snapshot(freeze, renew, thaw)
        top = volume.layers[0]
        self._frozen[top.header.id] = top

    def _unfreeze(self, file_name: str, frozen_name: str) -> None:
        """Take the second name away again, unless the volume goes on in another file by now."""
        if self._directory.inode(frozen_name) == self._directory.inode(file_name):
            self._directory.remove(frozen_name)

    def _remove_unused(self) -> None:
        """Remove what nothing is read through; where that fails the next time or the next start does it."""
        try:
            for entry in Catalog.read(self._directory).unused():
                self._directory.remove(entry.file_name)
        except OSError as error:
            log.warning("unused=kept why=%r", error.strerror)

    def _close(self, name: str) -> None:
        volume = self._open.get(name)
        if volume:
            try:
                volume.close()
            except OSError as error:
                log.warning("volume=%s flushed=no why=%r", name, error.strerror)
            if not volume.lost:
                del self._open[name]


def offline(name: str) -> str:
    """Return why a volume cannot be used that a sync failed of, and what brings it back."""
    return f"volume {name} is offline: a sync failed; check its disk, then panloom reopen it, or restart"


def _is_clone(header: VolumeHeader, image: Image | None, snapshot: str | None) -> bool:
    """Whether a volume is a clone of just this image or snapshot, or of none."""
    if snapshot or header.origin:
        return header.origin == snapshot
    return (header.image_name, header.image_sha256) == ((image.name, image.sha256) if image else ("", bytes(32)))


def _described(header: VolumeHeader) -> str:
    what = f"over snapshot {header.origin}" if header.origin else f"over {header.image_name or 'no image'}"
    return f"with {header.octets} octets {what}{', thick' if header.thick else ''}"


def _octets(size_octets: int, origin_octets: int) -> int:
    needed = -(-origin_octets // BLOCK_OCTETS) * BLOCK_OCTETS or BLOCK_OCTETS
    octets = size_octets or (needed if origin_octets else 0)
    if octets % BLOCK_OCTETS or not needed <= octets <= MAX_VOLUME_OCTETS:
        raise ConfigError(
            "size", f"{octets} octets: write a multiple of {BLOCK_OCTETS} from {needed} to {MAX_VOLUME_OCTETS}"
        )
    return octets
