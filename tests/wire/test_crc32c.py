"""CRC32C: the sums in RFC 7143 appendix A."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.wire.crc32c import digest

READ_10 = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)


@pytest.mark.parametrize(
    ("octets", "on_the_wire"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
        (READ_10, "563a96d9"),
    ],
)
def test_known_octets(octets, on_the_wire):
    assert digest(octets).hex() == on_the_wire


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_parts_sum_up_to_the_whole(first, second):
    assert digest(bytearray(first), memoryview(second)) == digest(first + second)
