"""Login and text keys: captured from libiscsi, and bad ones."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire.iscsi_text import decode_binary, decode_number, decode_text, encode_binary, encode_text

KEY = st.from_regex(r"[A-Z][A-Za-z0-9]{0,20}", fullmatch=True)
VALUE = st.text(string.ascii_letters + string.digits + ",.:-_=ä", max_size=40)


def test_known_octets():
    octets = (
        b"InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls\0"
        b"SessionType=Discovery\0AuthMethod=CHAP,None\0"
    )
    keys = {
        "InitiatorName": "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls",
        "SessionType": "Discovery",
        "AuthMethod": "CHAP,None",
    }
    assert decode_text(octets + b"\0") == keys
    assert encode_text(list(keys.items())) == octets


@given(st.dictionaries(KEY, VALUE, max_size=6))
def test_decode_undoes_encode(keys):
    assert decode_text(encode_text(list(keys.items()))) == keys


@given(st.one_of(st.binary(max_size=80), st.text("Ab=\0,", max_size=40).map(str.encode)))
def test_any_octets_decode_or_are_malformed(octets):
    try:
        keys = decode_text(octets)
    except MalformedError:
        return
    assert decode_text(encode_text(list(keys.items()))) == keys


@pytest.mark.parametrize(
    "octets",
    [
        b"NoEquals\0",
        b"=value\0",
        b"A=1\0A=1\0",
        b"\xff\xfe=1\0",
        b"K" * 64 + b"=1\0",
        b"Key=" + b"v" * 65536,
        b"lower=1\0",
    ],
)
def test_bad_text_is_malformed(octets):
    with pytest.raises(MalformedError):
        decode_text(octets)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("262144", 262144), ("0x40", 64), ("18446744073709551615", 2**64 - 1)]
)
def test_numbers(text, number):
    assert decode_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "18446744073709551616", "0x", "0xg", "0x" + "f" * 17, "١", " 1", "1e3"]
)
def test_bad_numbers_are_malformed(text):
    with pytest.raises(MalformedError):
        decode_number(text)


@given(st.binary(max_size=64))
def test_binary_values(octets):
    assert decode_binary(encode_binary(octets), longest_octets=64) == octets


def test_binary_values_in_base64():
    assert decode_binary("0bAAEC", longest_octets=16) == b"\0\1\2"
    assert decode_binary("0BAAEC", longest_octets=16) == b"\0\1\2"


@pytest.mark.parametrize(
    "text", ["0x123", "0b", "0bA", "0xzz", "abcd", "", "0x" + "00" * 17, "0b" + "A" * 400, "0bäää"]
)
def test_bad_binary_values_are_malformed(text):
    if text == "0b":
        assert decode_binary(text, longest_octets=16) == b""
        return
    with pytest.raises(MalformedError):
        decode_binary(text, longest_octets=16)
