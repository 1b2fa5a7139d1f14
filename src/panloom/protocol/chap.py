"""CHAP, both sides (RFC 1994; RFC 7143 section 12.1.3).

    initiator                                  target
    CHAP_A=5,7              ───────────▶
                            ◀───────────       CHAP_A=5  CHAP_I=<identifier>  CHAP_C=<challenge>
    CHAP_N=<user>  CHAP_R=H(identifier, secret, challenge)
                            ───────────▶       verified, or the login ends
    mutual: CHAP_I  CHAP_C with it
                            ◀───────────       CHAP_N=<user>  CHAP_R=H(…), verified or the login ends

The initiator's list of algorithms is in the order of its wishes; both sides know SHA-256 and MD5.  A target proves
itself only after the initiator has, with a secret that is not the initiator's, and to no challenge that is one of its
own: else who knows no secret could have it answer for him (RFC 7143 sections 9.2.1 and 12.1.3).

The challenge is an argument: who calls takes it from the operating system's generator, once for each login, and never
again.
"""

import hashlib
import hmac
from collections.abc import Callable

import msgspec

from panloom.errors import MalformedError, RefusedError
from panloom.wire.iscsi_text import decode_binary, decode_number, encode_binary

MD5 = "5"  # CHAP_A, RFC 7143 section 12.1.3
SHA256 = "7"  # CHAP_A, IANA's registry of PPP authentication algorithms; tgtd 1.0.85 takes 7 for SHA-1
CHALLENGE_OCTETS = 16  # at least, and what we take
RESPONSE_OCTETS = {MD5: 16, SHA256: 32}
LONGEST_CHALLENGE_OCTETS = 1024  # RFC 7143 section 12.1.3
_LONGEST_RESPONSE_OCTETS = 32


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What an initiator must prove before it may log in.

    ``user`` None: nothing to prove, ``AuthMethod=None`` is accepted; ``secret`` is then None as well.
    ``target_user`` and ``target_secret``: how the target proves itself to an initiator that has proved itself and asks
    for it; None: it cannot.  ValueError: the two secrets are the same.
    """

    user: str | None = None
    secret: str | None = None
    target_user: str | None = None
    target_secret: str | None = None

    def __post_init__(self) -> None:
        if (self.target_user is None) != (self.target_secret is None):
            raise ValueError("the target's user and secret come together")
        if self.target_secret is not None and self.secret is None:
            raise ValueError("a target proves itself only to an initiator that does: give a user and a secret, too")
        if self.target_secret is not None and self.target_secret == self.secret:
            raise ValueError("initiator and target must not have the same secret")  # RFC 7143 section 9.2.1

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, target_user={self.target_user!r})"  # a secret never reaches a log


class Proof(msgspec.Struct, frozen=True, gc=False):
    """What an initiator has proved, and the keys that answer it: our own proof, where it asks for one."""

    credentials: Credentials
    answers: tuple[tuple[str, str], ...] = ()


def response(identifier: int, secret: bytes, challenge: bytes, algorithm: str = MD5) -> bytes:
    """Return the octets that prove the secret: 16 with MD5, 32 with SHA-256 (RFC 1994 section 4.1)."""
    text = bytes((identifier,)) + secret + challenge
    if algorithm == SHA256:
        return hashlib.sha256(text).digest()
    # The protocol names MD5; it is no choice of ours, and hosts that forbid it elsewhere must still log in.
    return hashlib.md5(text, usedforsecurity=False).digest()


class ChapTarget:
    """One authentication: one challenge, one attempt to answer it.

    ``candidates`` are the credentials any of which will do: one for a login to a target, several for discovery.
    ``is_ours`` says of a challenge whether it is one that we have put to somebody, on whatever connection.
    """

    def __init__(
        self,
        candidates: tuple[Credentials, ...],
        *,
        identifier: int,
        challenge: bytes,
        is_ours: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        if len(challenge) < CHALLENGE_OCTETS:
            raise ValueError(f"a challenge of {len(challenge)} octets; take {CHALLENGE_OCTETS} or more")
        self._candidates = candidates
        self._identifier = identifier
        self._challenge = challenge
        self._is_ours = is_ours
        self._algorithm = MD5

    def ask(self, keys: dict[str, str]) -> list[tuple[str, str]] | None:
        """Return the challenge's keys for an initiator's CHAP_A; None when we know no algorithm of its list."""
        known = [each for each in keys.get("CHAP_A", "").split(",") if each in RESPONSE_OCTETS]
        if not known:
            return None
        self._algorithm = known[0]
        identifier, challenge = str(self._identifier), encode_binary(self._challenge)
        return [("CHAP_A", self._algorithm), ("CHAP_I", identifier), ("CHAP_C", challenge)]

    def verify(self, keys: dict[str, str]) -> Proof | None:
        """Return what CHAP_N and CHAP_R prove, else None.

        None as well when the initiator puts a challenge to us (CHAP_I, CHAP_C) that we cannot or must not answer.
        """
        if not keys.keys() >= {"CHAP_N", "CHAP_R"}:
            return None
        try:
            answer = decode_binary(keys["CHAP_R"], longest_octets=RESPONSE_OCTETS[self._algorithm])
            proved = self._proved(keys["CHAP_N"], answer)
            if proved is None or not keys.keys() & {"CHAP_I", "CHAP_C"}:
                return None if proved is None else Proof(proved)
            return self._prove_ourselves(keys, proved)
        except MalformedError:
            return None

    def _proved(self, name: str, answer: bytes) -> Credentials | None:
        proved = None
        for candidate in self._candidates:  # all of them: how long it takes does not tell which
            known = hmac.compare_digest((candidate.user or "").encode(), name.encode())
            expected = self._response(self._identifier, candidate.secret, self._challenge)
            matches = hmac.compare_digest(expected, answer)
            if known and matches and candidate.user and candidate.secret:
                proved = candidate
        return proved

    def _prove_ourselves(self, keys: dict[str, str], proved: Credentials) -> Proof | None:
        """Answer the initiator's challenge; None where there is nothing to answer with, or it is one of ours."""
        if not keys.keys() >= {"CHAP_I", "CHAP_C"} or proved.target_user is None:
            return None
        identifier = decode_number(keys["CHAP_I"])
        challenge = decode_binary(keys["CHAP_C"], longest_octets=LONGEST_CHALLENGE_OCTETS)
        if identifier > 255 or not challenge or challenge == self._challenge or self._is_ours(challenge):
            return None
        own = self._response(identifier, proved.target_secret, challenge)
        return Proof(proved, (("CHAP_N", proved.target_user), ("CHAP_R", encode_binary(own))))

    def _response(self, identifier: int, secret: str | None, challenge: bytes) -> bytes:
        return response(identifier, (secret or "").encode(), challenge, self._algorithm)


