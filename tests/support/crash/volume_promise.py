"""What the storage process has promised: told of as it goes along, asked of whatever a crash has left.

import, create, delete,     there, or not; either, while it is under way
snapshot                    and then what the volume held, flushed
grow                        as large as it was, or larger and zeros there
export, revoke, unexport    in exports.json, whole; either one, while it is under way
write, unmap                a killed process: done once answered
                            a power cut: each sector as at the last flush that was answered, or as at any time since
flush                       FUA, SYNCHRONIZE CACHE, STOP UNIT, FUA reads, drain, a clean end
epoch                       never lower than one that was answered
"""

import hashlib
import os
from dataclasses import dataclass

from panloom.errors import PanloomError
from panloom.storage.below import Below
from panloom.storage.catalog import SNAPSHOT, Catalog, path_of
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import ExportsFile
from panloom.storage.volume_file import VolumeFile
from panloom.storage.volume_store import VolumeStore
from support.crash.chapter import Violation
from support.crash.disk import SECTOR

PLACE = "var/storage"


def sectors_of(octets):
    """Return the sectors of some octets."""
    return [octets[start : start + SECTOR] for start in range(0, len(octets), SECTOR)]


class VolumePromise:
    """One volume: what each sector may hold."""

    def __init__(self, sectors):
        """Be a new one that holds these; a sector is what it may hold."""
        self.there = {False, True}
        self.now = [set(may_be) for may_be in sectors]
        self.on_disk = [set(may_be) for may_be in sectors]
        self.sizes = {len(self.now)}
        self.epochs = range(1)
        self._changing = (0, [])
        self._flushing = None  # what each sector may hold once the flush that is under way is answered

    def or_still(self, other):
        """Be this one or another, nobody knows."""
        self.sizes |= other.sizes
        self.epochs = range(other.epochs.stop)
        for mine, theirs in ((self.now, other.now), (self.on_disk, other.on_disk)):
            mine += [set() for _ in range(len(theirs) - len(mine))]
            for number, sectors in enumerate(theirs):
                mine[number] |= sectors

    def begin(self, offset, octets):
        """Something is being written."""
        self._changing = (offset // SECTOR, sectors_of(octets))
        for number, sector in enumerate(self._changing[1], self._changing[0]):
            for known in (self.now, self.on_disk, self._flushing):
                if known:
                    known[number].add(sector)

    def done(self):
        """It was answered."""
        for number, sector in enumerate(self._changing[1], self._changing[0]):
            self.now[number] = {sector}

    def flushing(self):
        """A flush begins; what is written from here on need not be in it."""
        self._flushing = [set(sectors) for sectors in self.now]

    def flushed(self):
        """A flush was answered."""
        self.on_disk = self._flushing or [set(sectors) for sectors in self.now]
        self._flushing = None

    def growing(self, sectors):
        """It is being made larger."""
        self.sizes.add(sectors)
        for known in (self.now, self.on_disk):
            known += [{bytes(SECTOR)} for _ in range(sectors - len(known))]

    def grown(self, sectors):
        """It was answered."""
        self.sizes = {sectors}

    def not_flushed(self):
        """It was refused."""
        self._flushing = None

    def seen(self, octets, *, durable):
        """The process that came after a crash reads this."""
        self._flushing = None
        self.sizes = {len(octets) // SECTOR}
        for number, sector in enumerate(sectors_of(octets)):
            self.now[number] = {sector}
            if durable:
                self.on_disk[number] = {sector}

    def raising(self, epoch):
        """An epoch is being written down."""
        self.epochs = range(self.epochs.start, max(epoch + 1, self.epochs.stop))

    def raised(self, epoch):
        """It was answered."""
        self.epochs = range(max(epoch, self.epochs.start), self.epochs.stop)

    def check(self, name, octets, epoch, *, power_cut):
        """Raise ``Violation`` unless this is what may be."""
        if epoch not in self.epochs:
            raise Violation(f"{name}: epoch {epoch} is none of {self.epochs}")
        if len(octets) // SECTOR not in self.sizes:
            raise Violation(f"{name}: {len(octets) // SECTOR} sectors are none of {self.sizes}")
        for number, may_be in enumerate((self.on_disk if power_cut else self.now)[: len(octets) // SECTOR]):
            if octets[number * SECTOR : (number + 1) * SECTOR] not in may_be:
                raise Violation(f"{name}: sector {number} holds {octets[number * SECTOR :][:8].hex()}…")


class Promise:
    """All of one directory."""

    def __init__(self):
        self.notes = 0  # how often it was changed
        self.images = {}  # name → whether it may be there, octets
        self.volumes = {}
        self.snapshots = {}  # label → whether it may be there, what its sectors may hold
        self.exports = {}  # target → what may be in the file; None: nothing

    def check(self, root, *, power_cut):
        """Start the storage process's parts on what is left; ``Violation`` unless all is as promised."""
        try:
            with Running(root) as running:
                self._check_images(root, running.store.facts().images)
                self._check_volumes(running, power_cut)
                self._check_exports(running)
                self._check_snapshots(running)
        except (PanloomError, OSError) as error:
            raise Violation(f"does not start: {error}") from error

    def _check_images(self, root, facts):
        found = {image.name: image.sha256 for image in facts}
        for name, (there, octets) in self.images.items():
            if (name in found) not in there:
                raise Violation(f"image {name} {'is' if name in found else 'is not'} there")
            if name in found:
                path = root / PLACE / "images" / f"{name}.{found[name]}"
                if path.read_bytes() != octets or found[name] != hashlib.sha256(octets).hexdigest():
                    raise Violation(f"image {name} is not whole")
        _no_others("images", found, self.images)

    def _check_volumes(self, running, power_cut):
        found = {path.stem for path in (running.root / PLACE / "volumes").glob("*.volume")}
        for name, volume in self.volumes.items():
            if (name in found) not in volume.there:
                raise Violation(f"volume {name} {'is' if name in found else 'is not'} there")
            if name in found:
                volume.check(name, *running.read(name), power_cut=power_cut)
        _no_others("volumes", found, self.volumes)

    def _check_exports(self, running):
        found = running.manager._exports
        for target, may_be in self.exports.items():
            export = found.get(target)
            if export not in may_be:
                raise Violation(f"{target} is exported as {export}")
            for name in export.written_volumes if export else ():
                if running.store.open(name).epoch < export.epoch:
                    raise Violation(f"volume {name} has not heard of epoch {export.epoch}")
        _no_others("exports", found, self.exports)

    def _check_snapshots(self, running):
        found = {snapshot.name for snapshot in running.store.facts().snapshots}
        for label, (there, may_be) in self.snapshots.items():
            if (label in found) not in there:
                raise Violation(f"snapshot {label} {'is' if label in found else 'is not'} there")
            if label in found:
                for number, sector in enumerate(sectors_of(running.read_snapshot(label))):
                    if sector not in may_be[number]:
                        raise Violation(f"snapshot {label}: sector {number} holds {sector[:8].hex()}…")
        _no_others("snapshots", found, self.snapshots)

    def freezing(self, label, volume):
        """A snapshot is being taken, if there is none of this name."""
        there, may_be = self.snapshots.get(label, ({False}, []))
        if there != {True}:
            now = self.volumes[volume].now
            before = may_be if True in there else [set()] * len(now)
            may_be = [one | another for one, another in zip(before, now, strict=False)]
        self.snapshots[label] = ({*there, True}, may_be)

    def frozen(self, label):
        """It was answered."""
        self.snapshots[label] = ({True}, self.snapshots[label][1])

    def forgetting(self, label, there):
        """A snapshot is being deleted, or was."""
        self.snapshots[label] = (there, self.snapshots[label][1])

    def begin_again(self, name, sectors):
        """A volume is being made; one that went, though that was refused, may come back from the disk till it is."""
        before, made = self.volumes.get(name), VolumePromise(sectors)
        if before is not None and True in before.there:
            made.or_still(before)
        self.volumes[name] = made

    def importing(self, name, octets):
        """An image is being imported."""
        there, _ = self.images.get(name, ({False}, b""))
        self.images[name] = ({*there, True}, octets)

    def imported(self, name):
        """It was answered."""
        self.images[name] = ({True}, self.images[name][1])

    def refused(self, name):
        """Something that was asked of a volume was refused; it may have been done in part."""
        if name in self.volumes:
            self.volumes[name].not_flushed()

    def power_was_cut(self):
        """From here on a killed process leaves no more than the power cut did."""
        for volume in self.volumes.values():
            volume.now = [set(sectors) for sectors in volume.on_disk]

    def saw(self, seen, *, durable):
        """A new process has started and tells what it sees; ``durable``: after a power cut, so the disk has it."""
        self.images = {name: ({name in seen.images}, octets) for name, (_, octets) in self.images.items()}
        for name, volume in self.volumes.items():
            if name in seen.unreadable:
                continue
            volume.there = {name in seen.volumes}
            if name in seen.volumes:
                octets, epoch = seen.volumes[name]
                volume.seen(octets, durable=durable)
                volume.epochs = range(epoch, epoch + 1)
        for label, (_, may_be) in self.snapshots.items():
            if label in seen.snapshots:
                may_be = [{sector} for sector in sectors_of(seen.snapshots[label])]
            self.snapshots[label] = ({label in seen.snapshots}, may_be)
        self.exports = {target: {seen.exports.get(target)} for target in self.exports}


def _no_others(kind, found, promised):
    if set(found) - set(promised):
        raise Violation(f"{kind} {set(found) - set(promised)} come from nowhere")


@dataclass(frozen=True)
class Seen:
    """What a process sees when it starts: names of images, what volumes and snapshots hold, exports by target."""

    images: set
    volumes: dict
    exports: dict
    snapshots: dict
    unreadable: frozenset = frozenset()


class Running:
    """The parts of a storage process that keep something, on a directory; ends as a process does that is killed."""

    def __init__(self, root):
        self.root = root
        self.store = VolumeStore(root / PLACE)
        self._alive = True
        try:
            self.manager = ConnectionManager(self.store, ExportsFile(root / PLACE / "exports.json"), lambda event: None)
        except BaseException:
            self.kill()
            raise

    def read(self, name):
        """Return a volume's octets and epoch."""
        volume = self.store.open(name)
        octets = bytearray(volume.octets)
        volume.read(0, memoryview(octets))
        return bytes(octets), volume.epoch

    def seen(self, unreadable=()):
        """Return what whoever asks is told."""
        facts = self.store.facts()
        return Seen(
            {image.name for image in facts.images},
            {volume.name: self.read(volume.name) for volume in facts.volumes if volume.name not in unreadable},
            dict(self.manager._exports),
            {snapshot.name: self.read_snapshot(snapshot.name) for snapshot in facts.snapshots},
            frozenset(unreadable),
        )

    def read_snapshot(self, label):
        """Return what a snapshot holds."""
        catalog = Catalog.read(self.store._directory)
        entry = catalog.find(label + SNAPSHOT)
        entries = (entry, *catalog.below(entry.header))
        layers = tuple(VolumeFile.load_frozen(path_of(self.store._directory, each)) for each in entries)
        lowest = entries[-1].header
        image = self.store._images.get(lowest.image_name) if lowest.reads_image else None
        octets = bytearray(entry.header.octets)
        Below(layers, image).read(0, memoryview(octets))
        return bytes(octets)

    def end(self):
        """End as on SIGTERM."""
        self.manager.shut_down()
        self._alive = False

    def kill(self):
        """End without a word: the kernel gives the lock back."""
        if self._alive:
            self._alive = False
            os.close(self.store._lock_fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
