"""CHAP: what libiscsi answered once, and every way of not knowing the secret."""

import base64

import pytest

from panloom.protocol.chap import ChapTarget, Credentials, response

CHALLENGE = bytes.fromhex("1d86a649ad9e397349a0b4414390f96e")
IDENTIFIER = 185
WEB1 = Credentials("web1", "secret-of-web1")
ANSWER = "072F010C8D6FE5801B742D2A928B4834"  # libiscsi 1.19 to this challenge


def chap(*candidates):
    return ChapTarget(candidates or (WEB1,), identifier=IDENTIFIER, challenge=CHALLENGE)


def test_known_octets():
    assert response(IDENTIFIER, b"secret-of-web1", CHALLENGE) == bytes.fromhex(ANSWER)
    assert chap().verify({"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER}) == WEB1


def test_an_answer_in_base64():
    digits = base64.b64encode(bytes.fromhex(ANSWER)).decode()
    assert chap().verify({"CHAP_N": "web1", "CHAP_R": "0b" + digits}) == WEB1


@pytest.mark.parametrize("algorithms", ["5", "5,7", "7,5", "8,7,6,5"])
def test_md5_is_found_in_the_list(algorithms):
    assert chap().ask({"CHAP_A": algorithms}) == [
        ("CHAP_A", "5"),
        ("CHAP_I", "185"),
        ("CHAP_C", "0x1d86a649ad9e397349a0b4414390f96e"),
    ]


@pytest.mark.parametrize("keys", [{}, {"CHAP_A": "7"}, {"CHAP_A": "55"}, {"CHAP_A": ""}])
def test_without_md5_there_is_no_challenge(keys):
    assert chap().ask(keys) is None


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"CHAP_N": "web1"},
        {"CHAP_R": "0x" + ANSWER},
        {"CHAP_N": "web1", "CHAP_R": ""},
        {"CHAP_N": "web1", "CHAP_R": "0x"},
        {"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER[:-1]},
        {"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER[:-2]},
        {"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER + "00"},
        {"CHAP_N": "web1", "CHAP_R": "0b" + "A" * 5000},
        {"CHAP_N": "web1", "CHAP_R": "0x" + CHALLENGE.hex()},
        {"CHAP_N": "web2", "CHAP_R": "0x" + ANSWER},
        {"CHAP_N": "", "CHAP_R": "0x" + ANSWER},
        {"CHAP_N": "web1", "CHAP_R": "0x" + response(IDENTIFIER + 1, b"secret-of-web1", CHALLENGE).hex()},
        {"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER, "CHAP_I": "185", "CHAP_C": "0x" + CHALLENGE.hex()},
    ],
)
def test_nothing_else_proves_the_secret(keys):
    assert chap().verify(keys) is None


def test_no_user_is_no_credential():
    nobody = "0x" + response(IDENTIFIER, b"", CHALLENGE).hex()
    assert chap(Credentials()).verify({"CHAP_N": "", "CHAP_R": nobody}) is None
    assert chap(Credentials("web1", "")).verify({"CHAP_N": "web1", "CHAP_R": nobody}) is None


def test_one_of_several_candidates():
    other = Credentials("web2", "secret-of-web2")
    answer = "0x" + response(IDENTIFIER, b"secret-of-web2", CHALLENGE).hex()
    assert chap(WEB1, other).verify({"CHAP_N": "web2", "CHAP_R": answer}) == other
    assert chap(WEB1, other).verify({"CHAP_N": "web1", "CHAP_R": answer}) is None


def test_short_challenges_are_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="16 or more"):
        ChapTarget((WEB1,), identifier=1, challenge=b"short")


def test_a_secret_is_not_shown():
    assert "secret-of-web1" not in repr(WEB1)
