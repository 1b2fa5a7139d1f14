"""Operational keys, as iPXE, Linux and libiscsi say them, and as nobody should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.protocol.iscsi_keys import SessionParameters, negotiate

IPXE = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxConnections": "1",
    "InitialR2T": "Yes",
    "ImmediateData": "No",
    "MaxRecvDataSegmentLength": "8192",
    "MaxBurstLength": "262144",
    "FirstBurstLength": "65536",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "0",
    "MaxOutstandingR2T": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
}
LINUX = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
    "IFMarker": "No",
    "OFMarker": "No",
    "ErrorRecoveryLevel": "0",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "16776192",
    "FirstBurstLength": "262144",
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "MaxRecvDataSegmentLength": "262144",
}


def test_ipxe_gets_what_it_wants():
    parameters, answers = negotiate(IPXE, SessionParameters())
    assert parameters == SessionParameters(True, False, 8192, 262144, 65536)
    assert dict(answers) == {key: value for key, value in IPXE.items() if key != "MaxRecvDataSegmentLength"}


def test_linux_gets_what_it_wants():
    parameters, answers = negotiate(LINUX, SessionParameters())
    assert parameters == SessionParameters(False, True, 262144, 16776192, 262144)
    assert dict(answers) == {key: value for key, value in LINUX.items() if key != "MaxRecvDataSegmentLength"}


def test_nothing_said_means_the_defaults_of_the_standard():
    assert negotiate({}, SessionParameters()) == (SessionParameters(True, True, 8192, 262144, 65536), [])


@pytest.mark.parametrize(
    ("key", "value", "answer"),
    [
        ("HeaderDigest", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "CRC64", "Reject"),
        ("HeaderDigest", ",".join(f"X-{number}" for number in range(1000)), "Reject"),
        ("MaxConnections", "8", "1"),
        ("MaxConnections", "0", "Reject"),
        ("MaxBurstLength", "511", "Reject"),
        ("MaxBurstLength", "-1", "Reject"),
        ("MaxBurstLength", "16777215", "16776192"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"),
        ("DefaultTime2Wait", "0x5", "5"),
        ("DefaultTime2Retain", "20", "0"),
        ("ImmediateData", "yes", "Reject"),
        ("OFMarker", "Yes", "No"),
        ("DataPDUInOrder", "No", "Yes"),
        ("TaskReporting", "FastAbort,RFC3720", "RFC3720"),
        ("X-com.example.thing", "1", "NotUnderstood"),
    ],
)
def test_one_key(key, value, answer):
    assert negotiate({key: value}, SessionParameters())[1] == [(key, answer)]


@pytest.mark.parametrize("value", ["0", "511", "16777216", "18446744073709551616", "-1", "many"])
def test_a_bad_receive_length_cannot_be_answered(value):
    with pytest.raises(MalformedError):
        negotiate({"MaxRecvDataSegmentLength": value}, SessionParameters())


def test_the_first_burst_is_no_longer_than_a_burst():
    keys = {"MaxBurstLength": "4096", "FirstBurstLength": "65536"}
    assert negotiate(keys, SessionParameters())[0].first_burst_length == 4096


@given(st.dictionaries(st.sampled_from([*LINUX, "X-a", "TargetName"]), st.text(max_size=12), max_size=8))
def test_any_keys_are_answered_or_malformed(keys):
    try:
        parameters, answers = negotiate(keys, SessionParameters())
    except MalformedError:
        return
    assert 512 <= parameters.first_burst_length <= parameters.max_burst_length <= 0xFFFFFF
    assert {key for key, _ in answers} <= keys.keys()


@pytest.mark.parametrize(
    ("offered", "answer", "agreed"),
    [
        ("None", "None", False),
        ("None,CRC32C", "None", False),
        ("CRC32C,None", "CRC32C", True),
        ("CRC32C", "CRC32C", True),
        ("X-other,CRC32C", "CRC32C", True),
        ("X-other", "Reject", False),
        ("", "Reject", False),
    ],
)
def test_the_initiators_first_wish_among_the_digests_that_are_known(offered, answer, agreed):
    for key in ("HeaderDigest", "DataDigest"):
        parameters, answers = negotiate({key: offered}, SessionParameters())
        assert answers == [(key, answer)]
        assert (parameters.header_digest, parameters.data_digest) == (
            agreed and key == "HeaderDigest",
            agreed and key == "DataDigest",
        )
