"""CHAP: what libiscsi answered once, and every way of not knowing the secret."""

import base64

import pytest

from panloom.errors import RefusedError
from panloom.protocol.chap import ChapInitiator, ChapTarget, Credentials, Proof, Secrets, response

CHALLENGE = bytes.fromhex("1d86a649ad9e397349a0b4414390f96e")
IDENTIFIER = 185
WEB1 = Credentials("web1", "secret-of-web1")
ANSWER = "072F010C8D6FE5801B742D2A928B4834"  # libiscsi 1.19 to this challenge


def chap(*candidates):
    return ChapTarget(candidates or (WEB1,), identifier=IDENTIFIER, challenge=CHALLENGE)


def test_known_octets():
    assert response(IDENTIFIER, b"secret-of-web1", CHALLENGE) == bytes.fromhex(ANSWER)
    assert chap().verify({"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER}) == Proof(WEB1)


def test_an_answer_in_base64():
    digits = base64.b64encode(bytes.fromhex(ANSWER)).decode()
    assert chap().verify({"CHAP_N": "web1", "CHAP_R": "0b" + digits}) == Proof(WEB1)


@pytest.mark.parametrize(
    ("algorithms", "taken"), [("5", "5"), ("5,7", "5"), ("7,5", "7"), ("7", "7"), ("8,6,5,7", "5"), ("8,7,6,5", "7")]
)
def test_the_first_that_is_known_is_taken(algorithms, taken):
    assert chap().ask({"CHAP_A": algorithms}) == [
        ("CHAP_A", taken),
        ("CHAP_I", "185"),
        ("CHAP_C", "0x1d86a649ad9e397349a0b4414390f96e"),
    ]


@pytest.mark.parametrize("keys", [{}, {"CHAP_A": "6,8"}, {"CHAP_A": "55"}, {"CHAP_A": ""}])
def test_without_an_algorithm_in_common_there_is_no_challenge(keys):
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
    assert chap(WEB1, other).verify({"CHAP_N": "web2", "CHAP_R": answer}) == Proof(other)
    assert chap(WEB1, other).verify({"CHAP_N": "web1", "CHAP_R": answer}) is None


def test_short_challenges_are_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="16 or more"):
        ChapTarget((WEB1,), identifier=1, challenge=b"short")


def test_a_secret_is_not_shown():
    assert "secret-of-web1" not in repr(WEB1)


# -- both prove themselves -----------------------------------------------------------------------------------------

MUTUAL = Credentials("web1", "secret-of-web1", "target", "secret-of-target")
SECRETS = Secrets("web1", "secret-of-web1", "target", "secret-of-target")
OWN = bytes(range(16))


def prove(target, secrets=SECRETS, *, own=OWN):
    """Have our initiator and a target prove themselves; return what the target made of it."""
    initiator = ChapInitiator(secrets, identifier=9, challenge=own)
    proof = target.verify(dict(initiator.answer(dict(target.ask(dict(initiator.propose()))))))
    if proof is not None:
        initiator.verify(dict(proof.answers))
    return proof


@pytest.mark.parametrize("algorithms", [("5",), ("7",), ("7", "5")])
def test_both_prove_themselves(algorithms):
    secrets = Secrets("web1", "secret-of-web1", "target", "secret-of-target", algorithms)
    proof = prove(chap(MUTUAL), secrets)
    assert proof.credentials == MUTUAL
    assert dict(proof.answers)["CHAP_N"] == "target"


def test_a_target_that_does_not_know_its_secret_is_found_out():
    with pytest.raises(RefusedError, match="does not know its secret"):
        prove(chap(Credentials("web1", "secret-of-web1", "target", "another secret")))


def test_a_target_without_a_secret_answers_no_challenge():
    assert prove(chap(WEB1)) is None


def test_a_target_proves_nothing_to_who_has_not_proved_himself():
    assert prove(chap(MUTUAL), Secrets("web1", "a guess at it", "target", "secret-of-target")) is None


def test_no_challenge_of_ours_is_answered_by_us():
    reflected = {
        "CHAP_N": "web1", "CHAP_R": "0x" + ANSWER, "CHAP_I": "185", "CHAP_C": "0x" + CHALLENGE.hex()
    }  # fmt: skip
    assert chap(MUTUAL).verify(reflected) is None
    elsewhere = ChapTarget((MUTUAL,), identifier=IDENTIFIER, challenge=CHALLENGE, is_ours=lambda each: each == OWN)
    assert elsewhere.verify({**reflected, "CHAP_C": "0x" + OWN.hex()}) is None
    assert elsewhere.verify({**reflected, "CHAP_C": "0x" + OWN.hex() + "00"}) is not None


@pytest.mark.parametrize(
    "keys",
    [
        {"CHAP_I": "9"},
        {"CHAP_C": "0x00"},
        {"CHAP_I": "256", "CHAP_C": "0x00"},
        {"CHAP_I": "-1", "CHAP_C": "0x00"},
        {"CHAP_I": "nine", "CHAP_C": "0x00"},
        {"CHAP_I": "9", "CHAP_C": "0x"},
        {"CHAP_I": "9", "CHAP_C": "0x0"},
        {"CHAP_I": "9", "CHAP_C": "0x" + "00" * 1025},
    ],
)
def test_a_challenge_that_is_none_is_refused(keys):
    assert chap(MUTUAL).verify({"CHAP_N": "web1", "CHAP_R": "0x" + ANSWER, **keys}) is None


@pytest.mark.parametrize("name", ["0x123456", "0bdGVzdA==", "0X", "web 1"])
def test_a_name_is_text_whatever_it_looks_like(name):
    """libiscsi's test-tool has users that begin as binary values do."""
    assert chap(Credentials(name, "secret-of-web1")).verify({"CHAP_N": name, "CHAP_R": "0x" + ANSWER}) is not None


@pytest.mark.parametrize(
    "fields",
    [
        ("web1", "secret-of-web1", "target", "secret-of-web1"),
        ("web1", "secret-of-web1", "target"),
        (None, None, "target", "secret-of-target"),
    ],
)
def test_credentials_that_protect_nobody_cannot_be_made(fields):
    with pytest.raises(ValueError, match="secret"):
        Credentials(*fields)
