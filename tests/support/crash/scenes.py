"""Short stories, each told for a few syncs: all that matters happens in a dozen calls, so that every moment of them is
examined, with each state that a power cut may leave there.

    @scene()
    def exports_are_kept(stage):       what a program does; the kernel's calls go to the recorder
        …
        stage.from_here()              the moments before are not looked at
        stage.always("x", check)       from here on ``check(root)`` is true of whatever a crash leaves
"""

import asyncio
import copy
import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import NamedTuple

from panloom.disk_io import close_file, open_file, set_size, write_fully
from panloom.durable_names import Directory, PartialFile, make_directory
from panloom.errors import PanloomError, UnavailableError
from panloom.protocol.scsi_reservations import NexusName, Registration
from panloom.protocol.scsi_reservations import Reservations as ReservationState
from panloom.state.sqlite import SqliteStore
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile
from panloom.storage.flattening import Flattening
from panloom.storage.overlay import Volume, this_boot
from panloom.storage.unit_table import UnitTable
from panloom.values import Iqn
from panloom.wire import scsi_cdb
from panloom.wire.scsi_cdb import Operation
from support.crash.chapter import NOTHING, Chapter, Finding, Violation, boot_of_the_machine
from support.crash.conversation import INITIATOR, Session
from support.crash.disk import Contents
from support.crash.recorder import Killed, Recorder, refuse
from support.crash.sqlite_recorder import SQLITE
from support.crash.state_story import PLACE as STATE
from support.crash.state_story import older_format
from support.crash.volume_promise import Running
from support.crash.volume_story import Connection

LIMIT = 64  # states that a power cut may leave, of one moment: nearly always all
CLUSTER = 4096
IDENTITY = b"\x31234567"
TARGET = "iqn.2026-11.dev.panloom:shop.v"
EXPORT = Export(TARGET, 1, (ExportedLun(0, volume="v"),), Access(INITIATOR.name))


class Scene(NamedTuple):
    """A function that is given a stage, and what the disk holds before."""

    play: Callable
    contents: Contents


SCENES = {}


def scene(contents=NOTHING):
    """Make a scene of a function, by its name."""

    def make(play):
        SCENES[play.__name__] = Scene(play, contents)
        return play

    return make


class Checks:
    """What was promised: by name, what must be true of what is left."""

    def __init__(self):
        self.notes = 0  # how often it was changed
        self.checks = {}

    def check(self, root, *, power_cut):
        """Raise ``Violation`` unless all of it is; kill and power cut leave the same."""
        for name, check in self.checks.items():
            try:
                holds = check(root)
            except (PanloomError, OSError, sqlite3.Error) as error:
                raise Violation(f"{name}: {error}") from error
            if not holds:
                raise Violation(name)


class Stage:
    """Where a scene is played."""

    def __init__(self, root, recorder):
        self.root = root
        self.recorder = recorder
        self.first = 0

    def from_here(self):
        """Have the moments from here on examined."""
        self.first = len(self.recorder.log)

    def always(self, name, check):
        """Promise that this is true from here on."""
        self.recorder.mark(lambda promise: promise.checks.__setitem__(name, check))

    @contextmanager
    def dying_at_sync(self, number):
        """Be killed at the so many-th sync from here, counted from 0, and go on as another process."""
        self.recorder.die_at_sync(number)
        with closing_locks(self.recorder):
            yield
            raise AssertionError("there was no such sync")

    @contextmanager
    def failing(self, name, number, code):
        """Let the so many-th call of this name fail, and what the block asks for be refused."""
        self.recorder.faults = _Once(name, number, code)
        try:
            yield
        except OSError:
            return
        finally:
            self.recorder.faults = None
        raise AssertionError(f"there was no such {name}, or nobody minded")


class _Once:
    def __init__(self, name, number, code):
        self._name, self._left, self._code = name, number, code

    def __call__(self, name, arguments):
        if name == self._name:
            self._left -= 1
            if self._left == -1:
                refuse(self._code)


@contextmanager
def closing_locks(recorder):
    """End with the death of the process."""
    try:
        yield
    except (Killed, UnavailableError):
        if not recorder.dead:
            raise
    recorder.revive()


