"""Sense data: what libiscsi was seen to understand, and any octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense


def test_known_octets():
    octets = bytes.fromhex("70000600000000 0a 00000000 2900 00000000")
    assert scsi_sense.encode(scsi_sense.POWER_ON) == octets
    assert scsi_sense.decode(octets) == scsi_sense.POWER_ON
    assert scsi_sense.encode(Sense(0x0E, 0x1D00, 512)) == bytes.fromhex("f0000e00000200 0a 00000000 1d00 00000000")


@given(st.builds(Sense, st.integers(0, 15), st.integers(0, 0xFFFF), st.none() | st.integers(0, 2**32 - 1)))
def test_decode_undoes_encode(sense):
    assert scsi_sense.decode(scsi_sense.encode(sense)) == sense


@given(st.binary(max_size=30))
def test_any_octets_decode_or_are_malformed(octets):
    try:
        sense = scsi_sense.decode(octets)
    except MalformedError:
        return
    assert scsi_sense.decode(scsi_sense.encode(sense)) == sense


def test_information_over_32_bits_is_left_out():
    assert scsi_sense.decode(scsi_sense.encode(Sense(3, 0x1100, 1 << 32))).information is None


@pytest.mark.parametrize(
    ("octets", "sense"),
    [
        ("72 05 24 00 00 00 00 00", Sense(5, 0x2400)),
        ("73 03 11 00 00 00 00 0c 00 0a 80 00 00000000 00000200", Sense(3, 0x1100, 512)),
        ("72 03 11 00 00 00 00 10 02 02 00 00 00 0a 80 00 00000000 00000200", Sense(3, 0x1100, 512)),
        ("72 03 11 00 00 00 00 0c 00 0a 00 00 00000000 00000200", Sense(3, 0x1100)),
        ("72 03 11 00 00 00 00 0c 00 0a 80 00 00000001 00000200", Sense(3, 0x1100)),
        ("70 00 06 00000000 06 00000000 2900", scsi_sense.POWER_ON),
        ("71 00 06 00000000 00", Sense(6, 0)),
    ],
)
def test_what_other_targets_send(octets, sense):
    assert scsi_sense.decode(bytes.fromhex(octets)) == sense


@pytest.mark.parametrize("octets", [b"", b"\x74".ljust(18, b"\0"), b"\x70".ljust(7, b"\0"), b"\x72".ljust(7, b"\0")])
def test_other_formats_are_malformed(octets):
    with pytest.raises(MalformedError):
        scsi_sense.decode(octets)