class Secrets(msgspec.Struct, frozen=True, gc=False):
    """What an initiator proves with, and what a target has to prove to it.

    ``user`` None: the initiator has nothing to prove.  ``target_user`` and ``target_secret`` not None: the target must
    prove that secret as well, under that name; ``target_user`` None and a ``target_secret``: under any name.
    ``algorithms`` are MD5 and SHA256, the wanted one first; a target takes the first that it knows, or thinks it knows.
    """

    user: str | None = None
    secret: str | None = None
    target_user: str | None = None
    target_secret: str | None = None
    algorithms: tuple[str, ...] = (MD5, SHA256)

    def __post_init__(self) -> None:
        if not self.algorithms or not {*self.algorithms} <= {MD5, SHA256}:
            raise ValueError(f"CHAP algorithms are {MD5} (MD5) and {SHA256} (SHA-256), not {self.algorithms!r}")
        if (self.user is None) != (self.secret is None):
            raise ValueError("CHAP needs a user and a secret, or neither")
        if self.target_secret is None:
            if self.target_user is not None:
                raise ValueError("the target's user needs the target's secret")
        elif self.secret is None:
            raise ValueError("a target proves itself only to an initiator that does: give a user and a secret, too")
        elif self.target_secret == self.secret:
            # RFC 7143 section 9.2.1: else the peer could have us answer the challenge that is put to it.
            raise ValueError("initiator and target must not have the same secret")

    def __repr__(self) -> str:
        return f"Secrets(user={self.user!r}, target_user={self.target_user!r})"  # a secret never reaches a log


