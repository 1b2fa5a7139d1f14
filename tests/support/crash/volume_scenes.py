"""Scenes of exports, volumes and units."""

import errno
import os
import struct
import zlib
from contextlib import contextmanager

from panloom.disk_io import close_file, open_file, set_size, write_fully
from panloom.durable_names import Directory, PartialFile
from panloom.protocol.scsi_reservations import NexusName, Registration
from panloom.protocol.scsi_reservations import Reservations as ReservationState
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile
from panloom.storage.flattening import Flattening
from panloom.storage.limits import Limits
from panloom.storage.overlay import Volume, this_boot
from panloom.storage.unit_table import UnitTable
from panloom.values import Iqn
from panloom.wire import scsi_cdb
from panloom.wire.scsi_cdb import Operation
from support.crash.conversation import INITIATOR, Session
from support.crash.stage import Once, scene
from support.crash.volume_promise import Running
from support.crash.volume_story import Connection

CLUSTER = 4096
IDENTITY = b"\x31234567"
LIMITS = Limits(operations=100)
TARGET = "iqn.2026-11.dev.panloom:shop.v"
EXPORT = Export(TARGET, 1, (ExportedLun(0, volume="v"),), Access(INITIATOR.name))


@contextmanager
def _volume(stage, octets=b"", *, exported=False):
    """Have a volume of two clusters that begins with these octets on the disk; what is done then is looked at."""
    with Running(stage.root) as running:
        _create(running)
        if octets:
            _write_and_flush(running, octets)
        if exported:
            running.manager.export(EXPORT)
        stage.from_here()
        yield running


def _create(running):
    running.store.create("v", None, 2 * CLUSTER)


def _write(running, offset, octets):
    volume = running.store.open("v")
    volume.write(volume.grant(volume.epoch), offset, memoryview(octets))


def _write_and_flush(running, octets, *, offset=0):
    _write(running, offset, octets)
    running.store.open("v").flush()


def _running(root, look):
    with Running(root) as running:
        return look(running)


def _reads(name, octets):
    """Return a check that a volume holds these octets, and zeros to the end of the second cluster."""
    whole = octets.ljust(2 * CLUSTER, b"\0")
    return lambda root: _running(root, lambda it: it.read(name)[0] == whole)


# --- exports


@scene()
def exports_in_a_directory_of_their_own(stage):
    ExportsFile(stage.root / "etc" / "exports.json").save([EXPORT])
    stage.always("it is exported", _is_exported)


@scene()
def exports_on_a_full_disk(stage):
    file = ExportsFile(stage.root / "etc" / "exports.json")
    file.save([])
    stage.recorder.faults = Once("pwritev", 0, errno.ENOSPC)
    file.save([EXPORT])
    stage.recorder.faults = None
    stage.always("it is exported", _is_exported)


def _is_exported(root):
    return TARGET in ExportsFile(root / "etc" / "exports.json").load()


@scene()
def limits_of_a_volume(stage):
    with _volume(stage, exported=True) as running:
        running.manager.limit_volume("v", LIMITS)
        stage.always("it has them", lambda root: _running(root, _limits) == [LIMITS])


def _limits(running):
    return [lun.limits for export in running.manager._exports.values() for lun in export.luns]


@scene()
def an_export_that_is_forgotten_at_the_second_attempt(stage):
    with _volume(stage, exported=True) as running:
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
    with _volume(stage, exported=True) as running:
        running.manager.unexport(TARGET, 7)
        stage.always("the epoch is known", lambda root: _running(root, lambda it: _refuses(it, 6)))


@scene()
def a_fence(stage):
    with _volume(stage, exported=True) as running:
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


# --- what is written


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
    with _volume(stage) as running:
        _write_and_flush(running, b"a" * CLUSTER, offset=512)
        stage.always("it is there", _reads("v", bytes(512) + b"a" * CLUSTER))


@scene()
def what_was_written_before_a_volume_was_closed(stage):
    with _volume(stage) as running:
        _write(running, 0, b"a" * CLUSTER)
        running.store.close("v")
        stage.always("it is there", _reads("v", b"a" * CLUSTER))


@scene()
def what_was_written_once_more_and_flushed(stage):
    with _volume(stage, b"a" * CLUSTER) as running:
        _write_and_flush(running, b"b" * CLUSTER)
        stage.always("it is there", _reads("v", b"b" * CLUSTER))


@scene()
def a_snapshot(stage):
    with _volume(stage, b"a" * CLUSTER) as running:
        whole = (b"a" * CLUSTER).ljust(2 * CLUSTER, b"\0")
        stage.always("the volume is whole", _reads("v", whole))
        running.store.snapshot("v@s")
        stage.always("the snapshot is whole", lambda root: _running(root, lambda it: it.read_snapshot("v@s")) == whole)


@scene()
def what_was_written_before_a_snapshot(stage):
    with _volume(stage) as running:
        _write(running, 0, b"a" * CLUSTER)
        running.store.snapshot("v@s")
        stage.always("it is there", _reads("v", b"a" * CLUSTER))


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
        stage.always("the clone is whole", _reads("c", whole[:CLUSTER]))

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
    _write(running, 0, b"a" * CLUSTER)
    running.store.snapshot("v@s")
    _write_and_flush(running, b"b" * CLUSTER, offset=CLUSTER)
    return b"a" * CLUSTER + b"b" * CLUSTER


@scene()
def a_larger_disk(stage):
    with _volume(stage) as running:
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
    with _volume(stage, exported=True) as running:
        session = _log_in(running, immediate=immediate)
        if _has_cache(session):
            page = bytes((0, 0, 0, 0, 8, 18)) + bytes(18)
            if session.command(scsi_cdb.ModeSelect(Operation.MODE_SELECT_6, 0x10, len(page)), page):
                raise AssertionError("MODE SELECT is refused")
        if _has_cache(session):
            raise AssertionError("it still has a cache")
        if session.write(1, b"a" * 512):
            raise AssertionError("a write is refused")
        stage.always("it is there", _reads("v", bytes(512) + b"a" * 512))


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
