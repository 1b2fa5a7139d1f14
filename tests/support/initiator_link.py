"""Our initiator's session and our target's, over a link in memory with its own clock.

    core ──octets_to_send──▶ Target: IscsiLogin, HotLoop over a disk in memory
         ◀──received, cut anywhere──

The link may break after any number of octets in either direction, and the target may be away for a while.
"""

import math

from panloom.protocol.chap import Credentials, Secrets
from panloom.protocol.iscsi_initiator import InitiatorSession, State
from panloom.protocol.iscsi_initiator_connection import Timing
from panloom.protocol.iscsi_initiator_events import Answered, Connect, Disconnect, Ended, LoggedIn
from panloom.protocol.iscsi_initiator_keys import Wishes
from panloom.protocol.iscsi_initiator_login import Identity
from panloom.protocol.iscsi_login import AskAdmission, AskCredentials, IscsiLogin
from panloom.protocol.iscsi_login import State as LoginState
from panloom.values import Iqn
from panloom.wire import iscsi
from panloom.wire.iscsi_text import Portal
from support.iscsi_peer import Conversation, MemoryDisk, split

INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
ISID = bytes.fromhex("800102030405")
PORTAL = Portal("192.0.2.1")
OPEN, WISHES, PATIENCE, NO_SECRETS = Credentials(), Wishes(), Timing(), Secrets()
PORTALS = ((str(TARGET), "192.0.2.1:3260,1"), (str(TARGET), "192.0.2.2:3260,1"))
BLOCKS = 1024


class Target:
    """One connection at our own target: octets in, octets out."""

    def __init__(self, disk, credentials=OPEN):
        self.disk = disk
        self.login = IscsiLogin(identifier=7, challenge=bytes(range(16)))
        self._credentials = credentials
        self._input = b""
        self._conversation = None

    def take(self, octets):
        """Take octets; return the answers."""
        self._input += octets
        answers = b""
        while (pdu := self._whole_pdu()) is not None:
            answers += self._answer(pdu)
        return answers

    def _whole_pdu(self):
        if len(self._input) < iscsi.HEADER_OCTETS:
            return None
        ahs, data = iscsi.header_lengths(self._input)
        end = iscsi.HEADER_OCTETS + ahs + data + -data % 4
        if len(self._input) < end:
            return None
        pdu, self._input = self._input[:end], self._input[end:]
        return pdu

    def _answer(self, pdu):
        if self._conversation is None:
            step = self.login.receive(split(pdu)[0])
            while True:
                match step:
                    case AskCredentials():
                        step = self.login.may_prove((self._credentials,))
                    case AskAdmission():
                        step = self.login.admit(9)
                    case _:
                        break
            if self.login.state is LoginState.FINISHED:
                self._conversation = Conversation(
                    [],
                    {0: self.disk},
                    parameters=self.login.parameters,
                    ready=False,
                    discovery=() if self.login.target else PORTALS,
                )
                self._conversation.session.numbers.exp_cmd_sn = self.login.cmd_sn
                self._conversation.session.numbers.stat_sn = self.login.stat_sn
            return iscsi.encode(step.response)
        wire = self._conversation.wire
        wire.chunks.append(pdu)
        self._conversation.loop.serve()
        answers = bytes(wire.sent)
        wire.sent.clear()
        return answers


class Link:
    """A core and whatever it talks to; ``serve`` makes a target for each connection, or None: nobody is there.

    ``cuts`` are the sizes of the pieces in which octets arrive at the core, ``breaks`` after how many octets, counted
    in both directions, each connection breaks.
    """

    def __init__(
        self, serve, *, wishes=WISHES, timing=PATIENCE, secrets=NO_SECRETS, cuts=(), breaks=(), cmd_sn=1, target=TARGET
    ):
        self.now = 1000.0
        identity = Identity(INITIATOR, target, ISID, secrets)
        self.core = InitiatorSession(identity, PORTAL, wishes=wishes, timing=timing, cmd_sn=cmd_sn, now=self.now)
        self.answers = {}
        self.events = []
        self.target = None
        self._serve = serve
        self._cuts = iter(cuts)
        self._breaks = iter(breaks)
        self._left = math.inf  # octets until the connection breaks

    @property
    def logins(self):
        return sum(isinstance(event, LoggedIn) for event in self.events)

    @property
    def ended(self):
        """Return why the session has ended, in a tuple; empty while it has not."""
        return tuple(event.why for event in self.events if isinstance(event, Ended))

    def settle(self):
        """Let everything happen that needs no time to pass."""
        while True:
            events = self.core.events()
            for event in events:
                self._handle(event)
            octets = b"".join(self.core.octets_to_send())
            if not events and not octets:
                return self
            if octets:
                self.carry(octets)

    def pass_time(self, seconds=math.inf):
        """Let time pass, from one deadline to the next, until everything is answered or nothing is due."""
        end = self.now + seconds
        self.settle()
        while self.core.deadline <= end and self.core.deadline < math.inf and not self._over(seconds):
            self.now = max(self.now, self.core.deadline)
            self.core.handle_timer(self.now)
            self.settle()
        if seconds != math.inf:
            self.now = end
        return self

    def _over(self, seconds):
        return seconds == math.inf and self.core.idle and self.core.state is State.OPEN

    def execute(self, command):
        return self.core.execute(command, self.now)

    def carry(self, octets):
        """Carry octets to the target, if there is one, and its answers back, as far as the connection lives."""
        if self.target is None:
            return
        target, octets = self.target, self._limit(octets)
        answers = self._limit(target.take(octets))
        self.receive(answers)
        if self._left <= 0 and self.target is target:
            self.target = None
            self.core.lost("the link is broken", self.now)

    def receive(self, octets):
        """Have the core receive octets, in pieces."""
        target = self.target
        while octets and self.target is target:
            buffer = self.core.buffer_wanted()
            piece = octets[: min(next(self._cuts, len(buffer)), len(buffer))]
            buffer[: len(piece)] = piece
            octets = octets[len(piece) :]
            self.core.received(len(piece), self.now)
            if any(isinstance(event, Disconnect) for event in self._peek()):
                return

    def _peek(self):
        events = self.core.events()
        for event in events:
            self._handle(event)
        return events

    def _limit(self, octets):
        octets = octets[: int(min(self._left, len(octets)))]
        self._left -= len(octets)
        return octets

    def _handle(self, event):
        self.events.append(event)
        match event:
            case Connect():
                self.target = self._serve()
                self._left = next(self._breaks, math.inf)
                if self.target is None:
                    self.core.lost("nobody is there", self.now)
                else:
                    self.core.connected(identifier=9, challenge=bytes(range(100, 116)))
            case Disconnect():
                self.target = None
            case Answered(number, result):
                assert number not in self.answers, "answered twice"
                self.answers[number] = result


def own_target(disk=None, **options):
    """Return a function that makes connections at our own target with one disk."""
    disk = disk or MemoryDisk(BLOCKS)
    return lambda: Target(disk, **options)
