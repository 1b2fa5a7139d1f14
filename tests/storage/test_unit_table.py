"""Units that sessions share: what one does the others feel, and what is to survive a restart does."""

import errno

import pytest

from panloom.errors import ConfigError
from panloom.protocol.scsi_reservations import NexusName
from panloom.protocol.scsi_verdicts import Busy, Conflict
from panloom.storage.unit_table import UnitTable
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_reserve import ReserveParameters, encode_parameters
from support.commands import do
from support.iscsi_peer import MemoryDisk
from support.units import tell

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
WRITE = BlockCommand(Operation.WRITE_10, 0, 0, 1)
READ_KEYS = scsi_cdb.PersistentReserveIn(scsi_cdb.READ_KEYS, 255)
READY = scsi_cdb.Plain(Operation.TEST_UNIT_READY)


def names(number, target=TARGET):
    return NexusName(f"iqn.2026-11.dev.panloom:node.n{number},i,0x80000000000{number}", target)


@pytest.fixture
def disk():
    return MemoryDisk()


def joined(table, disk, number, target=TARGET):
    units = table.join({0: disk.descriptor}, names(number, target))
    tell(units)
    return units


def reserve(units, action, *, key=0, new=0, kind=0, durable=False):
    parameters = encode_parameters(ReserveParameters(key, new, durable))
    return do(units, scsi_cdb.PersistentReserveOut(action, kind, len(parameters)), parameters)


def keys(units):
    octets = do(units, READ_KEYS)
    return int.from_bytes(octets[:4], "big"), [octets[at : at + 8][-1] for at in range(8, len(octets), 8)]


def test_a_reservation_shuts_the_other_session_out_of_the_hot_path_too(disk):
    table = UnitTable()
    one, other = joined(table, disk, 1), joined(table, disk, 2)
    assert not one.unusual | other.unusual
    assert reserve(one, scsi_cdb.REGISTER, new=1) == b""
    assert reserve(one, scsi_cdb.RESERVE, key=1, kind=1) == b""
    assert other.unusual == {lun_field(0)}
    assert not one.unusual
    assert do(other, WRITE) == Conflict()
    other.leave()
    one.leave()
    assert do(joined(table, disk, 2), WRITE) == Conflict()  # reservations outlive sessions


def test_reserve_6_ends_with_its_session(disk):
    table = UnitTable()
    one, other = joined(table, disk, 1), joined(table, disk, 2)
    assert do(one, scsi_cdb.Plain(Operation.RESERVE_6)) == b""
    assert do(other, READY) == Conflict()
    one.leave()
    assert do(other, READY) == b""


def test_preempt_and_abort_waits_for_the_victims(disk):
    table = UnitTable()
    one, other = joined(table, disk, 1), joined(table, disk, 2)
    reserve(one, scsi_cdb.REGISTER, new=1)
    reserve(other, scsi_cdb.REGISTER, new=2)
    waited = []
    other.nexuses[0].abort = lambda: waited.append("abort")
    other.nexuses[0].await_quiet = lambda: waited.append("quiet")
    assert reserve(one, scsi_cdb.PREEMPT_AND_ABORT, key=1, new=2, kind=1) == b""
    assert waited == ["abort", "quiet"]
    assert do(other, READY) == scsi_sense.REGISTRATIONS_PREEMPTED


@pytest.mark.parametrize("target", [TARGET, "iqn.2026-11.dev.panloom:shop.web2"])
def test_aptpl_survives_a_kill_and_a_move_of_the_export(disk, tmp_path, target):
    table = UnitTable(tmp_path / "units")
    one = joined(table, disk, 1)
    reserve(one, scsi_cdb.REGISTER, new=1, durable=True)
    reserve(one, scsi_cdb.RESERVE, key=1, kind=3)
    before = keys(one)
    after = UnitTable(tmp_path / "units")  # nothing was closed: as after kill -9
    other = joined(after, disk, 2, target)
    assert keys(other) == before
    assert do(other, WRITE) == Conflict()
    assert reserve(joined(after, disk, 1), scsi_cdb.RELEASE, key=1, kind=3) == b""
    assert keys(joined(UnitTable(tmp_path / "units"), disk, 2))[0] == before[0]
    assert do(joined(UnitTable(tmp_path / "units"), disk, 2), READY) == b""


