"""What nodes are told of virtual LANs: under the key of an epoch, or not at all."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv4Interface

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.decide.fabric_plan import (
    Admission,
    Bridge,
    Default,
    FabricPort,
    Guard,
    Leg,
    Peer,
    Rvi,
    Source,
    Station,
    Vxlan,
)
from panloom.decide.lan_news import LanNews, LanNic
from panloom.errors import MalformedError, PeerError, RefusedError
from panloom.values import MacAddress, Vni

KEY = "00ff" * 8
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
macs = st.integers(0, 2**48 - 1).map(MacAddress)
vnis = st.integers(1, 2**24 - 1).map(Vni)
names = st.from_regex(r"lan-[0-9a-f]{6}", fullmatch=True)
numbers = st.integers(0, 2**32 - 1)
items = st.one_of(
    st.just(Guard()),
    st.builds(FabricPort, names),
    st.builds(Source, addresses),
    st.builds(Admission, addresses, vnis, st.none() | macs),
    st.builds(Leg, numbers, addresses),
    st.builds(Rvi, numbers, st.lists(numbers, max_size=2).map(tuple)),
    st.builds(Bridge, names),
    st.builds(Vxlan, names, vnis, numbers, st.none() | macs, st.none() | names),
    st.builds(Station, names, macs),
    st.builds(Peer, names, macs, numbers),
    st.builds(Default, names, addresses, vnis),
)
interfaces = st.builds(lambda address, bits: IPv4Interface((address, bits)), addresses, st.integers(0, 32))
news = st.builds(
    LanNews,
    server=st.just("shop/web1"),
    epoch=st.integers(0, 10**12),
    counter=st.integers(0, 10**15),
    fabrics=st.lists(st.tuples(names, interfaces), max_size=2).map(tuple),
    items=st.lists(items, max_size=5).map(tuple),
    nics=st.lists(st.builds(LanNic, names, st.none() | interfaces, st.none() | addresses), max_size=2).map(tuple),
)


def test_known_octets():
    told = LanNews("shop/web1", 3, 7, (("fa", IPv4Interface("10.78.0.11/24")),), (Guard(),), ())
    assert told.encode(KEY) == (
        b"1dc40c9a2b893ae296b7caf9b0a5ade72664a5c777841acca1919b69103e0424\n"
        b'{"server":"shop/web1","epoch":3,"counter":7,"fabrics":[["fa","10.78.0.11/24"]],"items":[{"type":"Guard"}],'
        b'"nics":[]}'
    )


@given(news)
def test_decode_undoes_encode(told):
    assert LanNews.decode(told.encode(KEY), KEY) == told


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda tail: b"0" * 64 + b"\n" + tail))
def test_any_octets_decode_or_are_malformed(octets):
    with pytest.raises(PeerError):
        LanNews.decode(octets, KEY)


@given(news, st.data())
def test_news_under_another_key_or_with_one_octet_changed_are_refused(told, data):
    octets = bytearray(told.encode(KEY))
    with pytest.raises(RefusedError):
        LanNews.decode(bytes(octets), KEY + "00")
    at = data.draw(st.sampled_from([place for place in range(len(octets)) if place != 64]))
    octets[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerError):
        LanNews.decode(bytes(octets), KEY)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"server":1}'])
def test_what_is_under_the_key_and_no_news_is_malformed(body):
    digest = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest().encode()
    with pytest.raises(MalformedError, match="cannot be read"):
        LanNews.decode(digest + b"\n" + body, KEY)


def test_what_does_not_fit_into_a_datagram_is_said():
    many = tuple(Source(IPv4Address(number)) for number in range(3000))
    with pytest.raises(ValueError, match="shop/web1 is to be told of its LANs takes"):
        LanNews("shop/web1", 3, 7, (), many, ()).encode(KEY)
