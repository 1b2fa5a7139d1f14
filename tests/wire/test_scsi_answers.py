"""What units say of themselves: what our own say, what tgtd 1.0.85 was seen to say, and any octets."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.protocol import scsi_pages
from panloom.protocol.scsi_pages import Disk
from panloom.wire import scsi_answers
from panloom.wire.iscsi import lun_field

TGTD_LUNS = bytes.fromhex("00000010 00000000 0000000000000000 0001000000000000")
TGTD_LIMITS = bytes.fromhex("00b0003c0080") + bytes(58)  # it does not unmap

DISK = Disk(blocks=8, read_only=False, identity=bytes(8), serial="1", product="x")


def test_known_octets():
    assert scsi_answers.decode_capacity(bytes.fromhex("0000000000ffffff 00000200"), long=True) == (0x1000000, 512)
    assert scsi_answers.decode_capacity(bytes.fromhex("0000ffff 00001000"), long=False) == (0x10000, 4096)
    assert scsi_answers.decode_luns(TGTD_LUNS) == (0, 1)
    well_known = bytes.fromhex("00000018 00000000 0001000000000000 0000000000000000 c101000000000000")
    assert scsi_answers.decode_luns(well_known) == (0, 1)
    assert scsi_answers.decode_unmap_limits(TGTD_LIMITS) == (0, 0)
    ours = scsi_pages.vital_product_data(DISK, scsi_answers.BLOCK_LIMITS)
    assert scsi_answers.decode_unmap_limits(ours) == (scsi_pages.MAX_UNMAP_BLOCKS, scsi_pages.MAX_UNMAP_DESCRIPTORS)


@given(st.lists(st.integers(0, 16383), unique=True, max_size=20).map(sorted), st.integers(1, 2**62))
def test_decode_undoes_what_our_disks_say(luns, blocks):
    assert scsi_answers.decode_luns(scsi_pages.report_luns(tuple(luns), 0)) == tuple(luns)
    disk = msgspec.structs.replace(DISK, blocks=blocks)
    assert scsi_answers.decode_capacity(scsi_pages.read_capacity_16(disk), long=True) == (blocks, 512)


@given(st.binary(max_size=60), st.booleans())
def test_any_octets_decode_or_are_malformed(octets, long):
    for decode in (
        lambda: scsi_answers.decode_capacity(octets, long=long),
        lambda: scsi_answers.decode_luns(octets),
        lambda: scsi_answers.decode_unmap_limits(octets),
    ):
        try:
            decode()
        except MalformedError as error:
            assert str(error)


@pytest.mark.parametrize("block_octets", [0, 1, 256, 520, 4095])
def test_blocks_are_a_power_of_two_of_at_least_512_octets(block_octets):
    with pytest.raises(MalformedError, match=f"blocks of {block_octets} octets"):
        scsi_answers.decode_capacity(struct.pack(">QI", 5, block_octets), long=True)


def test_a_list_that_is_longer_than_it_says_is_cut():
    octets = struct.pack(">I4xQQ", 8, lun_field(7), lun_field(8))
    assert scsi_answers.decode_luns(octets) == (7,)
