"""Beacons: found anywhere in a datagram, believed only under their key."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire.beacon import LONGEST_REPORT, Beacon, digest_of

beacons = st.builds(
    Beacon,
    server=st.from_regex(r"[a-z0-9-]{1,20}/[a-z0-9-]{1,20}", fullmatch=True),
    epoch=st.integers(1, 10**11),
    counter=st.integers(0, 10**14),
    digest=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
reports = st.builds(msgspec.structs.replace, beacons, report=st.binary(max_size=LONGEST_REPORT))


def test_known_octets():
    # sha256 of "00ff:shop/web1:7:42", made with sha256sum
    digest = "d31c62732328ac76b00bf2f30588aeb7413db20c8479381f4879b36094e65062"
    datagram = f"<13>Nov 21 10:00:00 web1 root: panloom 1 shop/web1 7 42 {digest}\n".encode()
    assert Beacon.decode(datagram) == Beacon("shop/web1", 7, 42, digest)
    assert digest_of("00ff", "shop/web1", 7, 42) == digest


@given(beacons, st.binary(max_size=100), st.binary(max_size=100))
def test_decode_undoes_encode_wherever_it_stands(beacon, before, after):
    assert Beacon.decode(beacon.encode()) == beacon
    assert Beacon.decode(before.replace(b"panloom", b"") + b" " + beacon.encode() + b"\n" + after) == beacon


@given(reports, st.binary(max_size=100))
def test_decode_undoes_encode_of_a_report(beacon, before):
    assert Beacon.decode(before.replace(b"panloom", b"") + b" " + beacon.encode()) == beacon


@given(st.binary(max_size=2000))
def test_any_octets_decode_or_are_malformed(octets):
    try:
        Beacon.decode(octets)
    except MalformedError:
        pass


def test_only_its_own_key_epoch_and_counter_make_it_true():
    good = Beacon("shop/web1", 7, 42, digest_of("00ff", "shop/web1", 7, 42))
    assert good.is_under("00ff")
    assert not good.is_under("00fe")
    for forged in (Beacon("shop/web1", 8, 42, good.digest), Beacon("shop/web1", 7, 43, good.digest)):
        assert not forged.is_under("00ff")


def test_a_datagram_without_a_beacon_is_malformed():
    with pytest.raises(MalformedError):
        Beacon.decode(b"<13>hello")
