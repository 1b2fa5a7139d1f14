"""SCSI commands: what iPXE, Linux, libiscsi and QEMU ask of a disk, and what nobody should."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.scsi_disk import (
    Data,
    Deallocate,
    Fill,
    Flush,
    LogicalUnits,
    Read,
    Store,
    Wants,
)
from panloom.protocol.scsi_pages import MAX_UNMAP_BLOCKS, MAX_WRITE_SAME_BLOCKS, Disk
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.protocol.scsi_verdicts import (
    MAX_WANTED_OCTETS,
    Check,
    CompareAndWrite,
    Conflict,
    Copy,
    LookUp,
    Perform,
    Then,
    Use,
    WriteAtomic,
)
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense
from support.iscsi_strategies import any_cdb
from support.units import tell

BLOCKS = 1000
DISK = Disk(
    blocks=BLOCKS,
    read_only=False,
    identity=bytes.fromhex("3123456789abcdef"),
    serial="0001",
    product="web1",
    atomic=True,
)
READ_ONLY = Disk(blocks=8, read_only=True, identity=bytes.fromhex("3123456789abcdee"), serial="0002", product="facts")
HUGE = Disk(blocks=1 << 33, read_only=False, identity=bytes(8), serial="0003", product="huge")
THICK = Disk(blocks=64, read_only=False, identity=bytes(8), serial="0004", product="thick", thin=False)
GOOD = Data()


def units(*, told=True):
    all_of_them = LogicalUnits({0: DISK, 1: READ_ONLY, 300: HUGE})
    if told:
        tell(all_of_them)
    return all_of_them


def ask(command, lun=0):
    octets = command if isinstance(command, bytes) else scsi_cdb.encode(command)
    return units().interpret(lun, octets)


def block(operation, lba=0, blocks=1, flags=0):
    return BlockCommand(Operation[operation], flags, lba, blocks)


def test_inquiry():
    octets = ask(scsi_cdb.Inquiry(0, 0, 255)).octets
    assert len(octets) == 96 == octets[4] + 5
    assert octets[0] == 0
    assert octets[8:36] == b"PANLOOM web1            1   "
    assert ask(scsi_cdb.Inquiry(0, 0, 36)).octets == octets[:36]
    assert ask(scsi_cdb.Inquiry(0, 5, 36)) == scsi_sense.INVALID_FIELD_IN_CDB


def test_vital_product_data():
    def page(code, lun=0):
        octets = ask(scsi_cdb.Inquiry(1, code, 255), lun).octets
        assert octets[1] == code
        assert int.from_bytes(octets[2:4], "big") == len(octets) - 4
        return octets[4:]

    assert page(0x00) == bytes.fromhex("008083868fb0b1b2")
    assert page(0x80) == b"0001"
    assert page(0x83)[:12] == bytes.fromhex("01030008 3123456789abcdef")
    assert int.from_bytes(page(0xB0)[16:20], "big") == MAX_UNMAP_BLOCKS
    assert int.from_bytes(page(0xB0, 1)[16:20], "big") == 0
    assert page(0xB1)[:4] == b"\0\1\0\x40"
    assert page(0xB2)[1] == 0xE4
    assert page(0xB2, 1)[1] == 0
    assert ask(scsi_cdb.Inquiry(1, 0xC0, 255)) == scsi_sense.INVALID_FIELD_IN_CDB


def test_the_extended_inquiry_page_tells_of_task_attributes():
    octets = ask(scsi_cdb.Inquiry(1, 0x86, 255)).octets  # SPC-4 r37 7.8.7
    assert (len(octets), octets[:4]) == (64, bytes.fromhex("0086003c"))
    assert octets[5] & 0x07 == 0x07  # HEADSUP, ORDSUP, SIMPSUP
    assert octets[7] & 0x01  # LUICLR
    assert not octets[4] & 0x07  # no protection information is checked
    assert not any(octets[8:])


def test_the_port_group_is_the_one_that_the_identification_page_names():
    octets = ask(scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 255)).octets
    length, state, supported, group, status, ports, port = struct.unpack(">IBBHxBxBxxH", octets)
    assert length == len(octets) - 4
    assert state & 0x0F == 0  # active/optimized
    assert supported == 0x01  # and never in another state
    assert (status, ports) == (0, 1)
    page, named = ask(scsi_cdb.Inquiry(1, 0x83, 255)).octets[4:], {}
    while page:
        named[page[1] & 0x0F] = page[4 : 4 + page[3]]
        page = page[4 + page[3] :]
    assert int.from_bytes(named[0x5], "big") == group
    assert int.from_bytes(named[0x4], "big") == port
    assert octets[:16] == ask(scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 16)).octets
    assert ask(scsi_cdb.Inquiry(0, 0, 36)).octets[5] >> 4 & 0x03 == 0x01  # TPGS: the target alone changes states


def test_port_groups_with_an_extended_header_as_linux_asks_for_them():
    groups = scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 255)
    plain, extended = (ask(msgspec.structs.replace(groups, data_format=each)).octets for each in (0, 1))
    assert extended == (4 + len(plain) - 4).to_bytes(4, "big") + bytes((0x10, 0, 0, 0)) + plain[4:]
    refused = ask(msgspec.structs.replace(groups, data_format=2))
    assert refused == msgspec.structs.replace(scsi_sense.INVALID_FIELD_IN_CDB, field=1)


def test_report_luns():
    octets = ask(scsi_cdb.ReportLuns(0, 255)).octets
    assert octets == bytes.fromhex("0000001800000000 0000000000000000 0001000000000000 412c000000000000")
    assert ask(scsi_cdb.ReportLuns(1, 255)).octets == bytes(8)
    assert ask(scsi_cdb.ReportLuns(0x80, 255)) == scsi_sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("lun", [2, 255, 16383, None])
def test_a_lun_without_a_unit(lun):
    assert ask(scsi_cdb.Inquiry(0, 0, 255), lun).octets[0] == 0x7F
    assert ask(scsi_cdb.Inquiry(1, 0, 255), lun) == scsi_sense.INVALID_FIELD_IN_CDB
    assert scsi_sense.decode(ask(scsi_cdb.RequestSense(0, 18), lun).octets) == scsi_sense.NO_SUCH_UNIT
    assert ask(scsi_cdb.Plain(Operation.TEST_UNIT_READY), lun) == scsi_sense.NO_SUCH_UNIT
    assert ask(block("READ_10"), lun) == scsi_sense.NO_SUCH_UNIT
    assert ask(scsi_cdb.ReportLuns(0, 255), lun) == scsi_sense.NO_SUCH_UNIT


def test_a_new_session_is_told_once_for_each_unit():
    fresh = units(told=False)
    ready = scsi_cdb.encode(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
    for quiet in (scsi_cdb.Inquiry(0, 0, 36), scsi_cdb.ReportLuns(0, 16)):
        assert isinstance(fresh.interpret(0, scsi_cdb.encode(quiet)), Data)
    assert fresh.interpret(0, ready) == scsi_sense.POWER_ON
    assert fresh.interpret(0, ready) == GOOD
    asked = fresh.interpret(1, scsi_cdb.encode(scsi_cdb.RequestSense(0, 18)))
    assert scsi_sense.decode(asked.octets) == scsi_sense.POWER_ON
    assert fresh.interpret(1, ready) == GOOD
    assert fresh.unusual == {lun_field(300)}


def test_capacities():
    assert ask(scsi_cdb.Plain(Operation.READ_CAPACITY_10)).octets == bytes.fromhex("000003e7 00000200")
    assert ask(scsi_cdb.Plain(Operation.READ_CAPACITY_10), 300).octets == bytes.fromhex("ffffffff 00000200")
    octets = ask(scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32), 300).octets
    assert octets.hex() == "00000001ffffffff" + "00000200" + "0000" + "c000" + "00" * 16
    assert ask(scsi_cdb.ServiceActionIn16(0x11, 0, 32)) == scsi_sense.INVALID_FIELD_IN_CDB


def test_mode_pages_say_that_there_is_a_cache_and_that_fua_is_obeyed():
    octets = ask(scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, 0x3F, 0, 255)).octets
    assert octets[0] == len(octets) - 1
    assert octets[2] == 0x10  # DPOFUA, not WP
    assert octets[4:7] == bytes.fromhex("081204")  # page 08h, WCE
    assert octets[24:28] == bytes.fromhex("0a0a0010")  # page 0Ah, QAM 1: commands go in any order
    assert ask(scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, 0x3F, 0, 255), 1).octets[2] == 0x90
    long = ask(scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0, 0x08, 0, 255)).octets
    assert int.from_bytes(long[:2], "big") == len(long) - 2
    assert long[6:16] == bytes.fromhex("0008 000003e8 00000200")
    changeable = ask(scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, 0x48, 0, 255)).octets
    assert changeable[4:] == bytes.fromhex("081204").ljust(20, b"\0")  # WCE


@pytest.mark.parametrize(
    ("page", "subpage", "sense"),
    [
        (0x1D, 0, scsi_sense.INVALID_FIELD_IN_CDB),
        (0x08, 1, scsi_sense.INVALID_FIELD_IN_CDB),
        (0xC8, 0, scsi_sense.SAVING_NOT_SUPPORTED),
    ],
)
def test_mode_pages_that_are_not_there(page, subpage, sense):
    assert ask(scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0, page, subpage, 255)) == sense


def codes(option, operation=0, action=0):
    return ask(scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, option, operation, action, 65535))


def test_every_operation_that_is_reported_is_interpreted():
    octets = codes(0).octets
    assert int.from_bytes(octets[:4], "big") == len(octets) - 4
    reported = {octets[at] for at in range(4, len(octets), 8)}
    of_discs = {
        Operation.READ_TOC, Operation.GET_CONFIGURATION, Operation.GET_EVENT_STATUS_NOTIFICATION,
        Operation.READ_DISC_INFORMATION, Operation.READ_TRACK_INFORMATION, Operation.MECHANISM_STATUS,
    }  # fmt: skip
    assert reported == set(Operation) - {Operation.PREVENT_ALLOW_MEDIUM_REMOVAL} - of_discs  # no removable medium
    for at in range(4, len(octets), 8):
        command = bytes([octets[at], octets[at + 3]]).ljust(16, b"\0")
        assert ask(command) != scsi_sense.INVALID_OPERATION


def test_one_operation_is_reported():
    assert codes(1, 0x28).octets == bytes.fromhex("0003000a 28 18 ffffffff 00 ffff 00")
    assert codes(0x81, 0x00).octets == bytes.fromhex("00830006 000000000000 000a 00000000000000000000")
    assert codes(1, 0xFF).octets[1] == 1
    assert codes(2, 0x9E, 0x10).octets[1] == 3
    assert codes(2, 0x9E, 0x11).octets[1] == 1
    assert codes(3, 0x28).octets[1] == 3
    wrong = msgspec.structs.replace(scsi_sense.INVALID_FIELD_IN_CDB, field=2)
    assert codes(1, 0x9E) == codes(2, 0x28) == codes(4) == wrong


@pytest.mark.parametrize("operation", ["READ_6", "READ_10", "READ_12", "READ_16"])
def test_reads(operation):
    assert ask(block(operation, 10, 4)) == Read(5120, 2048, flush=False)
    if operation != "READ_6":
        assert ask(block(operation, 10, 4, scsi_cdb.FUA)) == Read(5120, 2048, flush=True)
        assert ask(block(operation, 10, 4, 0x20)) == scsi_sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("operation", ["WRITE_6", "WRITE_10", "WRITE_12", "WRITE_16"])
def test_writes(operation):
    assert ask(block(operation, 10, 4)) == Store(5120, 2048, flush=False)
    assert ask(block(operation, 1, 4), 1) == scsi_sense.WRITE_PROTECTED
    if operation != "WRITE_6":
        assert ask(block(operation, 10, 4, scsi_cdb.FUA)) == Store(5120, 2048, flush=True)


MEDIUM = [
    *("READ_6", "READ_10", "READ_12", "READ_16", "WRITE_6", "WRITE_10", "WRITE_12", "WRITE_16", "VERIFY_10"),
    *(
        "VERIFY_12",
        "VERIFY_16",
        "PRE_FETCH_10",
        "PRE_FETCH_16",
        "SYNCHRONIZE_CACHE_10",
        "WRITE_SAME_10",
        "WRITE_SAME_16",
    ),
]


@pytest.mark.parametrize("operation", MEDIUM)
def test_the_end_of_the_unit(operation):
    out_of_range = scsi_sense.LBA_OUT_OF_RANGE
    assert ask(block(operation, BLOCKS - 1, 1)) != out_of_range
    assert ask(block(operation, BLOCKS, 1)) == out_of_range
    assert ask(block(operation, BLOCKS - 1, 2)) == out_of_range
    if operation not in ("READ_6", "WRITE_6"):
        assert ask(block(operation, BLOCKS + 1, 0)) == out_of_range
        assert ask(block(operation, 0xFFFFFFFF, 0xFFFF)) == out_of_range
    if operation.endswith("16"):
        assert ask(block(operation, 2**64 - 1, 2**32 - 1)) == out_of_range


def test_verify():
    assert ask(block("VERIFY_10", 3, 5)) == Check(1536, 2560)
    assert ask(block("VERIFY_10", 3, 0)) == GOOD
    assert ask(block("VERIFY_10", 3, 5, 0x02)) == Store(1536, 2560, use=Use.COMPARE)
    assert ask(block("VERIFY_10", 3, 5, 0x04)) == scsi_sense.INVALID_FIELD_IN_CDB
    one_block = ask(block("VERIFY_10", 3, 5, 0x06))
    assert one_block.octets == 512
    assert one_block.then(b"x" * 512) == Check(1536, 2560, b"x" * 512)
    assert ask(block("VERIFY_16", 3, 5, 0x02), 1) == Store(1536, 2560, use=Use.COMPARE)


def test_synchronize_cache_and_stopping_make_durable():
    assert ask(block("SYNCHRONIZE_CACHE_10", 0, 0)) == Flush()
    assert ask(block("SYNCHRONIZE_CACHE_16", 5, 10, 0x02)) == Flush()
    assert ask(scsi_cdb.StartStopUnit(0, 0)) == Flush()
    assert ask(scsi_cdb.StartStopUnit(0, 1)) == GOOD
    assert ask(scsi_cdb.StartStopUnit(0, 2)) == scsi_sense.INVALID_FIELD_IN_CDB


def test_write_same():
    wanted = ask(block("WRITE_SAME_10", 2, 3))
    assert isinstance(wanted, Wants)
    assert wanted.octets == 512
    assert wanted.then(b"x" * 512) == Fill(1024, 1536, b"x" * 512)
    assert wanted.then(bytes(512)) == Fill(1024, 1536, bytes(512))
    unmapping = ask(block("WRITE_SAME_16", 2, 3, scsi_cdb.SAME_UNMAP))
    assert unmapping.then(bytes(512)) == Deallocate(((1024, 1536),))
    assert unmapping.then(b"x" * 512) == Fill(1024, 1536, b"x" * 512)
    no_data = scsi_cdb.SAME_NO_DATA
    assert ask(block("WRITE_SAME_16", 2, 3, no_data)) == Fill(1024, 1536, bytes(512))
    assert ask(block("WRITE_SAME_16", 2, 3, no_data | scsi_cdb.SAME_UNMAP)) == Deallocate(((1024, 1536),))


@pytest.mark.parametrize(
    ("operation", "blocks", "flags"),
    [
        ("WRITE_SAME_10", 0, 0),
        ("WRITE_SAME_10", 0, 0),
        ("WRITE_SAME_10", 1, 0x10),
        ("WRITE_SAME_10", 1, 0x01),
        ("WRITE_SAME_10", 1, 0x02),
        ("WRITE_SAME_16", 1, 0x18),
        ("WRITE_SAME_16", MAX_WRITE_SAME_BLOCKS + 1, 0x08),
    ],
)
def test_write_same_that_is_not_supported(operation, blocks, flags):
    assert ask(block(operation, 0, blocks, flags), 300) == scsi_sense.INVALID_FIELD_IN_CDB


def unmap(*ranges, lun=0):
    parameters = scsi_cdb.encode_unmap_list(ranges)
    wanted = ask(scsi_cdb.Unmap(0, len(parameters)), lun)
    assert isinstance(wanted, Wants)
    assert wanted.octets == len(parameters)
    return wanted.then(parameters)


def test_unmap():
    assert unmap((0, 8), (999, 1), (5000, 0)) == Deallocate(((0, 4096), (999 * 512, 512)))
    assert unmap() == Deallocate(())
    assert unmap((999, 2)) == scsi_sense.LBA_OUT_OF_RANGE
    assert unmap((2**64 - 1, 2)) == scsi_sense.LBA_OUT_OF_RANGE
    assert unmap(*[(1, 1)] * 257) == scsi_sense.INVALID_FIELD_IN_PARAMETERS
    assert unmap((0, MAX_UNMAP_BLOCKS), (0, 1), lun=300) == scsi_sense.INVALID_FIELD_IN_PARAMETERS
    assert ask(scsi_cdb.Unmap(0, 0)) == GOOD
    assert ask(scsi_cdb.Unmap(0, 7)) == scsi_sense.PARAMETER_LIST_LENGTH
    assert ask(scsi_cdb.Unmap(1, 24)) == scsi_sense.INVALID_FIELD_IN_CDB
    assert ask(scsi_cdb.Unmap(0, 24), 1) == scsi_sense.WRITE_PROTECTED


def test_an_unmap_list_that_lies_changes_nothing():
    octets = bytearray(scsi_cdb.encode_unmap_list(((1, 2),)))
    octets[3] = 0xFF
    assert ask(scsi_cdb.Unmap(0, 24)).then(bytes(octets)) == scsi_sense.PARAMETER_LIST_LENGTH


@pytest.mark.parametrize("code", [0x04, 0x1E, 0x85, 0xC0, 0xFF])
def test_other_operations_are_not_supported(code):
    assert ask(bytes([code]).ljust(16, b"\0")) == scsi_sense.INVALID_OPERATION


@given(any_cdb | st.binary(min_size=16, max_size=16), st.sampled_from([0, 1, 300]), st.binary(max_size=512))
def test_any_command_has_a_verdict_inside_its_unit(cdb, lun, parameters):
    verdict = units().interpret(lun, cdb)
    if isinstance(verdict, Wants):
        assert verdict.octets <= MAX_WANTED_OCTETS
        verdict = verdict.then(parameters.ljust(verdict.octets, b"\0")[: verdict.octets])
    disk = {0: DISK, 1: READ_ONLY, 300: HUGE}[lun]
    while isinstance(verdict, Then):
        check(verdict.deed, disk)
        verdict = GOOD if isinstance(verdict.deed, Perform) else verdict.then()
    check(verdict, disk)


def check(verdict, disk):
    """Nothing is outside the unit, and nothing changes one that is read-only."""
    match verdict:
        case Read(offset, octets) | Store(offset, octets) | Fill(offset, octets) | Check(offset, octets):
            ranges = ((offset, octets),)
        case WriteAtomic(offset, data) | CompareAndWrite(offset, _, data):
            ranges = ((offset, len(data)),)
        case LookUp(offset, octets):
            ranges = ((offset, octets),)
        case Deallocate(ranges):
            pass
        case _:
            ranges = ()
            assert isinstance(verdict, Data | Sense | Conflict | Flush | Perform | Copy)
    assert all(offset >= 0 and offset + octets <= disk.blocks * 512 for offset, octets in ranges)
    if disk.read_only:
        assert not isinstance(verdict, Fill | Deallocate | CompareAndWrite | WriteAtomic)
        assert not isinstance(verdict, Store) or verdict.compare


def test_a_thick_unit_gives_nothing_back_and_does_not_say_so():
    def ask(command, disk=THICK):
        unit = LogicalUnits({0: disk})
        tell(unit)
        return unit.interpret(0, scsi_cdb.encode(command))

    def page(code):
        return ask(scsi_cdb.Inquiry(1, code, 255)).octets

    assert page(0xB2)[5:7] == b"\0\0"
    assert page(0xB0)[20:28] == bytes(8)  # no UNMAP
    assert ask(scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32)).octets[14] == 0
    assert ask(scsi_cdb.Unmap(0, 24)) == scsi_sense.INVALID_OPERATION
    assert ask(block("WRITE_SAME_16", flags=scsi_cdb.SAME_UNMAP)) == scsi_sense.INVALID_FIELD_IN_CDB
    assert isinstance(ask(block("WRITE_SAME_16", flags=scsi_cdb.SAME_NO_DATA)), Fill)
    one = scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, 1, Operation.UNMAP, 0, 255)
    assert [ask(one, disk).octets[1] & 7 for disk in (DISK, THICK)] == [3, 1]


def test_a_unit_that_has_grown_says_so_once_and_then_takes_what_is_new():
    grown = units()
    grown.resize(0, 2 * BLOCKS)
    write = scsi_cdb.encode(block("WRITE_10", lba=BLOCKS))
    assert grown.interpret(0, scsi_cdb.encode(scsi_cdb.Inquiry(0, 0, 36))) != scsi_sense.CAPACITY_CHANGED
    assert grown.interpret(0, write) == scsi_sense.CAPACITY_CHANGED
    assert grown.interpret(0, write) == Store(BLOCKS * 512, 512)
    assert grown.interpret(1, scsi_cdb.encode(scsi_cdb.Plain(Operation.TEST_UNIT_READY))) == GOOD


def test_a_session_is_told_once_that_its_luns_have_changed():
    units, ready = LogicalUnits({0: DISK, 1: DISK}), scsi_cdb.encode(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
    tell(units)
    units.add(5, DISK, LogicalUnit())
    assert units.unusual == {lun_field(lun) for lun in (0, 1, 5)}
    assert isinstance(units.interpret(0, scsi_cdb.encode(scsi_cdb.Inquiry(0, 0, 36))), Data)
    assert units.interpret(1, ready) == scsi_sense.REPORTED_LUNS_CHANGED
    assert units.interpret(0, ready) == GOOD  # LUICLR: told at one unit, told
    assert units.interpret(5, ready) == scsi_sense.POWER_ON
    units.remove(1)
    assert units.interpret(1, ready) == scsi_sense.NO_SUCH_UNIT
    assert luns_of(units) == [0, 5]
    assert [units.interpret(lun, ready) for lun in (0, 5)] == [GOOD, GOOD]  # REPORT LUNS has told it
    assert not units.unusual
    units.remove(1)
    units.leave()
    units.add(1, DISK, LogicalUnit())
    assert luns_of(units) == [0, 5]


def test_a_session_without_a_unit_may_be_given_one():
    units = LogicalUnits({})
    assert luns_of(units) == []
    units.add(3, DISK, LogicalUnit())
    assert luns_of(units) == [3]
    tell(units)
    units.remove(3)
    assert luns_of(units) == []


def luns_of(units):
    listed = units.interpret(0, scsi_cdb.encode(scsi_cdb.ReportLuns(0, 255)))
    return [octet for at in range(8, len(listed.octets), 8) for octet in listed.octets[at + 1 : at + 2]]
