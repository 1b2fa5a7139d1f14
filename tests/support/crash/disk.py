"""A disk under the kernel's cache: what was done to it, and every state in which a power cut may leave it.

    log   Write ─ Names ─ Write ─ Sync ─ Write ─ …          one entry a system call, in their order
                                    └─ what came before, on this file, is there for certain
                                              └─ each sector: as before, or any later version of it
                                                 each name, each size: as before, or as at any time since

The model is meaner than any file system: un-synced sectors of 512 octets, sizes and names are lost, kept and reordered
one by one, even those of one call.  A rename is whole.  Beyond its end a file holds nothing.  After a sync that failed,
what it was to write, names too, stays uncertain whatever syncs follow, until it is written anew.

A process that is killed leaves all that the kernel was given, and of its last write perhaps only the first pages.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
PAGE = 4096
ROOT = 0
_ZEROS = bytes(SECTOR)


@dataclass(frozen=True, slots=True)
class Write:
    """Octets given to a file."""

    inode: int
    offset: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Size:
    """A file cut off, or longer by a hole."""

    inode: int
    octets: int


@dataclass(frozen=True, slots=True)
class Make:
    """An empty directory, which has no name yet."""

    inode: int


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one directory that change together; None: gone."""

    directory: int
    names: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """A file, these sectors of it, or a directory was synced; ``failed``: it could not be."""

    inode: int
    sectors: range | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """What the program under test says of itself here: begun, acknowledged …"""

    note: object


