from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.dhcp import (
    Message,
    MessageType,
    Op,
    Option,
    RelayAgent,
    decode,
    decode_options,
    encode,
    encode_options,
)

MAC = MacAddress.parse("52:54:00:77:00:01")
COOKIE = bytes((99, 130, 83, 99))

# What iPXE 1.0.0+git-20190125 in the virtio ROM of Debian 12 sends first.
IPXE_DISCOVER = bytes.fromhex(
    "01010600 d3c6a3b5 0004 0000 00000000 00000000 00000000 00000000 525400770001" + "00" * 10 + "00" * 192 + "63825363"
    "350101 390205c0 5d020000 5e03010201 3c20"
    + b"PXEClient:Arch:00000:UNDI:002001".hex()
    + "4d04 69505845 3704 01030611 af06 b00101 010100 ff"
)

macs = st.builds(MacAddress, st.integers(1, 2**48 - 1).map(lambda number: number & ~(1 << 40) or 2))
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
texts = st.binary(max_size=64).map(lambda text: text.replace(b"\0", b""))
free = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code not in {50, 51, 52, 53, 54, 57, 82, 93, 94, 97}),
    st.binary(max_size=600),
)
messages = st.builds(
    Message,
    op=st.sampled_from(Op),
    xid=st.integers(0, 2**32 - 1),
    chaddr=macs,
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    broadcast=st.booleans(),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=texts,
    file=texts,
    options=st.builds(
        lambda free, kind, address: {**free, 53: bytes((kind,)), 50: address.packed},
        free,
        st.sampled_from(MessageType),
        addresses,
    ),
)


def packet(
    options: bytes, *, sname: bytes = b"", file: bytes = b"", htype: int = 1, hlen: int = 6, cookie: bytes = COOKIE
):
    head = bytes((1, htype, hlen, 0)) + bytes(24) + MAC.to_octets() + bytes(10)
    return head + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + cookie + options


def test_known_octets():
    message = decode(IPXE_DISCOVER)
    assert message.op is Op.REQUEST
    assert message.message_type is MessageType.DISCOVER
    assert (message.xid, message.secs, message.chaddr) == (0xD3C6A3B5, 4, MAC)
    assert message.options[Option.VENDOR_CLASS] == b"PXEClient:Arch:00000:UNDI:002001"
    assert message.options[Option.USER_CLASS] == b"iPXE"
    assert decode_options(message.options[Option.IPXE] + b"\xff", "option 175") == {176: b"\1", 1: b"\0"}
    assert encode(message) == IPXE_DISCOVER.ljust(300, b"\0")


@given(messages)
def test_decode_undoes_encode(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=400) | messages.map(encode), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\xff" + octets[at + 1 :]):
        try:
            decode(damaged)
        except MalformedError:
            continue


@given(st.binary(max_size=400))
def test_any_options_after_a_good_header_decode_or_are_malformed(octets):
    try:
        decode(packet(octets))
    except MalformedError:
        return


@pytest.mark.parametrize("length", range(240))
def test_short_packets_are_malformed(length):
    with pytest.raises(MalformedError):
        decode(packet(b"\x35\x01\x01\xff")[:length])


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (packet(b"\xff", cookie=b"\1\2\3\4"), "cookie"),
        (packet(b"\xff", hlen=0), "Ethernet"),
        (packet(b"\xff", hlen=17), "Ethernet"),
        (packet(b"\xff", hlen=255), "Ethernet"),
        (packet(b"\xff", htype=6), "Ethernet"),
        (packet(b"\x35\x01\x01"), "no END"),
        (packet(b"\x35\x02\x01\x01\xff"), "option 53 has 2"),
        (packet(b"\x35\x01\x63\xff"), "type 99"),
        (packet(b"\x3d\xff" + bytes(100) + b"\xff"), "past the end"),
        (packet(b"\x3d"), "past the end"),
        (packet(b"\x32\x03\1\2\3\xff"), "option 50"),
        (packet(b"\x36\x05\1\2\3\4\5\xff"), "option 54"),
        (packet(b"\x5d\x03\0\0\0\xff"), "option 93"),
        (packet(b"\x5d\x00\xff"), "option 93"),
        (packet(b"\x5e\x01\1\xff"), "option 94"),
        (packet(b"\x61\x02\0\0\xff"), "option 97"),
        (packet(b"\x34\x01\x04\xff"), "option 52"),
        (packet(b"\x34\x01\x01\xff", file=b"\x34\x01\x01\xff"), "overloaded"),
        (packet(b"\x34\x01\x01\xff", file=b"\x0c\x00"), "no END in file"),
        (packet(b"\x34\x01\x02\xff", sname=b"\x0c\xf0\xff"), "past the end of sname"),
    ],
)
def test_bad_packets_are_malformed(octets, why):
    with pytest.raises(MalformedError, match=why):
        decode(octets)


def test_overloaded_fields_are_read_file_first():
    message = decode(
        packet(b"\x34\x01\x03\x0c\x01a\x35\x01\x01\xff", file=b"\x0c\x01b\xff", sname=b"\x0c\x01c\x0f\x01d\xff")
    )
    assert message.options == {Option.HOST_NAME: b"abc", Option.DOMAIN_NAME: b"d", Option.MESSAGE_TYPE: b"\1"}
    assert (message.file, message.sname) == (b"", b"")


def test_a_long_value_goes_in_pieces():
    octets = encode_options({17: b"x" * 256})
    assert octets == b"\x11\xff" + b"x" * 255 + b"\x11\x01x"
    assert decode_options(octets + b"\xff", "options") == {17: b"x" * 256}


@pytest.mark.parametrize("code", [0, 52, 255])
def test_options_without_a_value_of_their_own_are_not_encoded(code):
    with pytest.raises(ValueError, match="no value"):
        encode_options({code: b""})


def through_a_relay(octets: bytes) -> bytes:
    return octets[:24] + IPv4Address("10.77.0.9").packed + octets[28:]


@pytest.mark.parametrize(
    ("agent", "why"), [(b"\5\3\1\2\3", "sub-option 5"), (b"\1\4ab", "past the end"), (b"\1", "past")]
)
def test_a_relays_option_that_is_cut_off_or_of_another_length_is_malformed(agent, why):
    with pytest.raises(MalformedError, match=why):
        decode(through_a_relay(packet(bytes((82, len(agent))) + agent + b"\xff")))


def test_what_a_relay_says_counts_only_through_a_relay():
    agent = bytes((82, 12, 5, 4, 10, 88, 0, 0, 11, 4, 10, 88, 0, 1))
    assert decode(packet(agent + b"\xff")).relayed(RelayAgent.LINK_SELECTION) is None
    message = decode(through_a_relay(packet(agent + b"\xff")))
    assert message.relayed(RelayAgent.LINK_SELECTION) == IPv4Address("10.88.0.0")
    assert message.relayed(RelayAgent.SERVER_OVERRIDE) == IPv4Address("10.88.0.1")
