"""Logins: as iPXE, Linux and libiscsi do them, and every way around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.chap import Credentials, response
from panloom.protocol.iscsi_login import Answer, AskAdmission, AskCredentials, IscsiLogin, State, Status, session_kind
from panloom.values import Iqn
from panloom.wire.iscsi import CONTINUE, FINAL, LoginRequest
from panloom.wire.iscsi_text import decode_binary, decode_text, encode_text

INITIATOR = "iqn.2026-11.dev.panloom:node.n1"
TARGET = "iqn.2026-11.dev.panloom:shop.web1"
NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET, "SessionType": "Normal"}
DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}
WEB1 = Credentials("web1", "secret-of-web1")
OPEN = Credentials()
CHALLENGE = bytes(range(16))
IPXE_KEYS = {"InitialR2T": "Yes", "ImmediateData": "No", "MaxRecvDataSegmentLength": "8192"}
LINUX_KEYS = {"InitialR2T": "No", "ImmediateData": "Yes", "MaxRecvDataSegmentLength": "262144"}
TO_SECURITY, TO_OPERATIONAL, TO_FULL, OPERATIONAL_TO_FULL = 0x00, FINAL | 0x01, FINAL | 0x03, FINAL | 0x07


class Peer:
    """An initiator that says what it is told to, to a target that lets in whoever proves ``candidates``."""

    def __init__(self, *candidates):
        self.login = IscsiLogin(identifier=7, challenge=CHALLENGE)
        self.candidates = candidates
        self.asked = []

    def say(self, flags, keys=None, *, data=None, **fields):
        fields = {"isid": bytes.fromhex("80123456789a"), "initiator_task_tag": 1, "cmd_sn": 100, **fields}
        octets = encode_text(list((keys or {}).items())) if data is None else data
        step = self.login.receive(LoginRequest(flags=flags, data=octets, **fields))
        while not isinstance(step, Answer):
            self.asked.append(step)
            step = self.login.may_prove(self.candidates) if isinstance(step, AskCredentials) else self.login.admit(9)
        answer = step.response
        self.keys = decode_text(answer.data)
        self.status = answer.status_class, answer.status_detail
        return answer


def answer_to(keys, secret):
    challenge = decode_binary(keys["CHAP_C"], longest_octets=64)
    return "0x" + response(int(keys["CHAP_I"]), secret, challenge).hex()


def log_in_with_chap(peer, secret=b"secret-of-web1", user="web1", names=NAMES):
    peer.say(TO_OPERATIONAL, {**names, "AuthMethod": "CHAP,None"})
    assert peer.keys["AuthMethod"] == "CHAP"
    peer.say(TO_OPERATIONAL, {"CHAP_A": "5"})
    return peer.say(TO_OPERATIONAL, {"CHAP_N": user, "CHAP_R": answer_to(peer.keys, secret)})


def test_ipxe_without_a_secret():
    peer = Peer(OPEN)
    answer = peer.say(TO_OPERATIONAL, {**NAMES, "AuthMethod": "None"})
    assert answer.flags == TO_OPERATIONAL
    assert peer.keys == {"TargetPortalGroupTag": "1", "AuthMethod": "None"}
    answer = peer.say(OPERATIONAL_TO_FULL, IPXE_KEYS)
    assert answer.flags == OPERATIONAL_TO_FULL
    assert answer.tsih == 9
    assert peer.keys == {"MaxRecvDataSegmentLength": "262144", "InitialR2T": "Yes", "ImmediateData": "No"}
    assert peer.login.state is State.FINISHED
    assert peer.asked == [AskCredentials(Iqn(INITIATOR), Iqn(TARGET)), AskAdmission()]
    assert session_kind(peer.login) == "firmware"


def test_linux_without_a_secret():
    peer = Peer(OPEN)
    answer = peer.say(OPERATIONAL_TO_FULL, {**NAMES, **LINUX_KEYS}, isid=bytes.fromhex("00023d000001"))
    assert (answer.flags, answer.exp_cmd_sn, answer.max_cmd_sn) == (OPERATIONAL_TO_FULL, 100, 227)
    assert peer.keys["TargetPortalGroupTag"] == "1"
    assert peer.login.parameters.max_recv_data_segment_length == 262144
    assert session_kind(peer.login) == "kernel"


def test_chap():
    peer = Peer(WEB1)
    answer = log_in_with_chap(peer)
    assert answer.flags == TO_OPERATIONAL
    assert peer.login.proved == WEB1
    peer.say(OPERATIONAL_TO_FULL, LINUX_KEYS)
    assert peer.login.state is State.FINISHED
    assert session_kind(peer.login) == "unknown"


def test_security_straight_to_full_feature_keeps_the_defaults():
    peer = Peer(OPEN)
    assert peer.say(TO_FULL, {**NAMES, "AuthMethod": "None"}).flags == TO_FULL
    assert peer.login.parameters.max_recv_data_segment_length == 8192


def test_stat_sn_goes_on_from_what_the_initiator_expects():
    peer = Peer(OPEN)
    assert peer.say(TO_SECURITY, NAMES, exp_stat_sn=0xFFFFFFFF).stat_sn == 0xFFFFFFFF
    assert peer.say(TO_OPERATIONAL).stat_sn == 0
    assert peer.say(OPERATIONAL_TO_FULL).stat_sn == 1
    assert peer.login.stat_sn == 2


def test_text_may_go_on_over_several_requests():
    peer = Peer(OPEN)
    octets = encode_text(list({**NAMES, **LINUX_KEYS}.items()))
    answer = peer.say(CONTINUE | 0x04, data=octets[:50])
    assert (answer.flags, peer.keys) == (0x04, {})
    peer.say(OPERATIONAL_TO_FULL, data=octets[50:])
    assert peer.login.state is State.FINISHED
    assert peer.login.target == Iqn(TARGET)


def test_discovery_needs_no_target():
    peer = Peer(OPEN)
    peer.say(OPERATIONAL_TO_FULL, DISCOVERY)
    assert peer.login.state is State.FINISHED
    assert peer.login.target is None
    assert "TargetPortalGroupTag" not in peer.keys


def test_discovery_proves_what_it_can():
    peer = Peer(OPEN, WEB1)
    log_in_with_chap(peer, names=DISCOVERY)
    assert peer.login.proved == WEB1
    anonymous = Peer(OPEN, WEB1)
    anonymous.say(TO_OPERATIONAL, {**DISCOVERY, "AuthMethod": "None"})
    assert anonymous.login.proved == OPEN


REFUSED = Status.AUTHENTICATION_FAILURE.value


def test_the_security_stage_cannot_be_skipped():
    peer = Peer(WEB1)
    peer.say(OPERATIONAL_TO_FULL, {**NAMES, **LINUX_KEYS})
    assert peer.status == REFUSED
    assert peer.login.state is State.REFUSED


@pytest.mark.parametrize("offer", [{"AuthMethod": "None"}, {"AuthMethod": "KRB5"}, {}])
@pytest.mark.parametrize("flags", [TO_SECURITY, TO_OPERATIONAL, TO_FULL])
def test_nothing_but_chap_will_do(offer, flags):
    peer = Peer(WEB1)
    peer.say(flags, {**NAMES, **offer})
    assert peer.status == REFUSED


def test_a_wrong_secret():
    peer = Peer(WEB1)
    log_in_with_chap(peer, secret=b"guessed")
    assert peer.status == REFUSED
    peer.say(OPERATIONAL_TO_FULL, LINUX_KEYS)
    assert peer.status != (0, 0)
    assert peer.login.state is State.REFUSED


def test_leaving_out_the_answer():
    for flags in (TO_OPERATIONAL, TO_FULL, TO_SECURITY):
        peer = Peer(WEB1)
        peer.say(TO_OPERATIONAL, {**NAMES, "AuthMethod": "CHAP"})
        peer.say(TO_OPERATIONAL, {"CHAP_A": "5"})
        peer.say(flags)
        assert peer.status == REFUSED


def test_going_on_without_a_challenge():
    peer = Peer(WEB1)
    peer.say(TO_OPERATIONAL, {**NAMES, "AuthMethod": "CHAP"})
    peer.say(TO_OPERATIONAL, {"CHAP_N": "web1", "CHAP_R": "0x00"})
    assert peer.status == REFUSED


def test_a_challenge_is_good_for_one_attempt():
    peer = Peer(WEB1)
    log_in_with_chap(peer, secret=b"guessed")
    peer.say(TO_OPERATIONAL, {"CHAP_A": "5"})
    assert peer.status == Status.INVALID_REQUEST.value


def test_an_initiator_without_credentials_is_refused():
    peer = Peer()
    peer.say(OPERATIONAL_TO_FULL, NAMES)
    assert peer.status == Status.AUTHORIZATION_FAILURE.value


@pytest.mark.parametrize(
    ("flags", "keys", "fields", "status"),
    [
        (OPERATIONAL_TO_FULL, {"TargetName": TARGET}, {}, Status.MISSING_PARAMETER),
        (OPERATIONAL_TO_FULL, {"InitiatorName": INITIATOR}, {}, Status.MISSING_PARAMETER),
        (OPERATIONAL_TO_FULL, {**NAMES, "SessionType": "Abnormal"}, {}, Status.SESSION_TYPE_NOT_SUPPORTED),
        (OPERATIONAL_TO_FULL, {**NAMES, "InitiatorName": "n1"}, {}, Status.INITIATOR_ERROR),
        (OPERATIONAL_TO_FULL, {**NAMES, "InitiatorName": "iqn.2026-11.dev.ä"}, {}, Status.INITIATOR_ERROR),
        (OPERATIONAL_TO_FULL, {**NAMES, "TargetName": TARGET + "x" * 224}, {}, Status.INITIATOR_ERROR),
        (OPERATIONAL_TO_FULL, {**NAMES, "MaxRecvDataSegmentLength": "0"}, {}, Status.INITIATOR_ERROR),
        (OPERATIONAL_TO_FULL, NAMES, {"version_min": 1, "version_max": 255}, Status.UNSUPPORTED_VERSION),
        (FINAL | 0x02, NAMES, {}, Status.INITIATOR_ERROR),
        (FINAL | 0x04, NAMES, {}, Status.INITIATOR_ERROR),
        (FINAL | 0x05, NAMES, {}, Status.INITIATOR_ERROR),
        (FINAL | CONTINUE | 0x07, NAMES, {}, Status.INITIATOR_ERROR),
        (0x08, NAMES, {}, Status.INITIATOR_ERROR),
        (FINAL | 0x0F, NAMES, {}, Status.INITIATOR_ERROR),
    ],
)
def test_bad_first_requests(flags, keys, fields, status):
    peer = Peer(OPEN)
    peer.say(flags, keys, **fields)
    assert peer.status == status.value
    assert peer.login.state is State.REFUSED
    assert peer.login.why


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"no equals\0", b"A=1\0A=2\0", b"K" * 100 + b"=1\0"])
def test_bad_text(data):
    peer = Peer(OPEN)
    peer.say(OPERATIONAL_TO_FULL, data=data)
    assert peer.status == Status.INITIATOR_ERROR.value


def test_a_login_into_a_session_asks_for_admission():
    peer = Peer(OPEN)
    peer.say(OPERATIONAL_TO_FULL, NAMES, tsih=4711)
    assert (peer.login.tsih, isinstance(peer.asked[-1], AskAdmission)) == (4711, True)


def test_both_prove_themselves():
    peer = Peer(Credentials("web1", "secret-of-web1", "target", "secret-of-target"))
    peer.say(TO_OPERATIONAL, {**NAMES, "AuthMethod": "CHAP"})
    peer.say(TO_OPERATIONAL, {"CHAP_A": "5"})
    proof = {"CHAP_N": "web1", "CHAP_R": answer_to(peer.keys, b"secret-of-web1")}
    peer.say(TO_OPERATIONAL, {**proof, "CHAP_I": "9", "CHAP_C": "0x" + "77" * 16})
    expected = "0x" + response(9, b"secret-of-target", b"\x77" * 16).hex()
    assert (peer.status, peer.keys) == ((0, 0), {"CHAP_N": "target", "CHAP_R": expected})


@pytest.mark.parametrize(("permanent", "status"), [(False, (1, 1)), (True, (1, 2))])
def test_a_target_that_has_moved_says_where_to(permanent, status):
    peer = Peer(OPEN)
    login = peer.login
    request = LoginRequest(
        flags=OPERATIONAL_TO_FULL, isid=bytes(6), initiator_task_tag=1, cmd_sn=1, data=encode_text(list(NAMES.items()))
    )
    assert isinstance(login.receive(request), AskCredentials)
    answer = login.redirect("192.0.2.9:3260,1", permanent=permanent).response
    assert (answer.status_class, answer.status_detail) == status
    assert decode_text(answer.data) == {"TargetAddress": "192.0.2.9:3260,1"}
    assert (login.state, login.why) == (State.REFUSED, "moved to 192.0.2.9:3260,1")


def test_stages_do_not_go_back():
    peer = Peer(OPEN)
    peer.say(TO_OPERATIONAL, {**NAMES, "AuthMethod": "None"})
    peer.say(TO_FULL)
    assert peer.status == Status.INITIATOR_ERROR.value


def test_a_login_does_not_change_hands():
    peer = Peer(OPEN)
    peer.say(TO_SECURITY, NAMES)
    peer.say(TO_OPERATIONAL, isid=bytes(6))
    assert peer.status == Status.INVALID_REQUEST.value


def test_a_login_has_an_end():
    peer = Peer(OPEN)
    for _ in range(200):
        peer.say(TO_SECURITY, NAMES)
        if peer.login.state is State.REFUSED:
            return
    raise AssertionError("200 requests without an end")


def test_text_has_an_end():
    peer = Peer(OPEN)
    for _ in range(3):
        peer.say(CONTINUE, data=b"x" * 8192)
    assert peer.login.state is State.REFUSED


KEYS = st.dictionaries(
    st.sampled_from([*NAMES, *IPXE_KEYS, "AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_C", "X-a"]),
    st.one_of(
        st.sampled_from(
            [INITIATOR, TARGET, "Normal", "Discovery", "None", "CHAP", "CHAP,None", "5", "web1", "0x00", "Yes"]
        ),
        st.text(max_size=8),
    ),
)


@given(st.lists(st.tuples(st.integers(0, 255), KEYS), max_size=8), st.booleans())
def test_nobody_gets_in_without_the_secret(requests, names_first):
    """Whatever is said in whatever order: without the secret the login never finishes, and nothing escapes."""
    peer = Peer(WEB1)
    if names_first:
        peer.say(TO_SECURITY, {**NAMES, "AuthMethod": "CHAP"})
    for flags, keys in requests:
        peer.say(flags, keys)
        if peer.login.target is not None:
            assert peer.login.state is not State.FINISHED
            assert AskAdmission() not in peer.asked
