"""What a command decided to do, done on a disk that may fail."""

import errno

import pytest

from panloom.protocol.iscsi_task import Compare, WriteAndVerify
from panloom.protocol.scsi_disk import Deallocate, Fill, Flush
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.medium import PIECE_OCTETS, carry_out
from panloom.wire import scsi_sense
from support.blocks import write
from support.iscsi_peer import MemoryDisk


def test_every_deed():
    disk = MemoryDisk()
    write(disk.descriptor, 512, b"w" * 1024)
    assert carry_out(disk.descriptor, Fill(2048, 1024, b"f" * 512)) is None
    assert carry_out(disk.descriptor, Deallocate(((0, 512), (1024, 512)))) is None
    assert carry_out(disk.descriptor, Flush()) is None
    assert disk.octets[:3072] == bytes(512) + b"w" * 512 + bytes(512) + b"\3" * 512 + b"f" * 1024
    assert disk.calls[-1] == ("flush", 0, 0)


def test_compare():
    disk = MemoryDisk()
    assert carry_out(disk.descriptor, Compare(512, b"\1" * 512 + b"\2" * 512)) is None
    assert carry_out(disk.descriptor, Compare(512, b"\1" * 512 + b"\3" * 512)) == scsi_sense.miscompare(512)
    disk.errors["read"] = errno.EIO
    assert carry_out(disk.descriptor, Compare(512, b"\1" * 512)) == scsi_sense.UNRECOVERED_READ


@pytest.mark.parametrize("octets", [512, PIECE_OCTETS, PIECE_OCTETS + 512, 3 * PIECE_OCTETS - 512])
def test_a_fill_is_exact(octets):
    disk = MemoryDisk(8192)
    before = bytes(disk.octets)
    assert carry_out(disk.descriptor, Fill(512, octets, b"f" * 512)) is None
    assert disk.octets == before[:512] + b"f" * octets + before[512 + octets :]


DEEDS = [WriteAndVerify(0, b"w" * 512), Flush(), Deallocate(((0, 512),)), Fill(0, 512, b"f" * 512)]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: type(deed).__name__)
@pytest.mark.parametrize(
    ("error", "sense"),
    [
        (errno.ENOSPC, scsi_sense.NO_SPACE),
        (errno.EDQUOT, scsi_sense.NO_SPACE),
        (errno.EROFS, scsi_sense.WRITE_PROTECTED),
        (errno.EIO, scsi_sense.WRITE_FAILED),
    ],
)
def test_errors_become_sense(deed, error, sense):
    disk = MemoryDisk()
    disk.errors = dict.fromkeys(("write", "flush", "unmap"), error)
    assert carry_out(disk.descriptor, deed) == sense


@pytest.mark.parametrize("deed", [DEEDS[0], *DEEDS[2:]], ids=lambda deed: type(deed).__name__)
def test_a_stale_epoch_is_not_answered(deed):
    disk = MemoryDisk()
    disk.fenced = True
    with pytest.raises(StaleEpochError):
        carry_out(disk.descriptor, deed)