def tell(name, directory):
    """Return the chapter that a scene makes, and the entry of its log from which it is to be examined."""
    play, contents = SCENES[name]
    root = directory / "stage"
    root.mkdir()
    contents.write_to(root)
    chapter = Chapter(1, contents, Checks(), [])
    with boot_of_the_machine(directory, 1), Recorder(root, contents) as recorder:
        chapter.log = recorder.log
        stage = Stage(root, recorder)
        play(stage)
        recorder.kill()
    return chapter, stage.first


def examine(examination, name):
    """Look at every moment of a scene; one that goes wrong while it is played is a violation."""
    place = examination.directory / name
    place.mkdir()
    try:
        chapter, first = tell(name, place)
    except (AssertionError, PanloomError, OSError) as error:
        examination.violations.append(Finding(0, 0, 0, "none, while it was played", repr(error)))
    else:
        examination.examine([copy.copy(chapter)], 0, limit=LIMIT, first=first)


# --- files and their names


@scene()
def a_file_in_new_directories(stage):
    directory = Directory(stage.root / "a" / "b")
    with PartialFile(directory, "x", 0o600) as file:
        write_fully(file.fd, [b"x" * 1500], 0)
        file.appear("x")
    stage.always("x is whole", lambda root: (root / "a" / "b" / "x").read_bytes() == b"x" * 1500)


@scene()
def a_name_that_is_seen_after_it_could_not_be_made_durable(stage):
    directory = Directory(stage.root / "a")
    with stage.failing("open", 1, errno.EMFILE), PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    if directory.holds("x"):
        stage.always("x is there", lambda root: (root / "a" / "x").exists())


@scene()
def a_list_of_names_after_one_could_not_be_made_durable(stage):
    directory = Directory(stage.root / "a")
    with stage.failing("open", 1, errno.EMFILE), PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    if "x" in directory.names():
        stage.always("x is there", lambda root: (root / "a" / "x").exists())


@scene()
def a_second_name(stage):
    directory = _directory_with_x(stage)
    directory.link("x", "y")
    stage.always("y is there", lambda root: (root / "a" / "y").exists())


@scene()
def another_name(stage):
    directory = _directory_with_x(stage)
    directory.move("x", "y")
    stage.always("y is there", lambda root: (root / "a" / "y").exists())


@scene()
def a_name_that_is_gone(stage):
    directory = _directory_with_x(stage)
    directory.remove("x")
    stage.always("x is gone", lambda root: not (root / "a" / "x").exists())


def _directory_with_x(stage):
    directory = Directory(stage.root / "a")
    with PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    stage.from_here()
    return directory


# --- exports


@scene()
def exports_in_a_directory_of_their_own(stage):
    ExportsFile(stage.root / "etc" / "exports.json").save([EXPORT])
    stage.always("it is exported", _is_exported)


@scene()
def exports_on_a_full_disk(stage):
    file = ExportsFile(stage.root / "etc" / "exports.json")
    file.save([])
    stage.recorder.faults = _Once("pwritev", 0, errno.ENOSPC)
    file.save([EXPORT])
    stage.recorder.faults = None
    stage.always("it is exported", _is_exported)


def _is_exported(root):
    return TARGET in ExportsFile(root / "etc" / "exports.json").load()


@scene()
def an_export_that_is_forgotten_at_the_second_attempt(stage):
    with Running(stage.root) as running:
        _create(running)
        running.manager.export(EXPORT)
        stage.from_here()
        with stage.failing("rename", 1, errno.EIO):
            running.manager.unexport(TARGET, 1)
        running.manager.unexport(TARGET, 1)
        stage.always("it is not exported", lambda root: not _running(root, lambda it: it.manager._exports))


@scene()
def an_epoch_that_was_being_raised_when_the_process_died(stage):
    """The header that is in the kernel's cache only is on the disk before the next one takes the other's place."""
    running = Running(stage.root)
    _create(running)
    running.manager.export(EXPORT)
    running.manager.unexport(TARGET, 1)
    stage.always("the epoch is known", lambda root: _running(root, lambda it: it.store.open("v").epoch >= 1))
    running.store.open("v")
    with stage.dying_at_sync(0):
        try:
            running.manager.export(_under(2))
        finally:
            running.kill()
    stage.from_here()
    with Running(stage.root) as running:
        running.manager.export(_under(3))


