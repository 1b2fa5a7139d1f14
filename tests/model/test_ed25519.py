"""Keys that prove something, and those by which anybody signs anything."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from panloom.model.ed25519 import is_trustworthy
from panloom.model.fields import _public_key

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
BASE = bytes.fromhex("58" + "66" * 31)  # RFC 8032 section 5.1: the y of B is 4/5
IDENTITY = (0, 1)


def point(key):
    """Return the point that RFC 8032 section 5.1.3 makes of 32 octets, y reduced; None where there is none."""
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, (number & (2**255 - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (P - x if x and x % 2 != sign else x), y


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def eight_times(found):
    for _ in range(3):
        found = add(found, found)
    return found


def torsion():
    """Return the eight points of small order: what is left of a point, taken as often as B has multiples."""
    order = 2**252 + 27742317777372353535851937790883648493
    for seed in range(2, 100):
        start = point(seed.to_bytes(32, "little"))
        if start is None:
            continue
        found, power, left = IDENTITY, start, order
        while left:
            found, power, left = (add(found, power) if left & 1 else found), add(power, power), left >> 1
        if add(add(found, found), add(found, found)) != IDENTITY:  # of order 8: it makes all of them
            points = [IDENTITY]
            while len(points) < 8:
                points.append(add(points[-1], found))
            return points
    raise AssertionError


def encodings():
    for x, y in torsion():
        for value in {y, y + P} if y + P < 2**255 else {y}:
            for sign in (x % 2, 1 - x % 2):
                yield (value | sign << 255).to_bytes(32, "little")


def test_known_octets():
    assert is_trustworthy(BASE)
    assert is_trustworthy(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))


def test_no_point_of_small_order_is_trusted_however_it_is_written():
    points = torsion()
    assert len(set(points)) == 8
    assert {eight_times(found) for found in points} == {IDENTITY}
    found = set(encodings())
    assert len(found) >= 14
    assert [key.hex() for key in found if is_trustworthy(key)] == []


def test_anybody_signs_anything_for_such_a_key_which_is_why_no_document_may_name_it():
    key = IDENTITY[1].to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(key).verify(key + bytes(32), b"whatever")
    with pytest.raises(ValueError, match="no key of Ed25519 that one person can have"):
        _public_key(base64.b64encode(key).decode())


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_made_is_trusted(seed):
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert is_trustworthy(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


@given(st.binary(min_size=32, max_size=32))
def test_of_any_octets_those_are_trusted_that_are_a_point_of_large_order(key):
    found = point(key)
    assert is_trustworthy(key) == (found is not None and eight_times(found) != IDENTITY)


@given(st.binary(max_size=80).filter(lambda octets: len(octets) != 32))
def test_no_other_number_of_octets_is_a_key(octets):
    assert not is_trustworthy(octets)
