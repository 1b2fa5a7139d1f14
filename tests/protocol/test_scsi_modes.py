"""Mode values that sessions share, and media that come and go: what one changes the others are told."""

import pytest

from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.protocol.scsi_verdicts import Fill, Flush, Store, Then
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.commands import do
from support.iscsi_peer import MemoryDisk
from support.units import tell

DISK = Disk(blocks=64, read_only=False, identity=bytes(8), serial="0001", product="web1", removable=True)
CACHING, CONTROL = 0x08, 0x0A
READY = scsi_cdb.Plain(Operation.TEST_UNIT_READY)
WRITE = BlockCommand(Operation.WRITE_10, 0, 1, 1)
EJECT, LOAD = scsi_cdb.StartStopUnit(0, 0x02), scsi_cdb.StartStopUnit(0, 0x03)


@pytest.fixture
def two():
    unit = LogicalUnit()
    sessions = [LogicalUnits({0: DISK}, units={0: unit}) for _ in range(2)]
    for session in sessions:
        tell(session)
    return sessions


def page(units, code, control=0):
    octets = do(units, scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, control << 6 | code, 0, 255))
    return octets[2], octets[6:]


def select(units, *pages, ten=False, flags=scsi_cdb.PAGE_FORMAT, header=None):
    parameters = (header or bytes(8 if ten else 4)) + b"".join(bytes((code, len(page))) + page for code, page in pages)
    operation = Operation.MODE_SELECT_10 if ten else Operation.MODE_SELECT_6
    descriptors = {0: MemoryDisk(64).descriptor}
    return do(units, scsi_cdb.ModeSelect(operation, flags, len(parameters)), parameters, descriptors=descriptors)


def interpret(units, command):
    return units.interpret(0, scsi_cdb.encode(command))


@pytest.mark.parametrize("ten", [False, True])
def test_without_a_write_cache_every_write_is_flushed_and_nobody_may_answer_for_it(two, ten):
    one, other = two
    assert interpret(other, WRITE) == Store(512, 512, flush=False)
    assert select(one, (CACHING, bytes(18)), ten=ten) == b""
    assert do(other, READY) == scsi_sense.MODE_PARAMETERS_CHANGED
    for units in two:
        assert page(units, CACHING)[1][:1] == b"\0"
        assert interpret(units, WRITE) == Store(512, 512, flush=True)
        assert units.unusual == {lun_field(0)}  # the hot path does not know of it
        same = interpret(units, BlockCommand(Operation.WRITE_SAME_16, scsi_cdb.SAME_NO_DATA, 0, 8))
        assert isinstance(same, Then) and isinstance(same.deed, Fill) and same.then() == Flush()
    assert page(one, CACHING, control=2)[1][:1] == b"\x04"  # the default
    one.reset(0)
    tell(one)
    assert page(one, CACHING)[1][:1] == b"\x04"
    assert not one.unusual


def test_the_cache_is_emptied_before_it_is_off(two):
    disk, parameters = MemoryDisk(64), bytes(4) + bytes((CACHING, 18)) + bytes(18)
    select = scsi_cdb.ModeSelect(Operation.MODE_SELECT_6, scsi_cdb.PAGE_FORMAT, len(parameters))
    assert do(two[0], select, parameters, descriptors={0: disk.descriptor}) == b""
    assert disk.calls == [("flush", 0, 0)]


def test_software_write_protection(two):
    one, other = two
    control = bytes((0, 0x10, 0x08)).ljust(10, b"\0")
    assert select(one, (CONTROL, control)) == b""
    assert do(other, READY) == scsi_sense.MODE_PARAMETERS_CHANGED
    assert do(other, WRITE) == scsi_sense.SOFTWARE_WRITE_PROTECTED
    assert page(other, CONTROL)[0] & 0x80
    assert select(one, (CONTROL, bytes((0, 0x10)).ljust(10, b"\0"))) == b""
    tell(other)
    assert interpret(other, WRITE) == Store(512, 512)


@pytest.mark.parametrize(
    ("pages", "sense"),
    [
        (((CACHING, b"\x05".ljust(18, b"\0")),), scsi_sense.INVALID_FIELD_IN_PARAMETERS),  # RCD
        (((CACHING, bytes(17)),), scsi_sense.INVALID_FIELD_IN_PARAMETERS),
        (((0x1C, bytes(10)),), scsi_sense.INVALID_FIELD_IN_PARAMETERS),
        (((CACHING, bytes(18)), (CONTROL, bytes(10))), scsi_sense.INVALID_FIELD_IN_PARAMETERS),  # QAM
        (((0x40 | CACHING, bytes(18)),), scsi_sense.INVALID_FIELD_IN_PARAMETERS),
    ],
)
def test_what_may_not_be_changed_changes_nothing_at_all(two, pages, sense):
    assert select(two[0], *pages) == sense
    assert page(two[0], CACHING)[1][:1] == b"\x04"
    assert not two[1].unusual


def test_lists_that_lie(two):
    assert select(two[0], header=b"\0\0\0\x08") == scsi_sense.PARAMETER_LIST_LENGTH
    assert select(two[0], header=b"\0\0\0\x08" + bytes(4) + b"\0\0\x10\0") == scsi_sense.INVALID_FIELD_IN_PARAMETERS
    assert select(two[0], header=bytes(4) + b"\x08") == scsi_sense.PARAMETER_LIST_LENGTH
    assert select(two[0], flags=0x11) == scsi_sense.INVALID_FIELD_IN_CDB  # to be saved


def test_a_medium_that_one_prevents_from_being_taken_out_stays(two):
    one, other = two
    descriptors = {0: MemoryDisk(64).descriptor}
    assert do(one, scsi_cdb.PreventAllowMediumRemoval(1)) == b""
    assert do(other, EJECT, descriptors=descriptors) == scsi_sense.REMOVAL_PREVENTED
    one.leave()  # its say goes with it
    assert do(other, EJECT, descriptors=descriptors) == b""
    assert do(other, READY) == do(other, WRITE) == scsi_sense.NO_MEDIUM
    assert do(other, scsi_cdb.Inquiry(0, 0, 36))[1] == 0x80
    assert other.unusual


def test_a_medium_that_is_back_may_be_another(two):
    one, other = two
    assert do(one, EJECT, descriptors={0: MemoryDisk(64).descriptor}) == b""
    assert do(one, LOAD) == b""
    assert do(other, READY) == scsi_sense.MEDIUM_MAY_HAVE_CHANGED
    assert do(one, READY) == do(other, READY) == b""


def test_a_fixed_disk_has_no_medium_to_take_out():
    units = LogicalUnits({0: Disk(blocks=8, read_only=False, identity=bytes(8), serial="", product="")})
    tell(units)
    assert do(units, EJECT) == scsi_sense.INVALID_FIELD_IN_CDB
    assert do(units, scsi_cdb.PreventAllowMediumRemoval(1)) == scsi_sense.INVALID_OPERATION
