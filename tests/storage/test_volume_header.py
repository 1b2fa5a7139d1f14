import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.storage.volume_header import (
    HEADER_OCTETS,
    NO_ID,
    NewerFormatError,
    VolumeHeader,
    decode_header,
    encode_header,
)

NUMBERS = st.integers(0, 2**64 - 1)
HEADERS = st.builds(
    VolumeHeader,
    sequence=NUMBERS,
    epoch=NUMBERS,
    octets=NUMBERS,
    image_name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    image_sha256=st.binary(min_size=32, max_size=32),
    image_octets=NUMBERS,
    identity=st.binary(min_size=8, max_size=8),
    boot_id=st.binary(min_size=16, max_size=16),
    id=st.binary(min_size=16, max_size=16),
    parent=st.binary(min_size=16, max_size=16),
    map_octets=st.integers(1, 1 << 20).map(lambda pages: pages * 4096),
    thick=st.booleans(),
    flattening=st.booleans(),
    flat=st.booleans(),
    origin=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
)


def with_checksum(page):
    return bytes(page[:4092]) + zlib.crc32(page[:4092]).to_bytes(4, "big")


def test_known_octets():
    header = VolumeHeader(
        5, 7, 1 << 30, "web@1", bytes(range(32)), 12345, b"\x03identit", b"B" * 16, b"I" * 16, b"P" * 16, 8192,
        thick=True, flat=True, origin="shop.web1@before",
    )  # fmt: skip
    page = encode_header(header)
    assert len(page) == 4096
    assert page[:16] == b"PANLOOMV" + bytes([0, 0, 0, 2]) + bytes([0, 0, 16, 0])
    assert page[16:48].hex() == "0000000000000005000000000000000700000000400000000000000000003039"
    assert page[48:56] == b"\x03identit"
    assert page[56:72] == b"B" * 16
    assert page[72:104] == bytes(range(32))
    assert page[104:360] == b"web@1" + bytes(251)
    assert page[360:392] == b"I" * 16 + b"P" * 16
    assert page[392:404].hex() == "000000000000200000000005"
    assert page[404:660] == b"shop.web1@before" + bytes(240)
    assert page[660:4092] == bytes(3432)
    assert page[4092:] == zlib.crc32(page[:4092]).to_bytes(4, "big")


@given(HEADERS)
def test_decode_undoes_encode(header):
    assert decode_header(encode_header(header)) == header


@given(st.binary(max_size=HEADER_OCTETS) | st.binary(max_size=400).map(lambda octets: b"PANLOOMV" + octets))
def test_any_octets_decode_or_are_malformed(octets):
    """Whatever a page holds, it is a header, or none, or of another version; nothing else is raised."""
    page = octets[: HEADER_OCTETS - 4].ljust(HEADER_OCTETS - 4, b"\0")
    for candidate in (octets, page + zlib.crc32(page).to_bytes(4, "big")):
        try:
            header = decode_header(candidate)
        except NewerFormatError:
            continue
        assert header is None or isinstance(header, VolumeHeader)


@given(HEADERS, st.integers(0, HEADER_OCTETS * 8 - 1))
def test_one_wrong_bit_is_no_header(header, bit):
    page = bytearray(encode_header(header))
    page[bit // 8] ^= 1 << bit % 8
    assert decode_header(bytes(page)) is None


def test_a_newer_version_is_named():
    page = bytearray(encode_header(VolumeHeader(0, 0, 512, "", bytes(32), 0, bytes(8), bytes(16))))
    page[11] = 3
    with pytest.raises(NewerFormatError, match="version 3"):
        decode_header(with_checksum(page))


def test_a_flag_that_is_not_known_is_that_of_a_newer_format():
    page = bytearray(encode_header(VolumeHeader(0, 0, 512, "", bytes(32), 0, bytes(8), bytes(16))))
    page[403] |= 8
    with pytest.raises(NewerFormatError, match="flags 0x8"):
        decode_header(with_checksum(page))


def test_version_1_ends_with_the_image_s_name():
    page = bytearray(
        encode_header(VolumeHeader(5, 7, 1 << 30, "web@1", bytes(range(32)), 12345, b"identity", b"B" * 16))
    )
    page[11] = 1
    page[360:4092] = bytes(3732)
    header = decode_header(with_checksum(page))
    assert (header.octets, header.image_name, header.id, header.parent) == (1 << 30, "web@1", NO_ID, NO_ID)
    assert header.map_octets == 32768  # one group: a bit for each of 262144 clusters
    assert (header.thick, header.flat, header.origin) == (False, False, "")
