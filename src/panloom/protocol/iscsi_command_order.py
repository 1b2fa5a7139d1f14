"""The order of CmdSN: commands are handed on as their numbers follow each other (RFC 7143 section 4.2.2.1).

    ExpCmdSN                                          MaxCmdSN
       │  3 held   4 held   5 missing   6 held            │
       ▼                                                  ▼
    next in order: it and those behind it go on      beyond: ignored

One connection over TCP brings commands out of order only from odd initiators; what is held for them has a bound.
"""

from typing import TypeAlias

import msgspec

from panloom.errors import MalformedError
from panloom.wire import iscsi
from panloom.wire.iscsi import LogoutRequest, NopOut, ScsiCommand, TaskManagementRequest, TextRequest

Numbered: TypeAlias = NopOut | ScsiCommand | TaskManagementRequest | TextRequest | LogoutRequest

MAX_HELD_OCTETS = 1 << 20


def follows(number: int, other: int) -> int:
    """Return how far a sequence number is ahead of another, modulo 2^32."""
    return (number - other) & 0xFFFFFFFF


def window(exp_cmd_sn: int, max_cmd_sn: int) -> int:
    """Return how many commands may come; none when MaxCmdSN is before ExpCmdSN (RFC 7143 section 4.2.2.1)."""
    commands = follows(max_cmd_sn + 1, exp_cmd_sn)
    return commands if commands < 1 << 31 else 0


class CommandOrder:
    """The commands that came before their turn; ``held`` has them, and is changed here alone."""

    def __init__(self) -> None:
        self.held: dict[int, Numbered | None] = {}  # by CmdSN; None: aborted before it came
        self._octets = 0

    def take(self, pdu: Numbered, *, exp_cmd_sn: int, max_cmd_sn: int) -> bool:
        """Return whether a command is the next in order; hold it, or ignore it, if it is not.

        MalformedError: it cannot be held.
        """
        ahead = follows(pdu.cmd_sn, exp_cmd_sn)
        if ahead >= window(exp_cmd_sn, max_cmd_sn) or pdu.cmd_sn in self.held:
            return False  # outside the window, or there already: to be ignored without a word
        if ahead:
            self._hold(pdu)
        return not ahead

    def pop(self, cmd_sn: int) -> Numbered | None:
        """Let go of a command whose turn it is; None: it was aborted."""
        pdu = self.held.pop(cmd_sn)
        if not self.held:
            self._octets = 0
        return pdu

    def abort(self, cmd_sn: int, *, exp_cmd_sn: int, max_cmd_sn: int) -> bool:
        """Count a command as received, and never hand it on; False if its number is outside the window."""
        if follows(cmd_sn, exp_cmd_sn) >= window(exp_cmd_sn, max_cmd_sn):
            return False
        self.held[cmd_sn] = None
        return True

    def _hold(self, pdu: Numbered) -> None:
        kept = pdu
        if isinstance(pdu, ScsiCommand | NopOut | TextRequest):
            self._octets += len(pdu.data)
            kept = msgspec.structs.replace(pdu, data=bytes(pdu.data))  # the caller's buffer will be used again
        if self._octets > MAX_HELD_OCTETS or (isinstance(pdu, ScsiCommand) and not pdu.flags & iscsi.FINAL):
            raise MalformedError("a command before its turn with too much data")
        self.held[pdu.cmd_sn] = kept
