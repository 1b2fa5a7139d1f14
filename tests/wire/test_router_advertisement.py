from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire.router_advertisement import (
    Advertisement,
    Solicitation,
    decode_advertisement,
    decode_solicitation,
    encode_advertisement,
    encode_solicitation,
    link_local,
)

MAC = MacAddress.parse("52:54:00:77:00:01")
OURS = MacAddress.parse("02:00:00:00:00:01")

macs = st.builds(MacAddress, st.integers(0, 2**48 - 1))
addresses = st.builds(IPv6Address, st.integers(1, 2**128 - 1))
solicitations = st.builds(Solicitation, macs, addresses, macs | st.none())
links = st.builds(lambda address, bits: IPv6Network((address, bits), strict=False), addresses, st.integers(0, 128))
advertisements = st.builds(
    Advertisement, macs, macs, addresses, macs.map(link_local), st.integers(0, 65535), links | st.none()
)

# As iPXE sends it.
SOLICITATION = bytes.fromhex(
    "333300000002 525400770001 86dd 60000000 0010 3a ff fe80000000000000505400fffe770001"
    "ff020000000000000000000000000002 8500 d995 00000000 0101 525400770001"
)


def test_known_octets():
    assert link_local(MAC) == IPv6Address("fe80::5054:ff:fe77:1")
    solicitation = Solicitation(MAC, link_local(MAC), MAC)
    assert encode_solicitation(solicitation).hex(" ") == SOLICITATION.hex(" ")
    assert decode_solicitation(SOLICITATION) == solicitation
    octets = encode_advertisement(Advertisement(MAC, OURS, link_local(MAC), link_local(OURS)))
    assert octets[:14].hex() == "52540077000102000000000186dd"
    assert octets[20:22] == bytes((58, 255))
    assert octets[54:56] == bytes((134, 0))
    assert octets[58:] == bytes(12) + bytes((1, 1)) + OURS.to_octets()


def test_known_octets_of_a_link_with_dhcpv6():
    """M and O are set, no router has a lifetime, and the prefix is on the link (L) and for no autoconfiguration (A)."""
    link = IPv6Network("2001:db8::/64")
    octets = encode_advertisement(Advertisement(MAC, OURS, link_local(MAC), link_local(OURS), link=link))
    assert octets[58:70].hex() == "00c0" + "0000" + "00" * 8
    assert octets[78:].hex() == "03044080" + "ffffffff" * 2 + "00000000" + "20010db8" + "00" * 12
    assert decode_advertisement(octets).link == link


@given(solicitations, advertisements)
def test_decode_undoes_encode(solicitation, advertisement):
    assert decode_solicitation(encode_solicitation(solicitation)) == solicitation
    assert decode_advertisement(encode_advertisement(advertisement)) == advertisement


@given(st.binary(max_size=120) | solicitations.map(encode_solicitation), st.data())
def test_any_octets_decode_or_are_malformed(octets, data):
    at = data.draw(st.integers(0, len(octets)))
    for damaged in (octets, octets[:at], octets[:at] + b"\0" + octets[at + 1 :]):
        for decode in (decode_solicitation, decode_advertisement):
            try:
                decode(damaged)
            except MalformedError:
                continue


@given(solicitations, st.integers(54, 61), st.integers(1, 255))
def test_a_damaged_message_is_noticed(solicitation, at, flip):
    octets = bytearray(encode_solicitation(solicitation))
    octets[at] ^= flip
    with pytest.raises(MalformedError):
        decode_solicitation(bytes(octets))


def test_a_solicitation_from_another_link_is_malformed():
    octets = bytearray(SOLICITATION)
    octets[21] = 254
    with pytest.raises(MalformedError, match="this link"):
        decode_solicitation(bytes(octets))


def test_a_solicitation_from_nowhere_names_no_link_address():
    assert decode_solicitation(encode_solicitation(Solicitation(MAC, IPv6Address("::")))).link_address is None
    with pytest.raises(MalformedError, match="::"):
        decode_solicitation(encode_solicitation(Solicitation(MAC, IPv6Address("::"), MAC)))