class ChapInitiator:
    """One authentication to a target, and of it where ``secrets`` want that.

    ``identifier`` (0 … 255) and ``challenge`` are put to the target.
    """

    def __init__(self, secrets: Secrets, *, identifier: int, challenge: bytes) -> None:
        if len(challenge) < CHALLENGE_OCTETS:
            raise ValueError(f"a challenge of {len(challenge)} octets; take {CHALLENGE_OCTETS} or more")
        self._secrets = secrets
        self._identifier = identifier
        self._challenge = challenge
        self._algorithm = MD5
        self._answer = b""

    def propose(self) -> list[tuple[str, str]]:
        """Return the algorithms that we can do, the wanted one first."""
        return [("CHAP_A", ",".join(self._secrets.algorithms))]

    def answer(self, keys: dict[str, str]) -> list[tuple[str, str]]:
        """Return the proof that the target's challenge asks for, and our own challenge where it must prove itself.

        RefusedError: no algorithm in common, or our own challenge comes back.  MalformedError: no proper challenge.
        """
        if not keys.keys() >= {"CHAP_A", "CHAP_I", "CHAP_C"}:
            raise MalformedError("the target asks for CHAP without CHAP_A, CHAP_I and CHAP_C")
        if keys["CHAP_A"] not in self._secrets.algorithms:
            ours = ",".join(self._secrets.algorithms)
            raise RefusedError(f"the target wants CHAP with algorithm {keys['CHAP_A'][:20]!r} instead of {ours}")
        identifier = decode_number(keys["CHAP_I"])
        challenge = decode_binary(keys["CHAP_C"], longest_octets=LONGEST_CHALLENGE_OCTETS)
        if identifier > 255 or not challenge:
            raise MalformedError("a CHAP challenge without content, or with an identifier over 255")
        if challenge == self._challenge:
            raise RefusedError("the target sends our own CHAP challenge back to us")
        self._algorithm = keys["CHAP_A"]
        self._answer = response(identifier, (self._secrets.secret or "").encode(), challenge, self._algorithm)
        keys_out = [("CHAP_N", self._secrets.user or ""), ("CHAP_R", encode_binary(self._answer))]
        if self._secrets.target_secret is not None:
            keys_out += [("CHAP_I", str(self._identifier)), ("CHAP_C", encode_binary(self._challenge))]
        return keys_out

    def verify(self, keys: dict[str, str]) -> None:
        """Check the target's proof, where there must be one; RefusedError when it is missing or wrong."""
        secrets = self._secrets
        if secrets.target_secret is None:
            return
        if not keys.keys() >= {"CHAP_N", "CHAP_R"}:
            raise RefusedError("the target has not proved itself (no CHAP_N and CHAP_R)")
        proof = decode_binary(keys["CHAP_R"], longest_octets=_LONGEST_RESPONSE_OCTETS)
        expected = response(self._identifier, secrets.target_secret.encode(), self._challenge, self._algorithm)
        known = secrets.target_user in (None, keys["CHAP_N"])
        reflected = hmac.compare_digest(proof, self._answer)
        if not hmac.compare_digest(proof, expected) or not known or reflected:
            raise RefusedError("the target's CHAP response is wrong: it does not know its secret, or is another target")