def test_without_aptpl_a_restart_forgets(disk, tmp_path):
    table = UnitTable(tmp_path / "units")
    one = joined(table, disk, 1)
    reserve(one, scsi_cdb.REGISTER, new=1, durable=True)
    reserve(one, scsi_cdb.REGISTER_AND_IGNORE_EXISTING_KEY, new=2)  # and not durable any more
    assert keys(joined(UnitTable(tmp_path / "units"), disk, 2))[1] == []


def test_nothing_counts_that_could_not_be_made_durable(disk, tmp_path):
    table = UnitTable(tmp_path / "units")
    one = joined(table, disk, 1)
    with instead_of_the_kernel(SystemCalls(pwritev=full)):
        answer = reserve(one, scsi_cdb.REGISTER, new=1, durable=True)
    assert answer == scsi_sense.INSUFFICIENT_REGISTRATION_RESOURCES
    assert keys(one) == (0, [])
    assert reserve(one, scsi_cdb.REGISTER, new=1, durable=True) == b""


def full(*_):
    raise OSError(errno.ENOSPC, "no space left on device")


def test_aptpl_is_refused_where_nothing_is_kept(disk):
    one = joined(UnitTable(), disk, 1)
    assert reserve(one, scsi_cdb.REGISTER, new=1, durable=True) == scsi_sense.INVALID_FIELD_IN_PARAMETERS
    assert do(one, scsi_cdb.PersistentReserveIn(scsi_cdb.REPORT_CAPABILITIES, 8))[2] & 1 == 0


ATOMIC = scsi_cdb.WriteAtomic(0, 8, 0, 8)
WANTED = b"new data" * 512


def test_a_write_atomic_is_whole_after_a_crash_in_its_middle(disk, tmp_path):
    one = joined(UnitTable(tmp_path / "units"), disk, 1)
    begun = disk.write
    disk.write = lambda offset, data: (begun(offset, data[:512]), crash())
    with pytest.raises(Crash):
        do(one, ATOMIC, WANTED, descriptors={0: disk.descriptor})
    disk.write = begun
    after = joined(UnitTable(tmp_path / "units"), disk, 2)  # the process that was killed has forgotten nothing
    assert bytes(disk.octets[4096:8192]) == WANTED
    assert do(after, ATOMIC, bytes(4096), descriptors={0: disk.descriptor}) == b""
    disk.octets[4096:8192] = WANTED  # what is over is not done again
    joined(UnitTable(tmp_path / "units"), disk, 2)
    assert bytes(disk.octets[4096:8192]) == WANTED


def test_nobody_else_writes_while_a_write_atomic_is_under_way(disk, tmp_path):
    table = UnitTable(tmp_path / "units")
    one, other = joined(table, disk, 1), joined(table, disk, 2)
    answers = []
    begun = disk.write
    disk.write = lambda offset, data: (answers.append(do(other, WRITE)), begun(offset, data))
    assert do(one, ATOMIC, WANTED, descriptors={0: disk.descriptor}) == b""
    assert answers == [Busy()]
    assert not other.unusual


def test_write_atomic_is_not_there_where_nothing_is_kept(disk):
    one = joined(UnitTable(), disk, 1)
    assert do(one, ATOMIC) == scsi_sense.INVALID_OPERATION
    assert do(one, scsi_cdb.Inquiry(1, 0xB0, 64))[44:56] == bytes(12)


class Crash(BaseException):
    """The process ends here."""


def crash():
    raise Crash


@pytest.mark.parametrize("cut", [0, 31, 40, -1])
def test_a_torn_file_is_found_out(disk, tmp_path, cut):
    table = UnitTable(tmp_path / "units")
    reserve(joined(table, disk, 1), scsi_cdb.REGISTER, new=1, durable=True)
    (path,) = (tmp_path / "units").glob("*.unit")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match="is damaged"):
        UnitTable(tmp_path / "units").join({0: disk.descriptor}, names(1))
