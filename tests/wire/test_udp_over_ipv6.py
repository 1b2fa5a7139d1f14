from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.internet import UdpFrame, decode_ipv6_udp_frame, encode_udp_frame

macs = st.builds(MacAddress, st.integers(0, 2**48 - 1))
addresses = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
ports = st.integers(0, 65535)
frames = st.builds(UdpFrame, macs, macs, addresses, addresses, ports, ports, st.binary(max_size=60))

# "hi" from the client's port of fe80::5054:ff:fe77:1 to all DHCPv6 servers of the link.
FRAME = (
    bytes.fromhex(
        "333300010002 525400770001 86dd 60000000 000a 11 40 fe80000000000000505400fffe770001"
        "ff020000000000000000000000010002 0222 0223 000a 45d9"
    )
    + b"hi"
)


def test_known_octets():
    frame = decode_ipv6_udp_frame(FRAME)
    assert (str(frame.source_mac), frame.source) == ("52:54:00:77:00:01", IPv6Address("fe80::5054:ff:fe77:1"))
    assert (frame.source_port, frame.destination_port, frame.payload) == (546, 547, b"hi")
    assert encode_udp_frame(frame).hex(" ") == FRAME.hex(" ")
    assert decode_ipv6_udp_frame(FRAME + bytes(6)) == frame, "Ethernet pads short frames"


@given(frames)
def test_decode_undoes_encode(frame):
    assert decode_ipv6_udp_frame(encode_udp_frame(frame)) == frame


@given(st.binary(max_size=120) | frames.map(encode_udp_frame), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\xff" + octets[at + 1 :]):
        try:
            decode_ipv6_udp_frame(damaged)
        except MalformedError:
            continue


def test_a_checksum_that_is_not_there_yet_is_not_looked_at():
    partial = FRAME[:60] + b"\xab\xcd" + FRAME[62:]
    with pytest.raises(MalformedError, match="checksum"):
        decode_ipv6_udp_frame(partial)
    assert decode_ipv6_udp_frame(partial, has_checksum=False).payload == b"hi"


@given(st.integers(22, 63), st.integers(1, 255))
def test_a_damaged_datagram_is_noticed(at, flip):
    octets = bytearray(FRAME)
    octets[at] ^= flip
    with pytest.raises(MalformedError):
        decode_ipv6_udp_frame(bytes(octets))
