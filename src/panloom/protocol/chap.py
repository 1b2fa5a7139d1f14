"""CHAP with MD5, the target's side, one way (RFC 1994; RFC 7143 section 12.1.3).

    initiator                                  target
    CHAP_A=5,7              ───────────▶
                            ◀───────────       CHAP_A=5  CHAP_I=<identifier>  CHAP_C=<challenge>
    CHAP_N=<user>  CHAP_R=MD5(identifier, secret, challenge)
                            ───────────▶       verified, or the login ends

The challenge is an argument: who calls takes it from the operating system's generator, once for each login, and never
again.  The target never answers a challenge, so its own cannot be reflected to it for an answer.
"""

import hashlib
import hmac

import msgspec

from panloom.errors import MalformedError
from panloom.wire.iscsi_text import decode_binary, encode_binary

MD5 = "5"  # CHAP_A, RFC 7143 section 12.1.3
CHALLENGE_OCTETS = 16  # at least, and what we take
RESPONSE_OCTETS = 16


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What an initiator must prove before it may log in.

    ``user`` None: nothing to prove, ``AuthMethod=None`` is accepted; ``secret`` is then None as well.
    """

    user: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"  # a secret never reaches a log


def response(identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """Return the 16 octets that prove the secret (RFC 1994 section 4.1)."""
    # The protocol names MD5; it is no choice of ours, and hosts that forbid it elsewhere must still log in.
    return hashlib.md5(bytes((identifier,)) + secret + challenge, usedforsecurity=False).digest()


class ChapTarget:
    """One authentication: one challenge, one attempt to answer it.

    ``candidates`` are the credentials any of which will do: one for a login to a target, several for discovery.
    """

    def __init__(self, candidates: tuple[Credentials, ...], *, identifier: int, challenge: bytes) -> None:
        if len(challenge) < CHALLENGE_OCTETS:
            raise ValueError(f"a challenge of {len(challenge)} octets; take {CHALLENGE_OCTETS} or more")
        self._candidates = candidates
        self._identifier = identifier
        self._challenge = challenge

    def ask(self, keys: dict[str, str]) -> list[tuple[str, str]] | None:
        """Return the challenge's keys for an initiator's CHAP_A; None when it cannot do MD5."""
        if MD5 not in keys.get("CHAP_A", "").split(","):
            return None
        return [("CHAP_A", MD5), ("CHAP_I", str(self._identifier)), ("CHAP_C", encode_binary(self._challenge))]

    def verify(self, keys: dict[str, str]) -> Credentials | None:
        """Return the credentials that CHAP_N and CHAP_R prove, else None.

        None as well when the initiator wants us to answer a challenge (CHAP_I, CHAP_C): there is no secret of our own.
        """
        if not keys.keys() >= {"CHAP_N", "CHAP_R"} or keys.keys() & {"CHAP_I", "CHAP_C"}:
            return None
        try:
            answer = decode_binary(keys["CHAP_R"], longest_octets=RESPONSE_OCTETS)
        except MalformedError:
            return None
        proved = None
        for candidate in self._candidates:
            known = hmac.compare_digest((candidate.user or "").encode(), keys["CHAP_N"].encode())
            expected = response(self._identifier, (candidate.secret or "").encode(), self._challenge)
            matches = hmac.compare_digest(expected, answer)
            if known and matches and candidate.user and candidate.secret:
                proved = candidate
        return proved
