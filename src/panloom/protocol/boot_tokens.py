"""Boot tokens: what a machine must show, from its own address, to be given its script.

      ACK                     script fetched, any number of times
    ──────▶ valid ────────────────────────────────────────────────┐
              │                                                   │
              ├── the initiator has logged in under that epoch ───┤
              ├── 60 s have passed ───────────────────────────────┤
              └── 4 newer ones of the same machine ───────────────┴──▶ gone

A token alone, from another address, gives nothing.  Only digests are kept, and looked up by, so that neither the time a
look-up takes nor a picture of the memory tells a token.
"""

import hashlib
import hmac
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from panloom.values import IpAddress, Iqn, MacAddress

VALID_SECONDS = 60.0
EACH_MACHINE = 4  # an ACK that was repeated on the wire mints again, and the machine may use either


class Ticket(msgspec.Struct, frozen=True):
    """What a token stands for; ``initiator`` is None and ``epoch`` 0 for a machine that has no server."""

    mac: MacAddress
    address: IpAddress
    epoch: int = 0
    initiator: Iqn | None = None


class Refusal(msgspec.Struct, frozen=True):
    """An answer of HTTP: 404 for a token that is not or no longer known, 403 for one from elsewhere."""

    status: int
    why: str
    ticket: Ticket | None = None  # whose token it was, when it is known


class _Known(msgspec.Struct, frozen=True):
    ticket: Ticket
    until: float


class BootTokens:
    """The valid tokens of all machines, in memory only: a machine without one asks for an address again."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}
        self._of_machine: dict[MacAddress, list[bytes]] = {}

    def mint(self, token: str, ticket: Ticket, *, now: float) -> None:
        """Make ``token``, of at least 128 bits of the caller's randomness, stand for ``ticket``."""
        self._forget_old(now)
        mine = self._of_machine.setdefault(ticket.mac, [])
        while len(mine) >= EACH_MACHINE:
            self._known.pop(mine.pop(0), None)
        digest = _digest(token)
        mine.append(digest)
        self._known[digest] = _Known(ticket, now + VALID_SECONDS)

    def redeem(self, token: str, address: IpAddress, *, now: float) -> Ticket | Refusal:
        """Return what ``token`` stands for if it is shown from the address it was minted for."""
        self._forget_old(now)
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            return Refusal(404, "this boot token is unknown or over")
        if not hmac.compare_digest(known.ticket.address.packed, address.packed):
            return Refusal(403, "this boot token is another machine's", known.ticket)
        return known.ticket

    def end(self, initiator: Iqn, epoch: int) -> None:
        """End the tokens of an initiator that has logged in under ``epoch``, and those of its earlier epochs."""
        self._drop({d for d, k in self._known.items() if k.ticket.initiator == initiator and k.ticket.epoch <= epoch})

    @property
    def tickets(self) -> Mapping[bytes, Ticket]:
        """What is valid, by digest, for those who look."""
        return MappingProxyType({digest: known.ticket for digest, known in self._known.items()})

    def _forget_old(self, now: float) -> None:
        # Minted in the order of time, all valid equally long: the oldest come first.
        old = set()
        for digest, known in self._known.items():
            if known.until > now:
                break
            old.add(digest)
        self._drop(old)

    def _drop(self, digests: set[bytes]) -> None:
        for digest in digests:
            ticket = self._known.pop(digest).ticket
            mine = self._of_machine[ticket.mac]
            mine.remove(digest)
            if not mine:
                del self._of_machine[ticket.mac]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
