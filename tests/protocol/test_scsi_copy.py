"""EXTENDED COPY: only between units that the initiator sees, and nothing before all of it is checked."""

import pytest

from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.wire import scsi_cdb, scsi_copy, scsi_sense
from panloom.wire.scsi_cdb import Operation
from panloom.wire.scsi_copy import CopyHeader, Segment, Target
from support.commands import do
from support.iscsi_peer import MemoryDisk
from support.units import tell

IDENTITIES = {lun: bytes.fromhex(f"300000000000000{lun}") for lun in (0, 1, 2)}


@pytest.fixture
def disks():
    return {lun: MemoryDisk(64) for lun in (0, 1)}


@pytest.fixture
def shared():
    return {lun: LogicalUnit() for lun in (0, 1)}


@pytest.fixture
def units(shared):
    return joined(shared)


def joined(shared, read_only=False):
    disks = {
        lun: Disk(blocks=64, read_only=read_only and lun == 1, identity=IDENTITIES[lun], serial="", product="")
        for lun in (0, 1)
    }
    units = LogicalUnits(disks, units=shared)
    tell(units)
    return units


def copy(units, disks, *segments, targets=(0, 1)):
    named = tuple(Target(0xE4, bytes((1, 3, 0, 8)) + IDENTITIES[lun], 512) for lun in targets)
    header = CopyHeader(7, 0, 32 * len(named), 28 * len(segments), 0)
    parameters = scsi_copy.encode_list(header, named, segments)
    descriptors = {lun: disk.descriptor for lun, disk in disks.items()}
    return do(units, scsi_cdb.ExtendedCopy(0, len(parameters)), parameters, descriptors=descriptors)


def status(units):
    return do(units, scsi_cdb.ReceiveCopyResults(scsi_cdb.COPY_STATUS, 7, 255))


def test_blocks_of_one_unit_are_in_the_other(units, disks):
    wanted = bytes(disks[0].octets[512:2048])
    assert copy(units, disks, Segment(2, 0, 1, 3, 1, 10), Segment(2, 1, 0, 1, 10, 63)) == b""
    assert bytes(disks[1].octets[5120:6656]) == wanted
    assert bytes(disks[0].octets[-512:]) == wanted[:512]
    assert status(units).hex() == "00000008" + "01" + "0002" + "01" + "00000002"
    assert status(units) == scsi_sense.INVALID_FIELD_IN_CDB  # it is told once


@pytest.mark.parametrize(
    ("segment", "targets", "sense"),
    [
        (Segment(2, 0, 1, 1, 0, 0), (0, 2), scsi_sense.UNREACHABLE_COPY_TARGET),  # nobody has shown it that one
        (Segment(2, 0, 2, 1, 0, 0), (0, 1), scsi_sense.UNREACHABLE_COPY_TARGET),
        (Segment(2, 0, 1, 2, 63, 0), (0, 1), scsi_sense.COPY_ABORTED),
        (Segment(2, 0, 1, 1, 0, 64), (0, 1), scsi_sense.COPY_ABORTED),
        (Segment(2, 0, 1, 1, 0, 2**64 - 1), (0, 1), scsi_sense.COPY_ABORTED),
        (Segment(5, 0, 1, 1, 0, 0), (0, 1), scsi_sense.UNSUPPORTED_SEGMENT_DESCRIPTOR),
        (Segment(2, 0, 1, 1, 0, 0), (0, 1, 0, 1, 0), scsi_sense.TOO_MANY_TARGET_DESCRIPTORS),
    ],
)
def test_one_segment_that_is_wrong_and_none_is_copied(units, disks, segment, targets, sense):
    before = bytes(disks[1].octets)
    assert copy(units, disks, Segment(2, 0, 1, 4, 0, 20), segment, targets=targets) == sense
    assert bytes(disks[1].octets) == before


def test_a_unit_that_may_not_be_written_takes_no_copy(shared, disks):
    assert copy(joined(shared, read_only=True), disks, Segment(2, 0, 1, 1, 0, 0)) == (
        scsi_sense.COPY_TARGET_NOT_REACHABLE
    )
    other, units = joined(shared), joined(shared)
    assert do(other, scsi_cdb.Plain(Operation.RESERVE_6), lun=1) == b""
    assert copy(units, disks, Segment(2, 0, 1, 1, 0, 0)) == scsi_sense.COPY_TARGET_NOT_REACHABLE
    other.leave()
    assert copy(units, disks, Segment(2, 0, 1, 1, 0, 0)) == b""


def test_a_disk_that_fails_aborts_the_copy(units, disks):
    disks[0].errors["read"] = 5
    assert copy(units, disks, Segment(2, 0, 1, 1, 0, 0)) == scsi_sense.COPY_ABORTED
    assert status(units)[4] == 0x02
