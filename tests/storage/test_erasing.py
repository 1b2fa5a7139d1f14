"""SANITIZE on a disk: it goes on without its session and after a restart, and tells when it could not."""

import errno
import threading

import pytest

from panloom.protocol.scsi_reservations import NexusName
from panloom.storage import erasing
from panloom.storage.unit_table import UnitTable
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import Operation
from support.commands import do
from support.iscsi_peer import BLOCKS, MemoryDisk
from support.units import tell
from support.waiting import until

NAME = NexusName("iqn.2026-11.dev.panloom:node.n1,i,0x800000000001", "iqn.2026-11.dev.panloom:shop.web1")
READY = scsi_cdb.Plain(Operation.TEST_UNIT_READY)
PATTERN = bytes((1, 0, 2, 0)) + b"\xaa\x55" * 256


@pytest.fixture
def disk():
    disk = MemoryDisk()
    disk.write(0, memoryview(b"secret!!" * 64 * BLOCKS))
    return disk


def joined(table, disk):
    units = table.join({0: disk.descriptor}, NAME)
    tell(units)
    return units


def sanitize(units, disk, action, data=b"", options=0):
    command = scsi_cdb.Sanitize(action | options, bytes(5), len(data))
    return do(units, command, data, descriptors={0: disk.descriptor})


def content(disk):
    into = bytearray(512 * BLOCKS)
    disk.read(0, memoryview(into))
    return bytes(into)


@pytest.mark.parametrize("options", [0, scsi_cdb.SANITIZE_IMMEDIATE])
def test_overwrite(disk, options):
    units = joined(UnitTable(), disk)
    assert sanitize(units, disk, scsi_cdb.OVERWRITE, PATTERN, options) == b""
    until(lambda: do(units, READY) == b"", "it is done")
    assert content(disk) == b"\xaa\x55" * 256 * BLOCKS


def test_block_erase_gives_the_space_back(disk):
    units = joined(UnitTable(), disk)
    assert sanitize(units, disk, scsi_cdb.BLOCK_ERASE) == b""
    assert content(disk) == bytes(512 * BLOCKS)


def test_what_is_not_there_is_refused(disk):
    units = joined(UnitTable(), disk)
    for action, data in ((scsi_cdb.CRYPTOGRAPHIC_ERASE, b""), (scsi_cdb.BLOCK_ERASE, bytes(8)), (9, b"")):
        assert sanitize(units, disk, action, data) == scsi_sense.INVALID_FIELD_IN_CDB
    assert sanitize(units, disk, scsi_cdb.OVERWRITE, bytes(516)) == scsi_sense.INVALID_FIELD_IN_PARAMETERS
    assert content(disk) == b"secret!!" * 64 * BLOCKS


@pytest.mark.parametrize("options", [0, scsi_cdb.UNRESTRICTED_EXIT])
def test_a_disk_that_fails_leaves_the_unit_in_failure_mode_even_after_a_restart(disk, tmp_path, options):
    disk.errors["write"] = errno.EIO
    units = joined(UnitTable(tmp_path / "units"), disk)
    assert sanitize(units, disk, scsi_cdb.OVERWRITE, PATTERN, options) == scsi_sense.SANITIZE_FAILED
    disk.errors.clear()
    again = joined(UnitTable(tmp_path / "units"), disk)
    assert do(again, READY) == scsi_sense.SANITIZE_FAILED
    left = sanitize(again, disk, scsi_cdb.EXIT_FAILURE_MODE)
    assert left == (b"" if options else scsi_sense.INVALID_FIELD_IN_CDB)
    assert do(again, READY) == (b"" if options else scsi_sense.SANITIZE_FAILED)


def test_it_goes_on_with_the_next_session_when_the_first_is_fenced(disk, tmp_path):
    fenced = MemoryDisk()
    fenced.fenced = True
    units = joined(UnitTable(tmp_path / "units"), fenced)
    answer = sanitize(units, fenced, scsi_cdb.OVERWRITE, PATTERN)
    assert answer == scsi_sense.SANITIZE_UNDER_WAY
    table = UnitTable(tmp_path / "units")  # and the process is killed, too
    again = table.join({0: disk.descriptor}, NAME)
    tell(again)
    until(lambda: do(again, READY) == b"", "it is done")
    assert content(disk) == b"\xaa\x55" * 256 * BLOCKS
    table.stop()


def test_nobody_reads_while_it_is_under_way(disk, monkeypatch):
    monkeypatch.setattr(erasing, "OCTETS_A_SECOND", 1)
    table = UnitTable()
    units = joined(table, disk)
    assert sanitize(units, disk, scsi_cdb.OVERWRITE, PATTERN, scsi_cdb.SANITIZE_IMMEDIATE) == b""
    read = scsi_cdb.BlockCommand(Operation.READ_10, 0, 0, 1)
    assert do(units, read) == do(units, READY) == scsi_sense.SANITIZE_UNDER_WAY
    assert sanitize(units, disk, scsi_cdb.BLOCK_ERASE) == scsi_sense.SANITIZE_UNDER_WAY
    assert do(units, scsi_cdb.Inquiry(0, 0, 36))[8:15] == b"PANLOOM"
    table.stop()
    assert not any(thread.name.startswith("erase-") for thread in threading.enumerate())