@scene()
def a_volume_that_grows_after_the_process_died_while_its_epoch_was_being_raised(stage):
    running = Running(stage.root)
    _create(running)
    running.store.open("v").raise_epoch(1)
    stage.always("the epoch is known", lambda root: _running(root, lambda it: it.store.open("v").epoch >= 1))
    with stage.dying_at_sync(0):
        try:
            running.store.open("v").raise_epoch(2)
        finally:
            running.kill()
    stage.from_here()
    with Running(stage.root) as running:
        running.store.grow("v", 3 * CLUSTER)


@scene()
def an_epoch_that_only_a_volume_remembers(stage):
    with Running(stage.root) as running:
        _create(running)
        running.manager.export(EXPORT)
        stage.from_here()
        running.manager.unexport(TARGET, 7)
        stage.always("the epoch is known", lambda root: _running(root, lambda it: _refuses(it, 6)))


@scene()
def a_fence(stage):
    with Running(stage.root) as running:
        _create(running)
        running.manager.export(EXPORT)
        stage.from_here()
        running.manager.revoke(TARGET, 5)
        stage.always("the epoch is known", lambda root: _running(root, lambda it: _refuses(it, 4)))


def _refuses(running, epoch):
    try:
        running.store.open("v").grant(epoch)
    except StaleEpochError:
        return True
    return False


def _under(epoch):
    return Export(TARGET, epoch, EXPORT.luns, EXPORT.access)


# --- volumes


def _create(running, clusters=2):
    running.store.create("v", None, clusters * CLUSTER)


def _running(root, look):
    with Running(root) as running:
        return look(running)


def _write(running, name, offset, octets):
    volume = running.store.open(name)
    volume.write(volume.grant(volume.epoch), offset, memoryview(octets))


def _reads(name, octets):
    return lambda root: _running(root, lambda it: it.read(name)[0] == octets)


@scene()
def a_volume_that_is_asked_for_twice(stage):
    with Running(stage.root) as running:
        stage.from_here()
        with stage.failing("open", 1, errno.EMFILE):
            _create(running)
        _create(running)
        stage.always("it is there", _reads("v", bytes(2 * CLUSTER)))


@scene()
def what_was_flushed(stage):
    with Running(stage.root) as running:
        _create(running)
        stage.from_here()
        _write(running, "v", 512, b"a" * CLUSTER)
        running.store.open("v").flush()
        stage.always("it is there", _reads("v", (bytes(512) + b"a" * CLUSTER).ljust(2 * CLUSTER, b"\0")))


@scene()
def what_was_written_once_more_and_flushed(stage):
    with Running(stage.root) as running:
        _create(running)
        _write(running, "v", 0, b"a" * CLUSTER)
        running.store.open("v").flush()
        stage.from_here()
        _write(running, "v", 0, b"b" * CLUSTER)
        running.store.open("v").flush()
        stage.always("it is there", _reads("v", (b"b" * CLUSTER).ljust(2 * CLUSTER, b"\0")))


@scene()
def a_snapshot(stage):
    with Running(stage.root) as running:
        _create(running)
        _write(running, "v", 0, b"a" * CLUSTER)
        running.store.open("v").flush()
        whole = (b"a" * CLUSTER).ljust(2 * CLUSTER, b"\0")
        stage.from_here()
        stage.always("the volume is whole", _reads("v", whole))
        running.store.snapshot("v@s")
        stage.always("the snapshot is whole", lambda root: _running(root, lambda it: it.read_snapshot("v@s")) == whole)


@scene()
def what_was_written_before_a_snapshot(stage):
    with Running(stage.root) as running:
        _create(running)
        stage.from_here()
        _write(running, "v", 0, b"a" * CLUSTER)
        running.store.snapshot("v@s")
        stage.always("it is there", _reads("v", (b"a" * CLUSTER).ljust(2 * CLUSTER, b"\0")))


@scene()
def what_a_deleted_snapshot_left(stage):
    with Running(stage.root) as running:
        whole = _volume_over_a_snapshot(running)
        stage.from_here()
        stage.always("the volume is whole", _reads("v", whole))
        running.store.delete_snapshot("v@s")
        stage.always("it has no name", lambda root: not _running(root, lambda it: it.store.facts().snapshots))
        _in_background(running, lambda flattening: flattening.tidy())
        if running.store.to_absorb():
            raise AssertionError("it was not absorbed")


