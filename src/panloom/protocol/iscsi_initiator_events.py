"""What an initiator's session tells its shell."""

from typing import TypeAlias

import msgspec

from panloom.errors import PeerError, UnavailableError
from panloom.protocol.iscsi_initiator_keys import Agreed
from panloom.protocol.iscsi_initiator_task import Outcome
from panloom.wire.iscsi_text import Portal

Failure: TypeAlias = PeerError | UnavailableError


class Connect(msgspec.Struct, frozen=True, gc=False):
    """Connect there; then call ``connected`` or ``lost``."""

    portal: Portal


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """Close the connection, or give up the attempt to make one; nothing of it may come in any more."""


class LoggedIn(msgspec.Struct, frozen=True, gc=False):
    """The session carries commands; again, after an outage."""

    portal: Portal
    agreed: Agreed


class Broken(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone and will be made anew; said once for each attempt that fails."""

    why: str


class Noted(msgspec.Struct, frozen=True, gc=False):
    """Something that a person may want to read in a log."""

    what: str


class Answered(msgspec.Struct, frozen=True):
    """What the caller waits for under this number: a command's outcome, None for a reset, a text's octets."""

    number: int
    result: Outcome | bytes | Failure | None


class Ended(msgspec.Struct, frozen=True):
    """The session is over; ``why`` None: its caller wished so."""

    why: Failure | None


Event: TypeAlias = Connect | Disconnect | LoggedIn | Broken | Noted | Answered | Ended
