"""The initiator's login: against our own target, and against targets that say what the test tells them to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError, PeerError, RefusedError
from panloom.protocol.chap import MD5, SHA256, Credentials, Secrets, response
from panloom.protocol.iscsi_initiator_keys import Agreed, Wishes
from panloom.protocol.iscsi_initiator_login import Identity, InitiatorLogin, LoginRefusedError, Redirect, State
from panloom.protocol.iscsi_login import Answer, AskCredentials, IscsiLogin
from panloom.values import Iqn
from panloom.wire.iscsi import CONTINUE, FINAL, LoginResponse
from panloom.wire.iscsi_text import Portal, decode_binary, decode_text, encode_text

INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
ISID = bytes.fromhex("800102030405")
OURS, THEIRS = bytes(range(16)), bytes(range(50, 66))
WEB1 = Secrets("web1", "secret-of-web1")
MUTUAL = Secrets("web1", "secret-of-web1", "peer", "secret-of-peer")
TO_OPERATIONAL, TO_FULL = FINAL | 1, FINAL | 7
GROUP = {"TargetPortalGroupTag": "1"}


def login_of(secrets=None, *, target=TARGET, wishes=None, **fields):
    identity = Identity(INITIATOR, target, ISID, secrets or Secrets(), **fields)
    return InitiatorLogin(identity, wishes or Wishes(), cmd_sn=7, task_tag=0, identifier=9, challenge=OURS)


class Peer:
    """A target's words; ``asked`` are the keys of our last request."""

    def __init__(self, login):
        self.login = login
        self.stat_sn = 100
        self._note(login.first())

    def _note(self, step):
        self.step = step
        self.request = step if hasattr(step, "data") else None
        self.asked = decode_text(step.data) if self.request else {}

    def say(self, flags, keys=None, *, data=None, **fields):
        octets = encode_text(list((keys or {}).items())) if data is None else data
        numbers = {"stat_sn": self.stat_sn, "exp_cmd_sn": 7, "max_cmd_sn": 38}
        pdu = LoginResponse(**{"flags": flags, "isid": ISID, "initiator_task_tag": 0, **numbers, **fields}, data=octets)
        self.stat_sn += 1
        self._note(self.login.receive(pdu))
        return self


def test_one_stage_without_a_user():
    login = login_of()
    peer = Peer(login)
    assert peer.request.flags == 4 | FINAL | 3
    assert list(peer.asked)[:3] == ["InitiatorName", "SessionType", "TargetName"]
    assert (peer.asked["InitialR2T"], peer.asked["MaxOutstandingR2T"]) == ("No", "8")
    assert peer.request.cmd_sn == 7
    peer.say(TO_FULL, {**GROUP, "MaxRecvDataSegmentLength": "65536", "FirstBurstLength": "4096"}, tsih=5)
    assert peer.step is None
    assert login.state is State.FINISHED
    assert login.agreed == Agreed(max_send_octets=65536, first_burst_length=4096)
    assert (login.exp_stat_sn, login.max_cmd_sn, login.portal_group) == (101, 38, 1)


def test_two_stages_with_chap():
    peer = Peer(login_of(WEB1))
    assert (peer.request.flags, peer.asked["AuthMethod"]) == (0, "CHAP,None")
    assert "InitialR2T" not in peer.asked
    peer.say(0, {**GROUP, "AuthMethod": "CHAP"})
    assert peer.asked == {"CHAP_A": "5,7"}
    peer.say(0, {"CHAP_A": "5", "CHAP_I": "3", "CHAP_C": "0b" + "AAECAw=="})
    assert peer.request.flags == TO_OPERATIONAL
    assert peer.request.exp_stat_sn == 102
    proof = "0x" + response(3, b"secret-of-web1", bytes(range(4))).hex()
    assert peer.asked == {"CHAP_N": "web1", "CHAP_R": proof}
    peer.say(TO_OPERATIONAL)
    assert peer.request.flags == TO_FULL
    assert "InitialR2T" in peer.asked
    assert peer.say(TO_FULL).step is None


