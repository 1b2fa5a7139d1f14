"""An optical disc's commands: known octets, and no command that is none of its business."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol import scsi_verdicts
from panloom.protocol.scsi_disk import Data, LogicalUnits, Read
from panloom.protocol.scsi_pages import OPTICAL, Disk
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense

BLOCKS = 1000
DISC = Disk(
    blocks=BLOCKS,
    read_only=True,
    identity=bytes.fromhex("3000000000000001"),
    serial="0001",
    product="OPTICAL DISC",
    block_octets=2048,
    thin=False,
    removable=True,
    device_type=OPTICAL,
)


def ask(cdb, disc=DISC):
    units = LogicalUnits({0: disc})
    units.interpret(0, bytes(16))  # a first command is told that the disc may be another
    return units.interpret(0, cdb if isinstance(cdb, bytes) else scsi_cdb.encode(cdb))


def octets(cdb, disc=DISC):
    found = ask(cdb, disc)
    assert isinstance(found, Data), found
    return found.octets


def test_cap_211_inquiry_says_type_5_and_capacity_blocks_of_2048_octets():
    found = octets(scsi_cdb.Inquiry(0, 0, 255))
    assert found[0] == 0x05
    assert found[1] & 0x80
    assert b"\x04\xe0" in found[58:66]  # MMC-6
    assert octets(scsi_cdb.Plain(Operation.READ_CAPACITY_10)) == struct.pack(">II", BLOCKS - 1, 2048)
    assert ask(BlockCommand(Operation.READ_10, 0, 16, 2)) == Read(16 * 2048, 2 * 2048, False)
    assert ask(BlockCommand(Operation.READ_12, 0, BLOCKS, 1)) == scsi_sense.LBA_OUT_OF_RANGE


@pytest.mark.parametrize(
    "cdb",
    [
        *(BlockCommand(operation, 0, 0, 1) for operation in (Operation.WRITE_10, Operation.WRITE_12)),
        BlockCommand(Operation.WRITE_SAME_10, 0, 0, 1),
    ],
)
def test_cap_211_a_write_is_data_protect(cdb):
    found = ask(cdb)
    assert isinstance(found, Sense)
    assert found.key == 0x07


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # a header, then track 1 and the lead-out
        (scsi_cdb.ReadToc(0, 0, 0, 255), "0012 01 01  00 14 01 00 00000000  00 14 aa 00 000003e8"),
        (scsi_cdb.ReadToc(0, 0, 1, 255), "0012 01 01  00 14 01 00 00000000  00 14 aa 00 000003e8"),
        (scsi_cdb.ReadToc(0, 0, 0xAA, 255), "000a 01 01  00 14 aa 00 000003e8"),
        (scsi_cdb.ReadToc(2, 0, 0xAA, 255), "000a 01 01  00 14 aa 00 00 00 0f 19"),  # 1,150 frames are 15 s 25
        (scsi_cdb.ReadToc(2, 0, 0, 12), "0012 01 01  00 14 01 00 00 00 02 00"),
        (scsi_cdb.ReadToc(0, 1, 0, 255), "000a 01 01  00 14 01 00 00000000"),
        (
            scsi_cdb.ReadToc(0, 2, 0, 255),
            (
                "002e 01 01  01 14 00 a0 000000 00 010000  01 14 00 a1 000000 00 010000"
                " 01 14 00 a2 000000 00 000f19  01 14 00 01 000000 00 000200"
            ),
        ),
        (scsi_cdb.GetEventStatusNotification(1, 0x10, 255), "0006 04 10 00 02 00 00"),
        (scsi_cdb.GetEventStatusNotification(1, 0x02, 255), "0002 80 10"),
        (scsi_cdb.MechanismStatus(255), "00" * 8),
    ],
)
def test_known_octets(command, expected):
    assert octets(command).hex() == expected.replace(" ", "")


@pytest.mark.parametrize(
    "command",
    [
        scsi_cdb.ReadToc(0, 0, 2, 255),
        scsi_cdb.ReadToc(0, 4, 0, 255),
        scsi_cdb.GetConfiguration(3, 0, 255),
        scsi_cdb.GetEventStatusNotification(0, 0x10, 255),
        scsi_cdb.ReadDiscInformation(1, 255),
        scsi_cdb.ReadTrackInformation(1, 2, 255),
        scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0, 0x08, 0, 255),
    ],
)
def test_what_a_finished_disc_does_not_have(command):
    assert ask(command) == scsi_sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize(("blocks", "profile"), [(BLOCKS, 0x0008), (2_000_000, 0x0010)])
def test_features_name_the_profile_and_can_be_asked_one_by_one(blocks, profile):
    disc = Disk(**{name: getattr(DISC, name) for name in DISC.__struct_fields__} | {"blocks": blocks})
    every = octets(scsi_cdb.GetConfiguration(0, 0, 1024), disc)
    length, current = struct.unpack_from(">IxxH", every)
    assert (length, current) == (len(every) - 4, profile)
    codes, at = [], 8
    while at < len(every):
        code, _, more = struct.unpack_from(">HBB", every, at)
        one = octets(scsi_cdb.GetConfiguration(2, code, 1024), disc)
        assert one[8:] == every[at : at + 4 + more]
        codes.append(code)
        at += 4 + more
    assert codes == sorted(codes) == [0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x001E, 0x001F]


def test_a_disc_is_finished_and_has_one_track():
    disc = octets(scsi_cdb.ReadDiscInformation(0, 255))
    assert len(disc) == 34
    assert disc[:7] == bytes((0, 32, 0x0E, 1, 1, 1, 1))
    track = octets(scsi_cdb.ReadTrackInformation(1, 1, 255))
    assert len(track) == 36
    assert track[24:28] == struct.pack(">I", BLOCKS)
    mode = octets(scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0x08, 0x2A, 0, 255))
    assert (mode[8], mode[2:4][1]) == (0x2A, 0x80)


def test_what_a_disc_can_do_is_what_is_reported():
    found = octets(scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, 0, 0, 0, 4096))
    reported = {found[at] for at in range(4, len(found), 8)}
    assert {Operation.READ_TOC, Operation.GET_CONFIGURATION, Operation.READ_10} < reported
    for operation in set(Operation) - reported:
        assert ask(bytes((operation,)).ljust(16, b"\0")) == scsi_sense.INVALID_OPERATION, operation


def test_the_tray_is_told_of():
    units = LogicalUnits({0: DISC})
    units.interpret(0, bytes(16))
    units.interpret(0, scsi_cdb.encode(scsi_cdb.StartStopUnit(0, 0x02))).then()
    poll = scsi_cdb.encode(scsi_cdb.GetEventStatusNotification(1, 0x10, 255))
    assert units.interpret(0, poll).octets[5] == 0x01
    assert units.interpret(0, scsi_cdb.encode(scsi_cdb.ReadToc(0, 0, 0, 255))) == scsi_sense.NO_MEDIUM


@given(st.binary(min_size=16, max_size=16))
def test_any_octets_are_answered_and_never_written(cdb):
    found = ask(cdb)
    changes = (scsi_verdicts.Store, scsi_verdicts.Deallocate, scsi_verdicts.Fill, scsi_verdicts.CompareAndWrite)
    assert not isinstance(found, changes) or getattr(found, "use", None) is scsi_verdicts.Use.COMPARE
