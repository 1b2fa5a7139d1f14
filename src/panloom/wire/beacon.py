"""A node's beacon: one UDP datagram of text that says which server lives, under the key of its epoch.

The text may stand anywhere in the datagram, since busybox sends it through ``logger`` and ``syslogd -R`` (RFC 3164
form):

    panloom 1 PAN/SERVER EPOCH COUNTER DIGEST        DIGEST = SHA-256 of "KEY:PAN/SERVER:EPOCH:COUNTER", in hex

With a report of what the machine and its system are (``decide.inventory``), which is the rest of the datagram:

    panloom report PAN/SERVER EPOCH COUNTER DIGEST   DIGEST = SHA-256 of "KEY:PAN/SERVER:EPOCH:COUNTER:SHA-256 of it"
    WORD=VALUE …

The counter grows with each datagram of an epoch, so that a recorded one proves nothing to who has heard a later one.
"""

import hashlib
import hmac
import re

import msgspec

from panloom.errors import MalformedError

LONGEST_REPORT = 1400
_FORM = re.compile(
    rb"panloom (1|report) ([a-z0-9-]{1,63}/[a-z0-9-]{1,63}) ([0-9]{1,12}) ([0-9]{1,15}) ([0-9a-f]{64})(?:\s|\Z)"
)


class Beacon(msgspec.Struct, frozen=True, gc=False):
    """One sign of life."""

    server: str
    epoch: int
    counter: int
    digest: str
    report: bytes | None = None
    """None: it brings none."""

    @classmethod
    def decode(cls, octets: bytes) -> "Beacon":
        """Find the beacon in a datagram; MalformedError if there is none."""
        match = _FORM.search(octets[:1024])
        if not match:
            raise MalformedError("no beacon in the datagram")
        server, epoch, counter, digest = (group.decode("ascii") for group in match.groups()[1:])
        report = octets[match.end() :][:LONGEST_REPORT] if match[1] == b"report" else None
        return cls(server, int(epoch), int(counter), digest, report)

    def encode(self) -> bytes:
        """Return the text as it stands in a datagram."""
        form = "1" if self.report is None else "report"
        head = f"panloom {form} {self.server} {self.epoch} {self.counter} {self.digest}".encode("ascii")
        return head if self.report is None else head + b"\n" + self.report

    def is_under(self, key: str) -> bool:
        """Return whether the beacon was made with ``key`` (hex text); takes the same time either way."""
        made = digest_of(key, self.server, self.epoch, self.counter, self.report)
        return hmac.compare_digest(self.digest, made)


def digest_of(key: str, server: str, epoch: int, counter: int, report: bytes | None = None) -> str:
    """Return the digest that a beacon carries under ``key``."""
    more = "" if report is None else f":{hashlib.sha256(report).hexdigest()}"
    return hashlib.sha256(f"{key}:{server}:{epoch}:{counter}{more}".encode()).hexdigest()