@scene()
def a_flattened_clone(stage):
    with Running(stage.root) as running:
        whole = _volume_over_a_snapshot(running)
        running.store.create("c", None, 0, snapshot="v@s")
        stage.from_here()
        stage.always("the clone is whole", _reads("c", whole[:CLUSTER].ljust(2 * CLUSTER, b"\0")))

        def begin(flattening):
            flattening.begin("c")
            stage.always("it is known or done", lambda root: _running(root, _is_flat_or_flattening))

        _in_background(running, begin)
        stage.always("it is flat", lambda root: _running(root, lambda it: it.store.open("c").header.flat))
        running.store.delete_snapshot("v@s")


@scene()
def a_clone_whose_flattening_a_killed_process_began(stage):
    with Running(stage.root) as running:
        _volume_over_a_snapshot(running)
        running.store.create("c", None, 0, snapshot="v@s")
        running.store.open("c")
        stage.from_here()
        running.store.open("c").begin_flattening()
        stage.always("it is known", lambda root: _running(root, lambda it: it.store.open("c").header.flattening))


def _is_flat_or_flattening(running):
    header = running.store.open("c").header
    return header.flat or header.flattening


def _in_background(running, begin):
    flattening = Flattening(running.store)
    begin(flattening)
    for thread in tuple(flattening._threads.values()):
        thread.join()


def _volume_over_a_snapshot(running):
    _create(running)
    _write(running, "v", 0, b"a" * CLUSTER)
    running.store.snapshot("v@s")
    _write(running, "v", CLUSTER, b"b" * CLUSTER)
    running.store.open("v").flush()
    return b"a" * CLUSTER + b"b" * CLUSTER


@scene()
def a_larger_disk(stage):
    with Running(stage.root) as running:
        _create(running)
        stage.from_here()
        running.manager.grow_volume("v", 3 * CLUSTER)
        stage.always("it is larger", _reads("v", bytes(3 * CLUSTER)))


def _log_in(running, *, immediate):
    manager, target = running.manager, Iqn(TARGET)
    admission = manager.admit(INITIATOR, target, manager.credentials(INITIATOR, target, ""), Connection())
    return Session(admission.descriptors, immediate=immediate)


def _has_cache(session):
    """Return WCE of the caching mode page (SBC-4 r22 6.5.5)."""
    if session.command(scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 8, 8, 0, 64), octets_in=64):
        raise AssertionError("MODE SENSE is refused")
    return bool(session.data[4 + 2] & 0x04)


def _without_cache(stage, *, immediate):
    """A unit that says that it has no cache keeps whatever it has answered."""
    with Running(stage.root) as running:
        _create(running)
        running.manager.export(EXPORT)
        session = _log_in(running, immediate=immediate)
        stage.from_here()
        if _has_cache(session):
            page = bytes((0, 0, 0, 0, 8, 18)) + bytes(18)
            if session.command(scsi_cdb.ModeSelect(Operation.MODE_SELECT_6, 0x10, len(page)), page):
                raise AssertionError("MODE SELECT is refused")
        if _has_cache(session):
            raise AssertionError("it still has a cache")
        if session.write(1, b"a" * 512):
            raise AssertionError("a write is refused")
        stage.always("it is there", _reads("v", (bytes(512) + b"a" * 512).ljust(2 * CLUSTER, b"\0")))


@scene()
def a_write_to_a_unit_without_cache(stage):
    _without_cache(stage, immediate=True)


@scene()
def a_write_that_a_unit_without_cache_asks_for(stage):
    _without_cache(stage, immediate=False)


@scene()
def a_reservation_that_is_to_outlive_the_process(stage):
    registered = (Registration(NexusName("i", "t"), 5),)
    unit = UnitTable(stage.root / "units")._of(IDENTITY)
    for generation in (1, 2):
        with unit.keeping:
            unit.remember(reservations=ReservationState(generation, registered, durable=True))
        stage.always("it is known", lambda root, least=generation: _generation(root) >= least)


def _generation(root):
    return UnitTable(root / "units")._of(IDENTITY).reservations.generation


