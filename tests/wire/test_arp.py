from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.arp import ArpReply, decode_reply, encode_probe

OURS, THEIRS = MacAddress.parse("02:00:00:00:00:01"), MacAddress.parse("52:54:00:77:00:01")
REPLY = bytes.fromhex("020000000001 525400770001 0806 0001 0800 06 04 0002 525400770001 0a4d0033 020000000001 00000000")


def test_known_octets():
    known = bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 00000000 000000000000 0a4d0033"
    )
    assert encode_probe(IPv4Address("10.77.0.51"), OURS) == known + bytes(18)
    assert decode_reply(REPLY + bytes(18)) == ArpReply(THEIRS, IPv4Address("10.77.0.51"))


@given(st.integers(1, 2**40 - 1), st.integers(0, 2**32 - 1))
def test_decode_undoes_encode(mac, address):
    """A probe answered as RFC 826 says: operation and addresses swapped, the answerer's own put in."""
    octets = bytearray(encode_probe(IPv4Address(address), OURS))
    octets[20:22], octets[22:28], octets[28:32] = b"\0\2", mac.to_bytes(6, "big"), octets[38:42]
    assert decode_reply(bytes(octets)) == ArpReply(MacAddress(mac), IPv4Address(address))


@given(
    st.binary(max_size=80)
    | st.builds(
        lambda at, octet: REPLY[:at] + octet + REPLY[at + 1 :], st.integers(0, 41), st.binary(min_size=1, max_size=1)
    )
)
def test_any_octets_decode_or_are_malformed(octets):
    try:
        assert isinstance(decode_reply(octets), ArpReply)
    except MalformedError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("at", "octets"), [(12, b"\x08\x00"), (14, b"\0\2"), (20, b"\0\1"), (22, b"\xff"), (22, bytes(6))]
)
def test_what_is_no_reply_of_one_machine_is_malformed(at, octets):
    with pytest.raises(MalformedError):
        decode_reply(REPLY[:at] + octets + REPLY[at + len(octets) :])