@dataclass(slots=True)
class _File:
    sectors: dict[int, bytes] = field(default_factory=dict)  # on the disk; absent: zeros
    size: int = 0
    versions: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # not yet: number of the entry, octets
    sizes: list[tuple[int, int]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # sectors that a failed sync left uncertain

    def latest(self, sector):
        versions = self.versions.get(sector)
        return versions[-1][1] if versions else self.sectors.get(sector, _ZEROS)

    def latest_size(self):
        return self.sizes[-1][1] if self.sizes else self.size


@dataclass(frozen=True, slots=True)
class Contents:
    """Files and names as they are on a disk; what a choice among the possible states comes to."""

    files: dict[int, tuple[int, dict[int, bytes]]]  # inode → size, sectors
    directories: dict[int, dict[str, int]]

    def write_to(self, root: Path):
        """Make real files of it below an empty directory."""
        self._write(ROOT, root, {})

    def key(self):
        """Return a number that differs where the contents do."""
        names = tuple((inode, *sorted(names.items())) for inode, names in sorted(self.directories.items()))
        files = tuple(
            (inode, size, frozenset(sectors.items())) for inode, (size, sectors) in sorted(self.files.items())
        )
        return hash((names, files))

    def paths(self, root: Path, inode=ROOT):
        """Yield every path, as it is below ``root``, with its inode."""
        yield root, inode
        for name, child in self.directories.get(inode, {}).items():
            yield from self.paths(root / name, child)

    def unlike(self, root: Path, inode=ROOT):
        """Yield the paths below ``root`` that are not as here; SQLite's index of its log is nowhere."""
        names = self.directories[inode]
        yield from (path for path in root.iterdir() if path.name not in names and not path.name.endswith("-shm"))
        for name, child in names.items():
            path = root / name
            if child in self.directories:
                yield from self.unlike(path, child) if path.is_dir() else (path,)
            elif not path.is_file() or path.read_bytes() != self.octets(child):
                yield path

    def octets(self, inode):
        """Return what a file holds."""
        size, sectors = self.files[inode]
        octets = bytearray(size)
        for number, sector in sectors.items():
            octets[number * SECTOR : (number + 1) * SECTOR] = sector
        return bytes(octets[:size])

    def _write(self, inode, path, written):
        for name, child in self.directories[inode].items():
            if child in self.directories:
                (path / name).mkdir()
                self._write(child, path / name, written)
            elif child in written:
                (path / name).hardlink_to(written[child])
            else:
                self._write_file(child, path / name)
                written[child] = path / name

    def _write_file(self, inode, path):
        size, sectors = self.files[inode]
        with path.open("wb", buffering=0) as file:
            for start, octets in _runs(sectors):
                file.seek(start * SECTOR)
                file.write(octets)
            file.truncate(size)


def _runs(sectors):
    """Yield runs of neighbouring sectors that are not all zeros, as number of the first one and octets."""
    first, run = 0, []
    for number in sorted(sectors):
        if run and number == first + len(run):
            run.append(sectors[number])
        else:
            if run:
                yield first, b"".join(run)
            first, run = number, [sectors[number]]
    if run:
        yield first, b"".join(run)


class Disk:
    """What is on the disk for certain, and what may be besides; ``add`` the log to it entry by entry."""

    def __init__(self, contents: Contents | None = None):
        self.directories = {ROOT: {}}
        self.files = {}
        self.renames = []  # number of the entry, Names: not yet certain
        self.lost_renames = set()  # numbers of those that a failed sync left uncertain
        self._number = 0
        if contents:
            self.directories = {inode: dict(names) for inode, names in contents.directories.items()}
            self.files = {inode: _File(dict(sectors), size) for inode, (size, sectors) in contents.files.items()}

    def add(self, entry):
        """Do what a log entry says."""
        self._number += 1
        match entry:
            case Write(inode, offset, octets):
                self._write(self.files.setdefault(inode, _File()), offset, octets)
            case Size(inode, octets):
                self._resize(self.files.setdefault(inode, _File()), octets)
            case Make(inode):
                self.directories[inode] = {}
            case Names():
                self.renames.append((self._number, entry))
            case Sync(inode, sectors) if inode in self.files:
                file = self.files[inode]
                those = {each for each in file.versions if sectors is None or each in sectors}
                if entry.failed:
                    file.lost |= those
                else:
                    self._settle(file, those - file.lost, size=sectors is None)
            case Sync(inode, failed=True):
                self.lost_renames |= {number for number, names in self.renames if names.directory == inode}
            case Sync(inode):
                self._settle_names(inode)
        return entry

    def _settle_names(self, directory):
        """Make certain what no failed sync has lost, or what came after that under the same name."""
        renames, self.renames = self.renames, []
        for number, names in renames:
            if names.directory != directory or number in self.lost_renames:
                self.renames.append((number, names))
                continue
            self._rename(self.directories, names)
            anew = {name for name, _ in names.names}
            kept = [
                (older, Names(directory, tuple(each for each in lost.names if each[0] not in anew)))
                if lost.directory == directory
                else (older, lost)
                for older, lost in self.renames
            ]
            self.renames = [(older, lost) for older, lost in kept if lost.names]

    def _write(self, file, offset, octets):
        position, end = offset, offset + len(octets)
        while position < end:
            sector, start = divmod(position, SECTOR)
            stop = min(SECTOR, start + end - position)
            piece = octets[position - offset : position - offset + stop - start]
            if len(piece) < SECTOR:
                before = file.latest(sector)
                piece = before[:start] + piece + before[stop:]
            file.versions.setdefault(sector, []).append((self._number, piece))
            file.lost.discard(sector)
            position += stop - start
        if end > file.latest_size():
            file.sizes.append((self._number, end))

    def _resize(self, file, octets):
        before = file.latest_size()
        if octets < before:
            for sector in {*file.sectors, *file.versions}:
                if (sector + 1) * SECTOR > octets:
                    kept = max(0, octets - sector * SECTOR)
                    left = file.latest(sector)[:kept].ljust(SECTOR, b"\0")
                    file.versions.setdefault(sector, []).append((self._number, left))
        if octets != before:
            file.sizes.append((self._number, octets))

    def _settle(self, file, sectors, *, size):
        for sector in sectors:
            file.sectors[sector] = file.versions.pop(sector)[-1][1]
        if size and file.sizes:
            file.size = file.sizes[-1][1]
            file.sizes.clear()

    @staticmethod
    def _rename(directories, names):
        entries = directories[names.directory]
        for name, inode in names.names:
            if inode is None:
                entries.pop(name, None)
            else:
                entries[name] = inode

    # --- the states

    def everything(self):
        """Return what the kernel has: what a killed process leaves."""
        return self._chosen(lambda versions: versions[-1], {number for number, _ in self.renames})

    def torn(self, entry):
        """Yield what is left if the process was killed in the midst of this write, which comes next."""
        for octets in range(PAGE - entry.offset % PAGE, len(entry.octets), PAGE):
            torn = Disk(self.everything())
            torn.add(Write(entry.inode, entry.offset, entry.octets[:octets]))
            yield torn.everything()

    def after_power_cut(self, chance, limit):
        """Yield what a power cut may leave: all possible states if there are no more than ``limit``, else a choice."""
        pending = [versions for file in self.files.values() for versions in file.versions.values()]
        pending += [file.sizes for file in self.files.values() if file.sizes]
        states = 1 << len(self.renames)
        for versions in pending:
            states *= len(versions) + 1
            if states > 1 << 40:
                break
        if states <= limit:
            yield from self._all(pending)
        else:
            yield from self._some(chance, limit)

    def _all(self, pending):
        numbers = [number for number, _ in self.renames]
        for kept in itertools.product(*([None, *versions] for versions in pending)):
            of = {id(versions): version for versions, version in zip(pending, kept, strict=True)}
            for names in itertools.product((False, True), repeat=len(numbers)):
                yield self._chosen(lambda versions, of=of: of[id(versions)], set(itertools.compress(numbers, names)))

    def _some(self, chance, limit):
        numbers = sorted(
            {number for number, _ in self.renames}
            | {number for file in self.files.values() for versions in file.versions.values() for number, _ in versions}
            | {number for file in self.files.values() for number, _ in file.sizes}
        )
        yield self._of_entries(set())
        yield self._of_entries(set(numbers))
        for turn in range(limit - 2):
            match turn % 4:
                case 0:  # one entry is missing, or only one is there
                    one = chance.choice(numbers)
                    yield self._of_entries({one} if chance.random() < 0.5 else {*numbers} - {one})
                case 1:  # entries whole or not at all
                    yield self._of_entries({number for number in numbers if chance.random() < 0.5})
                case 2:  # up to some entry, and that one torn
                    last = chance.choice(numbers)
                    yield self._chosen(
                        lambda versions, last=last: _newest(
                            [each for each in versions if each[0] < last or (each[0] == last and chance.random() < 0.5)]
                        ),
                        {number for number in numbers if number <= last},
                    )
                case _:  # every sector by itself
                    share = chance.choice((0.1, 0.5, 0.9))
                    yield self._chosen(
                        lambda versions, share=share: chance.choice(versions) if chance.random() < share else None,
                        {number for number in numbers if chance.random() < share},
                    )

    def _of_entries(self, numbers):
        return self._chosen(lambda versions: _newest([each for each in versions if each[0] in numbers]), numbers)

    def _chosen(self, choose, numbers):
        """Return the contents where ``choose`` takes one of some versions, or None for what was before."""
        directories = {inode: dict(names) for inode, names in self.directories.items()}
        for number, names in self.renames:
            if number in numbers:
                self._rename(directories, names)
        files = {}
        for inode, file in self.files.items():
            size, sectors = file.size, file.sectors
            if file.sizes and (chosen := choose(file.sizes)):
                size = chosen[1]
            if file.versions:
                sectors = dict(sectors)
                for sector, versions in file.versions.items():
                    if chosen := choose(versions):
                        sectors[sector] = chosen[1]
            files[inode] = (size, _within(sectors, size) if file.sizes else sectors)
        return Contents(files, directories)


def _within(sectors, size):
    """Return the sectors before the end of a file; what is beyond it reads as zeros, should it grow again."""
    last, octets = divmod(size, SECTOR)
    within = {number: sector for number, sector in sectors.items() if number < last}
    if octets and last in sectors:
        within[last] = sectors[last][:octets].ljust(SECTOR, b"\0")
    return within


def _newest(versions):
    return versions[-1] if versions else None
