"""What the control node tells a server's node of the virtual LANs over the fabrics: one datagram, the whole of it.

    DIGEST LF JSON        DIGEST = HMAC-SHA-256 of the JSON under the beacon key of the server's epoch, in hex

It answers a beacon, so one that is lost comes with the next.  The counter grows with each, so that an old one that
somebody has kept changes nothing.
"""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv4Interface
from typing import Final, Self

import msgspec

from panloom.decide.fabric_plan import Item
from panloom.errors import MalformedError, RefusedError

LONGEST: Final = 65000  # octets of a datagram
_DIGEST_OCTETS: Final = 64


class LanNic(msgspec.Struct, frozen=True):
    """A server's NIC in a LAN: the device that carries it, and what it is to have."""

    device: str
    address: IPv4Interface | None
    router: IPv4Address | None = None


class LanNews(msgspec.Struct, frozen=True):
    """What a node is to hold: addresses of its fabrics' interfaces, the kernel's state, and addresses of its NICs."""

    server: str
    epoch: int
    counter: int
    fabrics: tuple[tuple[str, IPv4Interface], ...]
    items: tuple[Item, ...]
    nics: tuple[LanNic, ...]

    def encode(self, key: str) -> bytes:
        """Return the datagram under a beacon key (hex text); ValueError if it is too long for one."""
        body = msgspec.json.encode(self, enc_hook=str)
        if len(body) + _DIGEST_OCTETS >= LONGEST:
            raise ValueError(f"what {self.server} is to be told of its LANs takes {len(body)} octets, over {LONGEST}")
        return _digest(key, body) + b"\n" + body

    @classmethod
    def decode(cls, octets: bytes, key: str) -> Self:
        """Read a datagram; RefusedError if it is not under the key, MalformedError if it is no news at all."""
        digest, _, body = octets.partition(b"\n")
        if len(digest) != _DIGEST_OCTETS:
            raise MalformedError("no news of LANs in the datagram")
        if not hmac.compare_digest(digest, _digest(key, body)):
            raise RefusedError("news of LANs that are not under the epoch's key")
        try:
            return msgspec.json.decode(body, type=cls, dec_hook=_read)
        except (msgspec.DecodeError, ValueError) as error:
            raise MalformedError(f"news of LANs cannot be read: {error}") from error


def _digest(key: str, body: bytes) -> bytes:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode()


def _read(kind: type, text: object) -> object:
    return kind(text)
