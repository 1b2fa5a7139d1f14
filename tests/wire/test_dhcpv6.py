from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Association, Kind, LeasedAddress, Message, Option, RelayMessage, Status

# As OVMF solicits an address to boot by PXE, its DUID shortened.
SOLICIT = (
    bytes.fromhex(
        "01 aabbcc"
        "0001 000a 0003 0001 525400770001"
        "0003 000c 00000007 00000000 00000000"
        "0006 0004 003b 003c"
        "0008 0002 0000"
        "0010 0012 00000157 000c"
    )
    + b"PXEClient:Ar"
)
addresses = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
seconds = st.integers(0, 2**32 - 1)
options = st.lists(st.tuples(st.integers(100, 65535), st.binary(max_size=40)), max_size=4).map(tuple)
messages = st.builds(Message, st.sampled_from(list(Kind)[:11]), st.binary(min_size=3, max_size=3), options)
relays = st.builds(RelayMessage, st.sampled_from(list(Kind)[11:]), st.integers(0, 255), addresses, addresses, options)
associations = st.builds(
    Association,
    st.integers(0, 2**32 - 1),
    st.lists(st.builds(LeasedAddress, addresses, seconds, seconds), max_size=3).map(tuple),
    st.builds(Status, st.integers(0, 65535), st.text(max_size=20)) | st.none(),
    seconds,
    seconds,
)


def test_known_octets():
    message = dhcpv6.decode(SOLICIT)
    assert isinstance(message, Message)
    assert (message.kind, message.transaction_id) == (Kind.SOLICIT, b"\xaa\xbb\xcc")
    assert dhcpv6.link_address_of(message.option(Option.CLIENT_ID)) == MacAddress.parse("52:54:00:77:00:01")
    assert dhcpv6.decode_association(message.option(Option.IA_NA)) == Association(7)
    assert dhcpv6.vendor_classes(message) == (b"PXEClient:Ar",)
    assert dhcpv6.encode_vendor_class(b"PXEClient:Ar") == message.option(Option.VENDOR_CLASS)
    assert dhcpv6.encode(message).hex(" ") == SOLICIT.hex(" ")
    assert dhcpv6.encode_domain("front.example") == b"\x05front\x07example\0"


def test_octets_of_an_association_are_those_of_the_standard():
    leased = LeasedAddress(IPv6Address("2001:db8::51"), 300, 600)
    octets = dhcpv6.encode_association(Association(7, (leased,), Status(0, "ok"), 150, 240))
    assert octets.hex() == (
        "00000007 00000096 000000f0 0005 0018 20010db8000000000000000000000051 0000012c 00000258 000d 0004 0000 6f6b"
    ).replace(" ", "")


@given(messages | relays, associations)
def test_decode_undoes_encode(message, association):
    assert dhcpv6.decode(dhcpv6.encode(message)) == message
    assert dhcpv6.decode_association(dhcpv6.encode_association(association)) == association


@given(st.binary(max_size=200) | st.just(SOLICIT) | associations.map(dhcpv6.encode_association), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\xff" + octets[at + 1 :]):
        for decode in (dhcpv6.decode, dhcpv6.decode_association, dhcpv6.decode_status):
            try:
                found = decode(damaged)
            except MalformedError:
                continue
            if isinstance(found, Message):
                dhcpv6.vendor_classes(found)
                dhcpv6.user_classes(found)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "empty"),
        (b"\x0eabc", "type 14"),
        (b"\x01ab", "too few"),
        (bytes([12, 0, *bytes(20)]), "too few"),
        (b"\x01abc\0\1\0", "cut off"),
        (b"\x01abc\0\1\0\5abcd", "past the end"),
        (b"\x01abc" + bytes.fromhex("000800020000000800020000"), "twice"),
        (b"\x01abc" + bytes.fromhex("0008000100"), "instead of 2"),
        (b"\x01abc" + bytes.fromhex("000100020003"), "DUID of 2"),
        (b"\x01abc" + bytes.fromhex("00010083") + bytes(131), "DUID of 131"),
        (b"\x01abc" + bytes.fromhex("0006000300170018"[:14]), "has 3"),
    ],
)
def test_what_is_wrong_is_said(octets, why):
    with pytest.raises(MalformedError, match=why):
        dhcpv6.decode(octets)


@pytest.mark.parametrize("duid", ["0004" + "11" * 16, "0003 0020 525400770001", "0003 0001 5254007700", "0001 0001"])
def test_a_duid_that_is_made_of_no_ethernet_address_names_none(duid):
    assert dhcpv6.link_address_of(bytes.fromhex(duid)) is None


def test_an_enterprise_of_others_and_a_text_cut_off_are_read_as_far_as_they_go():
    value = b"\0\0\1\2" + b"\0\5HTTPC" + b"\0\x09short"
    message = Message(Kind.SOLICIT, b"abc", ((Option.VENDOR_CLASS, value), (Option.USER_CLASS, b"\0\4iPXE")))
    assert dhcpv6.vendor_classes(message) == (b"HTTPC",)
    assert dhcpv6.user_classes(message) == (b"iPXE",)
