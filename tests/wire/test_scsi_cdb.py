"""SCSI command descriptor blocks: octets sent by libiscsi, QEMU and iPXE, and any others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire import scsi_cdb
from panloom.wire.scsi_cdb import BlockCommand, Operation

KNOWN = [
    ("28000000004000000400", BlockCommand(Operation.READ_10, 0, 64, 4)),  # iPXE's probe
    ("2a080000001000001000000000000000", BlockCommand(Operation.WRITE_10, scsi_cdb.FUA, 0x10, 0x10)),
    ("88000000000000000100000000080000", BlockCommand(Operation.READ_16, 0, 0x100, 8)),
    ("a80000000040000000040000", BlockCommand(Operation.READ_12, 0, 64, 4)),
    ("0801020300000000", BlockCommand(Operation.READ_6, 0, 0x10203, 256)),
    ("9e100000000000000000000000200000", scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32)),
    ("1200000024", scsi_cdb.Inquiry(0, 0, 36)),
    ("1201830060", scsi_cdb.Inquiry(1, 0x83, 0x60)),
    ("1a083f00c0", scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 8, 0x3F, 0, 192)),
    ("5a0008000000000010", scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0, 8, 0, 16)),
    ("a00000000000000000100000", scsi_cdb.ReportLuns(0, 16)),
    ("a30c8000000000000800", scsi_cdb.MaintenanceIn(0x0C, 0x80, 0, 0, 0x800)),
    ("420000000000000018", scsi_cdb.Unmap(0, 24)),
    ("000000000000", scsi_cdb.Plain(Operation.TEST_UNIT_READY)),
    ("0300000012", scsi_cdb.RequestSense(0, 18)),
    ("1b0000000100", scsi_cdb.StartStopUnit(0, 1)),
    ("35", BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0)),
]


@pytest.mark.parametrize(("octets", "command"), KNOWN, ids=[type(command).__name__ for _, command in KNOWN])
def test_known_octets(octets, command):
    block = bytes.fromhex(octets).ljust(16, b"\0")
    assert scsi_cdb.decode(block) == command
    assert scsi_cdb.encode(command) == block


@given(st.sampled_from(Operation), st.binary(min_size=15, max_size=15))
def test_decode_undoes_encode(operation, rest):
    command = scsi_cdb.decode(bytes((operation,)) + rest)
    assert command is not None
    assert scsi_cdb.decode(scsi_cdb.encode(command)) == command


@given(st.binary(max_size=20))
def test_any_octets_decode_or_are_malformed(octets):
    if len(octets) != scsi_cdb.CDB_OCTETS:
        with pytest.raises(MalformedError):
            scsi_cdb.decode(octets)
    elif octets[0] in Operation.__members__.values():
        assert scsi_cdb.decode(octets) is not None
    else:
        assert scsi_cdb.decode(octets) is None


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=5).map(tuple))
def test_unmap_list_decode_undoes_encode(ranges):
    assert scsi_cdb.decode_unmap_list(scsi_cdb.encode_unmap_list(ranges)) == ranges


@given(st.binary(max_size=60))
def test_any_unmap_list_decodes_or_is_malformed(octets):
    try:
        ranges = scsi_cdb.decode_unmap_list(octets)
    except MalformedError:
        return
    assert len(ranges) * 16 <= max(0, len(octets) - 8)


def test_an_unmap_list_that_lies_is_malformed():
    octets = bytearray(scsi_cdb.encode_unmap_list(((1, 2),)))
    octets[3] = 32
    with pytest.raises(MalformedError):
        scsi_cdb.decode_unmap_list(bytes(octets))
