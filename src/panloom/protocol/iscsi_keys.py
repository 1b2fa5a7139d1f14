"""The operational keys of a session, and who wins (RFC 7143 section 13).

key                       result            ours          why
HeaderDigest, DataDigest  first common      ``DIGESTS``   none unless the initiator wants one before that
InitialR2T                or                No            a write of 256 KiB needs no round trip
ImmediateData             and               Yes           one of 64 KiB comes in one PDU
MaxRecvDataSegmentLength  each its own      262144        left out, Linux sends 8 KiB pieces
MaxBurstLength            smaller           16776192      what Linux offers
FirstBurstLength          smaller           262144
MaxConnections            smaller           1             a session is one connection
MaxOutstandingR2T         smaller           8             a write need not wait for a round trip each burst
ErrorRecoveryLevel        smaller           0             a broken session is made anew
DefaultTime2Wait          larger            0             come back at once …
DefaultTime2Retain        smaller           0             … nothing is kept
DataPDUInOrder            or                Yes
DataSequenceInOrder       or                Yes
"""

from collections.abc import Callable

import msgspec

from panloom.errors import MalformedError
from panloom.wire.iscsi_text import decode_number

CRC32C = "CRC32C"
DIGESTS = frozenset({"None", CRC32C})
RECEIVE_OCTETS = 262144  # our MaxRecvDataSegmentLength
RECEIVE_RANGE = range(512, 1 << 24)  # section 13.12


class SessionParameters(msgspec.Struct, frozen=True, gc=False):
    """What a session has agreed on; the defaults are those of the RFC, for keys that nobody says."""

    initial_r2t: bool = True
    immediate_data: bool = True
    max_recv_data_segment_length: int = 8192  # the initiator's
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    max_outstanding_r2t: int = 1
    header_digest: bool = False  # CRC32C
    data_digest: bool = False


_NUMBERS: dict[str, tuple[Callable[[int, int], int], int, int, int]] = {  # which wins, ours, least, most
    "MaxBurstLength": (min, 16776192, 512, 0xFFFFFF),
    "FirstBurstLength": (min, 262144, 512, 0xFFFFFF),
    "MaxConnections": (min, 1, 1, 65535),
    "MaxOutstandingR2T": (min, 8, 1, 65535),
    "ErrorRecoveryLevel": (min, 0, 0, 2),
    "DefaultTime2Wait": (max, 0, 0, 3600),
    "DefaultTime2Retain": (min, 0, 0, 3600),
    "iSCSIProtocolLevel": (min, 1, 0, 31),
}
_YES_IF_EITHER = {"InitialR2T": False, "DataPDUInOrder": True, "DataSequenceInOrder": True}
_YES_IF_BOTH = {"ImmediateData": True, "OFMarker": False, "IFMarker": False}
_LISTS = {"HeaderDigest": DIGESTS, "DataDigest": DIGESTS, "TaskReporting": frozenset({"RFC3720"})}
_DECLARED = frozenset(
    {"InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "AuthMethod", "MaxRecvDataSegmentLength"}
)
NEGOTIATED = _DECLARED | {*_NUMBERS, *_YES_IF_EITHER, *_YES_IF_BOTH, *_LISTS}  # at the login


def negotiate(keys: dict[str, str], parameters: SessionParameters) -> tuple[SessionParameters, list[tuple[str, str]]]:
    """Return the parameters after an initiator's keys, and our answers to them.

    A value that we cannot agree to is answered Reject, an unknown key NotUnderstood (section 6.2).  MalformedError for
    a value that must not be said and needs no answer: a bad MaxRecvDataSegmentLength.
    """
    answers = [(key, _answer(key, value)) for key, value in keys.items() if key not in _DECLARED]
    agreed = {key: value for key, value in answers if value != "Reject"}
    receive = decode_number(keys.get("MaxRecvDataSegmentLength", str(parameters.max_recv_data_segment_length)))
    if receive not in RECEIVE_RANGE:
        raise MalformedError(f"MaxRecvDataSegmentLength={receive}")
    burst = int(agreed.get("MaxBurstLength", parameters.max_burst_length))
    first = int(agreed.get("FirstBurstLength", parameters.first_burst_length))
    return (
        SessionParameters(
            initial_r2t=_flag(agreed, "InitialR2T", parameters.initial_r2t),
            immediate_data=_flag(agreed, "ImmediateData", parameters.immediate_data),
            max_recv_data_segment_length=receive,
            max_burst_length=burst,
            first_burst_length=min(first, burst),
            max_outstanding_r2t=int(agreed.get("MaxOutstandingR2T", parameters.max_outstanding_r2t)),
            header_digest=agreed["HeaderDigest"] == CRC32C if "HeaderDigest" in agreed else parameters.header_digest,
            data_digest=agreed["DataDigest"] == CRC32C if "DataDigest" in agreed else parameters.data_digest,
        ),
        answers,
    )


def _flag(agreed: dict[str, str], key: str, before: bool) -> bool:
    return agreed[key] == "Yes" if key in agreed else before


def _answer(key: str, value: str) -> str:
    if key in _NUMBERS:
        wins, ours, least, most = _NUMBERS[key]
        try:
            number = decode_number(value)
        except MalformedError:
            return "Reject"
        return str(wins(number, ours)) if least <= number <= most else "Reject"
    if key in _LISTS:
        return next((each for each in value.split(",") if each in _LISTS[key]), "Reject")
    if key not in _YES_IF_EITHER and key not in _YES_IF_BOTH:
        return "NotUnderstood"
    if value not in ("Yes", "No"):
        return "Reject"
    said = value == "Yes"
    yes = said or _YES_IF_EITHER[key] if key in _YES_IF_EITHER else said and _YES_IF_BOTH[key]
    return "Yes" if yes else "No"
