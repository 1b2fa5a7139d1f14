"""CHAP with MD5, the target's side, one way (RFC 1994; RFC 7143 section 12.1.3).

    initiator                                  target
    CHAP_A=5,7              ───────────▶
                            ◀───────────       CHAP_A=5  CHAP_I=<identifier>  CHAP_C=<challenge>
    CHAP_N=<user>  CHAP_R=MD5(identifier, secret, challenge)
                            ───────────▶       verified, or the login ends

The challenge is an argument: who calls takes it from the operating system's generator, once for each login, and never again.
"""

import msgspec


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What an initiator must prove before it may log in.

    ``user`` None: nothing to prove, ``AuthMethod=None`` is accepted; ``secret`` is then None as well.
    """

    user: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"  # a secret never reaches a log