@pytest.mark.parametrize("algorithm", [MD5, SHA256])
def test_mutual_chap(algorithm):
    def challenged():
        peer = Peer(login_of(MUTUAL))
        assert peer.asked["AuthMethod"] == "CHAP"
        peer.say(0, {"AuthMethod": "CHAP"})
        return peer.say(0, {"CHAP_A": algorithm, "CHAP_I": "3", "CHAP_C": "0x" + THEIRS.hex()})

    peer = challenged()
    assert decode_binary(peer.asked["CHAP_C"], longest_octets=64) == OURS
    assert peer.asked["CHAP_I"] == "9"
    assert peer.asked["CHAP_R"] == "0x" + response(3, b"secret-of-web1", THEIRS, algorithm).hex()
    reflected = peer.asked["CHAP_R"]
    proof = "0x" + response(9, b"secret-of-peer", OURS, algorithm).hex()
    assert peer.say(TO_OPERATIONAL, {"CHAP_N": "peer", "CHAP_R": proof}).request.flags == TO_FULL
    wrong = "0x" + response(9, b"secret-of-pear", OURS, algorithm).hex()
    for keys in (
        {},
        {"CHAP_N": "peer"},
        {"CHAP_N": "peer", "CHAP_R": wrong},
        {"CHAP_N": "peer", "CHAP_R": reflected},
        {"CHAP_N": "web1", "CHAP_R": proof},
    ):
        with pytest.raises(RefusedError, match="target"):
            challenged().say(TO_OPERATIONAL, keys)


def test_our_own_challenge_is_not_answered():
    peer = Peer(login_of(MUTUAL)).say(0, {"AuthMethod": "CHAP"})
    with pytest.raises(RefusedError, match="our own CHAP challenge"):
        peer.say(0, {"CHAP_A": "5", "CHAP_I": "9", "CHAP_C": "0x" + OURS.hex()})


def test_a_target_that_must_prove_itself_may_not_leave_it_out():
    with pytest.raises(RefusedError, match="no authentication"):
        Peer(login_of(MUTUAL)).say(0, {"AuthMethod": "None"})
    assert Peer(login_of(WEB1)).say(0, {"AuthMethod": "None"}).request.flags == TO_OPERATIONAL


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"user": "a"}, "needs a user and a secret"),
        ({"secret": "a"}, "needs a user and a secret"),
        ({"user": "a", "secret": "b", "target_secret": "b"}, "must not have the same secret"),
        ({"target_secret": "b"}, "proves itself only"),
        ({"user": "a", "secret": "b", "target_user": "c"}, "needs the target's secret"),
        ({"user": "a", "secret": "b", "algorithms": ("6",)}, "CHAP algorithms"),
    ],
)
def test_secrets_that_contradict_each_other(options, why):
    with pytest.raises(ValueError, match=why):
        Secrets(**options)


def test_secrets_do_not_show():
    assert "secret-of" not in repr(MUTUAL)