def header_of_version_1(sequence, epoch, boot, octets=1 << 20):
    """Return a header page as version 1 wrote it."""
    fields = struct.pack(
        ">8sIIQQQQ8s16s32s256s", b"PANLOOMV", 1, 4096, sequence, epoch, octets, 0, IDENTITY, boot, b"", b""
    )
    page = fields.ljust(4092, b"\0")
    return page + zlib.crc32(page).to_bytes(4, "big")


@scene()
def the_first_opening_of_version_1(stage):
    """What the older program wrote last is on the disk before the next header takes the other's place."""
    boot, octets = this_boot(), 2 * CLUSTER
    directory = Directory(stage.root / "v")
    with PartialFile(directory, "v", 0o600) as file:
        pages = [header_of_version_1(8, 9, boot, octets), header_of_version_1(7, 3, boot, octets)]
        write_fully(file.fd, pages, 0)
        set_size(file.fd, 2 * CLUSTER + 2 * CLUSTER + octets)
        path = file.appear("v")
    killed = open_file(path, os.O_RDWR)
    write_fully(killed, [header_of_version_1(9, 10, boot, octets)], CLUSTER)
    close_file(killed)
    stage.from_here()
    stage.always("the epoch is known", lambda root: Volume.open(root / "v" / "v", None).epoch in (9, 10))
    Volume.open(path, None)


# --- state


@scene()
def a_commit_that_a_killed_process_left_in_the_cache(stage):
    """The next process relies on it, so it makes it durable before anybody reads it."""
    with SQLITE.to(stage.recorder):
        asyncio.run(_commit(stage, 1))
        with closing_locks(stage.recorder):
            asyncio.run(_commit(stage, 2, killed=True))
        stage.from_here()
        asyncio.run(_commit(stage, None))


@scene()
def a_store_that_a_killed_process_was_making(stage):
    """Its names are in the kernel's cache only, and SQLite syncs the directory only for a log that it makes itself."""
    with SQLITE.to(stage.recorder):
        with closing_locks(stage.recorder):
            stage.recorder.faults = _DyingAtLog(stage.recorder)
            asyncio.run(_commit(stage, None))
        stage.recorder.faults = None
        stage.from_here()
        asyncio.run(_commit(stage, 1))


class _DyingAtLog:
    """Kills the process when SQLite first syncs its log."""

    def __init__(self, recorder):
        self._recorder = recorder

    def __call__(self, name, arguments):
        if name == "fsync" and str(arguments[0]).endswith("-wal"):
            self._recorder.kill()
            raise Killed


@scene(older_format())
def a_store_of_the_format_before(stage):
    """Before it is brought forward there is a copy of it, whole."""
    stage.always("what was there is kept", _is_brought_forward_or_not)
    with SQLITE.to(stage.recorder):
        asyncio.run(_commit(stage, 1))


async def _commit(stage, number, *, killed=False):
    path = stage.root / STATE
    make_directory(path.parent)
    store = await SqliteStore.open(path)
    try:
        seen = {entry.key for entry in (await store.range("/want/")).entries}
        stage.always("what was read", lambda root: asyncio.run(_keys(root / STATE)) >= seen)
        if killed:
            stage.recorder.die_at_sync(1)  # the first is that of the new log's header
        if number:
            await store.commit(expect={}, put={f"/want/{number}": b"x" * 600})
            stage.always(f"commit {number}", lambda root: f"/want/{number}" in asyncio.run(_keys(root / STATE)))
    finally:
        await store.close()


async def _keys(path):
    make_directory(path.parent)
    store = await SqliteStore.open(path)
    try:
        return {entry.key for entry in (await store.range("/want/")).entries}
    finally:
        await store.close()


def _is_brought_forward_or_not(root):
    path = root / STATE
    with closing(sqlite3.connect(path)) as database:
        ((version,),) = database.execute("PRAGMA user_version")
    if version == 1:
        return "/want/node/n1" in asyncio.run(_keys(path))
    with closing(sqlite3.connect(path.with_name(f"{path.name}.v1.bak"))) as database:
        ((version,),) = database.execute("PRAGMA user_version")
        keys = {key for (key,) in database.execute("SELECT key FROM entry")}
        sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return version == 1 and "/want/node/n1" in keys and sound
