from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import UdpFrame, decode_udp_frame, encode_udp_frame, internet_checksum

macs = st.builds(MacAddress, st.integers(0, 2**48 - 1))
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ports = st.integers(0, 65535)
frames = st.builds(UdpFrame, macs, macs, addresses, addresses, ports, ports, st.binary(max_size=600))


def test_known_octets():
    frame = UdpFrame(
        MacAddress.parse("52:54:00:77:00:01"),
        MacAddress.parse("02:00:00:00:00:01"),
        IPv4Address("10.77.0.51"),
        IPv4Address("10.77.0.1"),
        68,
        67,
        b"hello",
    )
    known = bytes.fromhex(
        "525400770001 020000000001 08004500 0021 0000 0000 4011 65ff 0a4d0001 0a4d00330043 0044 000d a6ad"
    )
    octets = encode_udp_frame(frame)
    assert octets[: len(known)] == known
    assert octets[len(known) :] == b"hello"
    assert decode_udp_frame(octets + bytes(13)) == frame


def test_checksum_of_rfc_1071_section_3():
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(frames)
def test_decode_undoes_encode(frame):
    assert decode_udp_frame(encode_udp_frame(frame)) == frame


@given(st.binary(max_size=80) | frames.map(encode_udp_frame), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\xa5" + octets[at + 1 :]):
        try:
            decode_udp_frame(damaged)
        except MalformedError:
            continue


@given(frames, st.integers(14, 41), st.integers(1, 255))
def test_a_damaged_header_is_noticed(frame, at, flip):
    octets = bytearray(encode_udp_frame(frame))
    octets[at] ^= flip
    if at in (40, 41) and octets[40:42] == b"\0\0":
        return  # RFC 768: no checksum was sent
    with pytest.raises(MalformedError):
        decode_udp_frame(bytes(octets))