@pytest.mark.parametrize(
    "keys",
    [
        {"CHAP_A": "6", "CHAP_I": "1", "CHAP_C": "0x00"},
        {"CHAP_A": "5", "CHAP_I": "1"},
        {"CHAP_A": "5", "CHAP_I": "256", "CHAP_C": "0x00"},
        {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x"},
        {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x" + "00" * 1025},
    ],
)
def test_challenges_that_are_none(keys):
    peer = Peer(login_of(WEB1)).say(0, {"AuthMethod": "CHAP"})
    with pytest.raises(PeerError):
        peer.say(0, keys)


def test_a_target_that_takes_its_time():
    """Stages that go on for several requests, a text in two PDUs, and keys that the target asks for itself."""
    peer = Peer(login_of(WEB1)).say(CONTINUE, data=b"AuthMethod=C")
    assert (peer.request.flags, peer.asked) == (0, {})
    peer.say(0, data=b"HAP\0").say(0, {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x01"})
    peer.say(0)
    assert (peer.request.flags, peer.asked) == (TO_OPERATIONAL, {})
    peer.say(TO_OPERATIONAL).say(4, {"MaxBurstLength": "65536", "X-com.example.color": "blue"})
    assert (peer.request.flags, peer.asked) == (TO_FULL, {"X-com.example.color": "NotUnderstood"})
    assert peer.say(TO_FULL, {"InitialR2T": "No"}).step is None
    assert peer.login.agreed == Agreed(max_burst_length=65536, initial_r2t=False)


@pytest.mark.parametrize(
    ("wished", "key", "answer", "fits"),
    [
        ({}, "HeaderDigest", "None", True),
        ({}, "HeaderDigest", "CRC32C", False),
        ({"header_digest": ("CRC32C", "None")}, "HeaderDigest", "CRC32C", True),
        ({"header_digest": ("CRC32C",)}, "HeaderDigest", "None", False),
        ({"header_digest": ("CRC32C",)}, "HeaderDigest", "Reject", False),
        ({}, "InitialR2T", "Yes", True),
        ({"initial_r2t": True}, "InitialR2T", "No", False),
        ({}, "ImmediateData", "No", True),
        ({"immediate_data": False}, "ImmediateData", "Yes", False),
        ({}, "MaxBurstLength", "16776193", False),
        ({}, "MaxBurstLength", "511", False),
        ({}, "MaxBurstLength", "much", False),
        ({}, "FirstBurstLength", "Irrelevant", True),
        ({}, "MaxOutstandingR2T", "0", False),
        ({}, "ErrorRecoveryLevel", "1", False),
        ({}, "DefaultTime2Wait", "2", True),
        ({}, "DefaultTime2Wait", "3601", False),
        ({}, "DefaultTime2Retain", "20", False),
        ({}, "DataPDUInOrder", "No", False),
        ({}, "DataSequenceInOrder", "Yes", True),
        ({}, "MaxRecvDataSegmentLength", "511", False),
        ({}, "TargetPortalGroupTag", "65536", False),
    ],
)
def test_answers_to_our_offers(wished, key, answer, fits):
    peer = Peer(login_of(wishes=Wishes(**wished)))
    if fits:
        assert peer.say(TO_FULL, {key: answer}).step is None
    else:
        with pytest.raises(PeerError, match=key):
            peer.say(TO_FULL, {key: answer})


def test_what_is_left_out_has_the_standards_default():
    peer = Peer(login_of(wishes=Wishes(header_digest=("CRC32C", "None"))))
    assert peer.say(TO_FULL, {"DefaultTime2Wait": "5"}).login.agreed == Agreed(time2wait_seconds=5)


@pytest.mark.parametrize("wished", [{"header_digest": ("MD5",)}, {"data_digest": ()}, {"first_burst_length": 511}])
def test_wishes_that_nobody_can_grant(wished):
    with pytest.raises(ValueError, match=r"digests|bursts"):
        Wishes(**wished)


def test_discovery_leaves_out_what_it_has_no_use_for():
    peer = Peer(login_of(target=None))
    assert peer.asked["SessionType"] == "Discovery"
    assert not {"TargetName", "InitialR2T", "MaxBurstLength"} & peer.asked.keys()
    peer.say(4, {"MaxBurstLength": "512"})
    assert peer.asked == {"MaxBurstLength": "Irrelevant"}


def test_another_portal_group():
    with pytest.raises(RefusedError, match="portal group 1 answers, 2 is wanted"):
        Peer(login_of(portal_group=2)).say(TO_FULL, GROUP)
    assert Peer(login_of(portal_group=1)).say(TO_FULL, GROUP).step is None


@pytest.mark.parametrize(
    ("status", "passing"), [((2, 0), 0), ((2, 1), 0), ((2, 2), 0), ((2, 3), 1), ((3, 1), 1), ((2, 99), 0), ((9, 9), 0)]
)
def test_refusals(status, passing):
    with pytest.raises(LoginRefusedError) as caught:
        Peer(login_of()).say(0, status_class=status[0], status_detail=status[1], isid=bytes(6), initiator_task_tag=5)
    assert (caught.value.status, caught.value.passing) == (status, bool(passing))


@pytest.mark.parametrize(
    ("address", "portal"),
    [
        ("192.0.2.7", Portal("192.0.2.7")),
        ("192.0.2.7:860,2", Portal("192.0.2.7", 860, 2)),
        ("[2001:db8::7]:3261", Portal("2001:db8::7", 3261)),
        ("disks.example", Portal("disks.example")),
    ],
)
def test_redirections(address, portal):
    for detail in (1, 2):
        peer = Peer(login_of()).say(0, {"TargetAddress": address}, status_class=1, status_detail=detail)
        assert peer.step == Redirect(portal, permanent=detail == 2)


@pytest.mark.parametrize(
    "address", ["", "192.0.2.7:0", "192.0.2.7:65536", "a b", "[2001:db8::7", "x,65536", "2001:db8::7"]
)
def test_redirections_to_nowhere(address):
    with pytest.raises(MalformedError):
        Peer(login_of()).say(0, {"TargetAddress": address}, status_class=1, status_detail=1)


@pytest.mark.parametrize(
    "lie",
    [
        {"isid": bytes(6)},
        {"initiator_task_tag": 1},
        {"version_active": 1},
        {"flags": FINAL | 1},
        {"flags": FINAL | 5},
        {"data": b"\xff"},
        {"data": b"InitialR2T=No\0InitialR2T=No\0"},
        {"status_class": 1, "status_detail": 1},
    ],
)
def test_lies(lie):
    with pytest.raises(PeerError):
        Peer(login_of()).say(**{"flags": TO_FULL, **lie})


def test_lies_later_on():
    for lie in ({"stat_sn": 100}, {"data": b"MaxBurstLength=512\0"}, {"data": b"x" * 16385, "flags": 4 | CONTINUE}):
        peer = Peer(login_of()).say(4, {"MaxBurstLength": "1024"})
        with pytest.raises(MalformedError):
            peer.say(**{"flags": TO_FULL, **lie})


def test_a_login_without_end():
    peer = Peer(login_of())
    with pytest.raises(MalformedError, match="without end"):
        for _ in range(30):
            peer.say(4)


def test_a_response_after_the_login():
    peer = Peer(login_of()).say(TO_FULL)
    with pytest.raises(MalformedError, match=r"stage|after the login"):
        peer.say(TO_FULL)


@given(
    st.sampled_from([None, WEB1]),
    st.builds(
        Wishes,
        header_digest=st.sampled_from([("None",), ("CRC32C", "None")]),
        data_digest=st.sampled_from([("None",), ("CRC32C", "None")]),
        initial_r2t=st.booleans(),
        immediate_data=st.booleans(),
        first_burst_length=st.integers(512, 8192),
        max_burst_length=st.integers(8192, 0xFFFFFF),
    ),
    st.booleans(),
)
def test_our_own_target_agrees_on_the_same(secrets, wishes, discovers):
    """Both sides of a login have the same parameters afterwards."""
    login = login_of(secrets, wishes=wishes, target=None if discovers else TARGET)
    target = IscsiLogin(identifier=7, challenge=THEIRS)
    wanted = Credentials(secrets.user, secrets.secret) if secrets else Credentials()
    request = login.first()
    while request is not None:
        step = target.receive(request)
        while not isinstance(step, Answer):
            step = target.may_prove((wanted,)) if isinstance(step, AskCredentials) else target.admit(9)
        request = login.receive(step.response)
    assert login.state is State.FINISHED
    assert target.proved == wanted
    agreed, theirs = login.agreed, target.parameters
    assert agreed.header_digest == theirs.header_digest == (wishes.header_digest[0] == "CRC32C")
    assert agreed.data_digest == theirs.data_digest == (wishes.data_digest[0] == "CRC32C")
    assert agreed.initial_r2t == theirs.initial_r2t
    assert agreed.immediate_data == theirs.immediate_data
    assert agreed.max_burst_length == theirs.max_burst_length
    assert agreed.first_burst_length == theirs.first_burst_length
    assert login.exp_stat_sn == target.stat_sn


@given(
    st.binary(max_size=60) | st.text("AuthMethod=CHAP_NR,0x5\0 TagetdsDi", max_size=80).map(str.encode),
    st.binary(min_size=48, max_size=48),
)
def test_any_answer_goes_on_or_is_refused_with_one_clear_error(text, fields):
    for secrets in (None, WEB1, MUTUAL):
        peer = Peer(login_of(secrets))
        try:
            for flags in fields[:4]:
                peer.say(flags, data=text, status_class=fields[4] % 3 if fields[5] > 200 else 0)
                if peer.request is None:
                    break
        except PeerError as error:
            assert str(error)
