"""A node's beacon: one UDP datagram of text that says which server lives, under the key of its epoch.

The text may stand anywhere in the datagram, since busybox sends it through ``logger`` and ``syslogd -R`` (RFC 3164
form):

    panloom 1 PAN/SERVER EPOCH COUNTER DIGEST        DIGEST = SHA-256 of "KEY:PAN/SERVER:EPOCH:COUNTER", in hex

The counter grows with each beacon of an epoch, so that a recorded beacon proves nothing later.
"""

import hashlib
import hmac
import re

import msgspec

from panloom.errors import MalformedError

_FORM = re.compile(rb"panloom 1 ([a-z0-9-]{1,63}/[a-z0-9-]{1,63}) ([0-9]{1,12}) ([0-9]{1,15}) ([0-9a-f]{64})(?:\s|\Z)")


class Beacon(msgspec.Struct, frozen=True, gc=False):
    """One sign of life."""

    server: str
    epoch: int
    counter: int
    digest: str

    @classmethod
    def decode(cls, octets: bytes) -> "Beacon":
        """Find the beacon in a datagram; MalformedError if there is none."""
        match = _FORM.search(octets[:1024])
        if not match:
            raise MalformedError("no beacon in the datagram")
        server, epoch, counter, digest = (group.decode("ascii") for group in match.groups())
        return cls(server, int(epoch), int(counter), digest)

    def encode(self) -> bytes:
        """Return the text as it stands in a datagram."""
        return f"panloom 1 {self.server} {self.epoch} {self.counter} {self.digest}".encode("ascii")

    def is_under(self, key: str) -> bool:
        """Return whether the beacon was made with ``key`` (hex text); takes the same time either way."""
        return hmac.compare_digest(self.digest, digest_of(key, self.server, self.epoch, self.counter))


def digest_of(key: str, server: str, epoch: int, counter: int) -> str:
    """Return the digest that a beacon carries under ``key``."""
    return hashlib.sha256(f"{key}:{server}:{epoch}:{counter}".encode()).hexdigest()
