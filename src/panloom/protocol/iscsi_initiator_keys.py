"""What an initiator asks for at login, and what it makes of the target's answers (RFC 7143 section 13).

key                       result            we offer      why
HeaderDigest, DataDigest  one of the list   as wished     the target's choice
InitialR2T                or                No            a write that fits into the first burst needs no round trip
ImmediateData             and               Yes           … and a small one no second PDU
MaxRecvDataSegmentLength  each its own      262144
MaxBurstLength            smaller           16776192
FirstBurstLength          smaller           262144
MaxOutstandingR2T         smaller           8             a long write keeps the line busy
MaxConnections            smaller           1             a session is one connection
ErrorRecoveryLevel        smaller           0             a broken session is made anew
DefaultTime2Wait          larger            0             come back at once, if the target lets us
DefaultTime2Retain        smaller           0             nothing is kept
DataPDUInOrder            or                Yes
DataSequenceInOrder       or                Yes

A key that the target leaves out, or answers with Irrelevant or NotUnderstood, has the standard's default.
"""

from typing import TypeVar

import msgspec

from panloom.errors import MalformedError, RefusedError
from panloom.wire.iscsi_text import decode_number

CRC32C, NONE = "CRC32C", "None"  # of HeaderDigest and DataDigest, section 13.1
RECEIVE_OCTETS = 262144  # our MaxRecvDataSegmentLength

Value = TypeVar("Value")


class Wishes(msgspec.Struct, frozen=True, gc=False):
    """What a session asks for; digests are lists, the wanted one first: ``("CRC32C", "None")``."""

    header_digest: tuple[str, ...] = (NONE,)
    data_digest: tuple[str, ...] = (NONE,)
    initial_r2t: bool = False
    immediate_data: bool = True
    max_burst_length: int = 16776192
    first_burst_length: int = 262144
    max_outstanding_r2t: int = 8

    def __post_init__(self) -> None:
        for digests in (self.header_digest, self.data_digest):
            if not digests or not {*digests} <= {CRC32C, NONE}:
                raise ValueError(f"digests are CRC32C and None, not {digests!r}")
        if not 512 <= self.first_burst_length <= self.max_burst_length <= 0xFFFFFF:
            raise ValueError("bursts have 512 … 16777215 octets, and the first is not longer than the others")


class Agreed(msgspec.Struct, frozen=True, gc=False):
    """What a session has agreed on; the defaults are the standard's."""

    header_digest: bool = False
    data_digest: bool = False
    initial_r2t: bool = True
    immediate_data: bool = True
    max_send_octets: int = 8192  # in one data segment: the target's MaxRecvDataSegmentLength
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    max_outstanding_r2t: int = 1
    time2wait_seconds: int = 2


