"""A signature is of one disk under one name and version, by one key; anything else is told from it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import ConfigError
from panloom.model.image_signatures import Statement, key_id, new_key, sign, verify

STATEMENT = Statement("web", 2, 1 << 20, "ab" * 32)
PEM, PUBLIC = new_key()
OTHER_PEM, OTHER = new_key()
RFC_8032_TEST_1 = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
"""RFC 8032 section 7.1, the public key of TEST 1."""


def test_known_octets():
    assert STATEMENT.encode() == (
        b"panloom image 1\nname: web\nversion: 2\noctets: 1048576\nsha256: " + b"ab" * 32 + b"\n"
    )
    assert key_id(base64.b64encode(RFC_8032_TEST_1).decode()) == "21fe31dfa154a261"


def test_what_was_signed_is_verified_and_by_whom():
    signature, public = sign(STATEMENT, PEM, "release.key")
    assert public == PUBLIC
    assert verify(STATEMENT, [signature], {"release": PUBLIC}).by == ("release",)
    both = [signature, sign(STATEMENT, OTHER_PEM, "other.key")[0]]
    assert verify(STATEMENT, both, {"release": PUBLIC, "other": OTHER}).by == ("release", "other")


@pytest.mark.parametrize(
    "other",
    [
        STATEMENT._replace(name="db"),
        STATEMENT._replace(version=3),
        STATEMENT._replace(octets=1 << 21),
        STATEMENT._replace(sha256="cd" * 32),
    ],
)
def test_a_signature_says_nothing_of_another_disk_name_or_version(other):
    signature, _ = sign(STATEMENT, PEM, "release.key")
    verdict = verify(other, [signature], {"release": PUBLIC})
    assert verdict.by == ()
    assert verdict.bad.startswith(f"the signature of {other.name}@{other.version} by key release is not of this disk")


def test_a_key_that_is_not_trusted_means_nothing():
    assert verify(STATEMENT, [sign(STATEMENT, PEM, "k")[0]], {"other": OTHER}) == ((), "")


@given(st.binary(max_size=80) | st.binary(min_size=64, max_size=64))
def test_any_octets_are_a_bad_signature_and_nothing_else(octets):
    found = f"{key_id(PUBLIC)}:{base64.b64encode(octets).decode()}"
    assert verify(STATEMENT, [found], {"release": PUBLIC}).bad


def test_a_bad_one_counts_beside_a_good_one():
    good, bad = sign(STATEMENT, PEM, "k")[0], sign(STATEMENT._replace(version=1), OTHER_PEM, "k")[0]
    assert verify(STATEMENT, [good, bad], {"release": PUBLIC, "other": OTHER}).bad


@pytest.mark.parametrize("pem", [b"", b"no key", PEM[:60]], ids=["nothing", "no key", "a part"])
def test_what_is_no_key_is_said(pem):
    with pytest.raises(ConfigError, match=r"release\.key"):
        sign(STATEMENT, pem, "release.key")