_SMALLER = {  # least and most of a value, sections 13.13, 13.14, 13.17, 13.2, 13.20, 13.16
    "MaxBurstLength": (512, 0xFFFFFF),
    "FirstBurstLength": (512, 0xFFFFFF),
    "MaxOutstandingR2T": (1, 65535),
    "MaxConnections": (1, 65535),
    "ErrorRecoveryLevel": (0, 2),
    "DefaultTime2Retain": (0, 3600),
}
_LARGER = {"DefaultTime2Wait": (0, 3600)}
_YES_IF_EITHER = {"InitialR2T", "DataPDUInOrder", "DataSequenceInOrder"}
_YES_IF_BOTH = {"ImmediateData"}
_NO_ANSWER = {"Irrelevant", "NotUnderstood"}
_DECLARED = {"MaxRecvDataSegmentLength", "TargetPortalGroupTag", "TargetAlias", "TargetAddress"}
_NOT_IN_DISCOVERY = {
    *("InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "MaxConnections"),
    *("DataPDUInOrder", "DataSequenceInOrder"),
}


class Negotiation:
    """The operational keys of one login: what we offer, and what the target says."""

    def __init__(self, wishes: Wishes, *, discovers: bool) -> None:
        offers = {
            "HeaderDigest": ",".join(wishes.header_digest),
            "DataDigest": ",".join(wishes.data_digest),
            "InitialR2T": _yes(wishes.initial_r2t),
            "ImmediateData": _yes(wishes.immediate_data),
            "MaxRecvDataSegmentLength": str(RECEIVE_OCTETS),
            "MaxBurstLength": str(wishes.max_burst_length),
            "FirstBurstLength": str(wishes.first_burst_length),
            "MaxOutstandingR2T": str(wishes.max_outstanding_r2t),
            "MaxConnections": "1",
            "ErrorRecoveryLevel": "0",
            "DefaultTime2Wait": "0",
            "DefaultTime2Retain": "0",
            "DataPDUInOrder": "Yes",
            "DataSequenceInOrder": "Yes",
        }
        self.offers = {key: value for key, value in offers.items() if not (discovers and key in _NOT_IN_DISCOVERY)}
        self._said: dict[str, str] = {}

    def take(self, keys: dict[str, str]) -> list[tuple[str, str]]:
        """Take what the target says; return our answers to what it asks.

        RefusedError: an answer that is not one to our offer.  MalformedError: a value that is none.
        """
        answers = []
        for key, value in keys.items():
            if key in self._said:
                raise MalformedError(f"the target says {key} twice")
            self._said[key] = value
            if key in self.offers and key not in _DECLARED:
                _check(key, self.offers[key], value)
            elif key not in _DECLARED:
                answers.append((key, "Irrelevant" if key in _NOT_IN_DISCOVERY else "NotUnderstood"))
        return answers

    def agreed(self) -> Agreed:
        """Return what has been agreed on; MalformedError for a MaxRecvDataSegmentLength out of range."""
        send = self._number("MaxRecvDataSegmentLength", 8192)
        if not 512 <= send <= 0xFFFFFF:
            raise MalformedError(f"MaxRecvDataSegmentLength={send}")
        burst = self._number("MaxBurstLength", 262144)
        return Agreed(
            header_digest=self._said.get("HeaderDigest") == CRC32C,
            data_digest=self._said.get("DataDigest") == CRC32C,
            initial_r2t=self._flag("InitialR2T"),
            immediate_data=self._flag("ImmediateData"),
            max_send_octets=send,
            max_burst_length=burst,
            first_burst_length=min(burst, self._number("FirstBurstLength", 65536)),
            max_outstanding_r2t=self._number("MaxOutstandingR2T", 1),
            time2wait_seconds=self._number("DefaultTime2Wait", 2),
        )

    def _number(self, key: str, default: int) -> int:
        said = self._said.get(key)
        return default if said is None or said in _NO_ANSWER else decode_number(said)

    def _flag(self, key: str) -> bool:
        return self._said.get(key) != "No"  # both flags are Yes by default


def _yes(flag: bool) -> str:
    return "Yes" if flag else "No"


def _check(key: str, offer: str, answer: str) -> None:
    """RefusedError unless this is an answer to that offer (section 6.2)."""
    if answer not in _NO_ANSWER and not _fits(key, offer, answer):
        raise RefusedError(f"the target answers {key}={answer[:40]} to our offer {offer}")


def _fits(key: str, offer: str, answer: str) -> bool:
    if key in _SMALLER or key in _LARGER:
        try:
            number, offered = decode_number(answer), int(offer)
        except MalformedError:
            return False
        least, most = _SMALLER.get(key) or _LARGER[key]
        return least <= number <= most and (number <= offered if key in _SMALLER else number >= offered)
    if key in _YES_IF_EITHER:
        return answer == "Yes" or (answer == "No" and offer == "No")
    if key in _YES_IF_BOTH:
        return answer == "No" or (answer == "Yes" and offer == "Yes")
    return answer in offer.split(",")
