"""An initiator's session over all its connections: log in, carry commands, come back (RFC 7143 sections 4.4, 6.3.5, 7).

                                  LoginResponse              broken            back-off is over
    ┌────────────┐ connected() ┌────────────┐     ┌──────┐ ────────▶ ┌─────────┐ ────▶ CONNECTING
    │ CONNECTING │ ──────────▶ │ LOGGING_IN │ ──▶ │ OPEN │           │ WAITING │
    └────────────┘             └────────────┘     └──────┘ ◀──────── └─────────┘
          ▲  redirected              │                │ close()           │ reconnect_seconds are over,
          └──────────────────────────┤                ▼                   │ or the login is refused
                                     │         ┌─────────────┐            ▼
                                     │         │ LOGGING_OUT │ ────▶ ┌───────┐
                                     └─────────┴─────────────┴─────▶ │ ENDED │
                                                                     └───────┘
The shell owns the socket, the clock and the randomness:

    connected(…) lost(why)                 what became of Connect
    buffer_wanted() received(octets)       the stream in
    octets_to_send()                       the stream out
    deadline, handle_timer()               the clock; ``deadline`` is math.inf where nothing is due
    events()                               what it has to do, and what its caller waits for

**Broken connections.**  The next login uses the same ISID, so the target ends what is left of the old session before it
lets the new one in (section 6.3.5).  Then every command without an answer is sent again, in the order in which it was
given: doing a READ, WRITE, SYNCHRONIZE CACHE, UNMAP or any other of ``Operation`` twice is doing it once.  A command
that is not ``repeatable`` and had been sent ends in CommandLostError.  So does one under which the connection broke
``MAX_BREAKS`` times because of what the target said.  The first connection is tried once; later ones until
``reconnect_seconds`` after the outage began.  An outage ends with the first answer.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from panloom.errors import MalformedError, PeerError, RefusedError, UnavailableError
from panloom.protocol import iscsi_initiator_connection
from panloom.protocol.iscsi_initiator_connection import InitiatorConnection, Timing
from panloom.protocol.iscsi_initiator_events import (
    Answered,
    Broken,
    Connect,
    Disconnect,
    Ended,
    Event,
    Failure,
    LoggedIn,
    Noted,
)
from panloom.protocol.iscsi_initiator_keys import RECEIVE_OCTETS, Wishes
from panloom.protocol.iscsi_initiator_login import Identity, InitiatorLogin, LoginRefusedError, Redirect
from panloom.protocol.iscsi_initiator_task import Command, CommandLostError, Outcome, Phase, Refusal, Task, refusal
from panloom.wire.iscsi import Octets, Pdu
from panloom.wire.iscsi_stream import PduReader, frame
from panloom.wire.iscsi_text import Portal, encode_text

FIRST_CMD_SN = 1
MAX_REDIRECTS = 4  # in one login
MAX_BREAKS = 3
MAX_ATTEMPTS = 12  # of one command at a unit that says "not now"
AGAIN_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)  # between logins, and between attempts; from then on the last one
SEND_OCTETS = 131072  # in one piece of ``octets_to_send``, about


class State(Enum):
    """Where the session stands; the picture is above."""

    CONNECTING = auto()
    LOGGING_IN = auto()
    OPEN = auto()
    WAITING = auto()
    LOGGING_OUT = auto()
    ENDED = auto()


class InitiatorSession:
    """One session with one target, or with a portal for discovery; it begins with ``Connect``.

    ``cmd_sn`` is the first CmdSN of each connection.
    """

    def __init__(
        self,
        identity: Identity,
        portal: Portal,
        *,
        wishes: Wishes,
        timing: Timing,
        now: float,
        cmd_sn: int = FIRST_CMD_SN,
    ) -> None:
        self.state = State.CONNECTING
        self._identity = identity
        self._portal = portal  # where the next attempt goes
        self._here = portal  # where this one went
        self._wishes = wishes
        self._timing = timing
        self._cmd_sn = cmd_sn
        self._events: list[Event] = []
        self._reader = PduReader(max_data_octets=RECEIVE_OCTETS)
        self._login: InitiatorLogin | None = None
        self._connection: InitiatorConnection | None = None
        self._login_output: deque[tuple[Octets, ...]] = deque()
        self._deadline = math.inf  # of a login, or of the wait before one
        self._tasks: dict[int, Task] = {}  # by number, in their order: all that have no outcome
        self._later: deque[tuple[float, Task]] = deque()  # those that are to be attempted again, and when
        self._waiting_for: set[int] = set()  # numbers of resets and of a text
        self._text_number = 0
        self._last_number = 0
        self._redirects = 0
        self._attempts = 0  # logins in this outage
        self._outage_at: float | None = None
        self._logged_in_at: float | None = None  # the last time
        self._answered = False  # something, since then
        self._broken_why: Failure | None = None  # the connection, the last time
        self._why: Failure = UnavailableError("the session is closed")
        self._connect(portal, now)

    # -- the caller ----------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no command is under way."""
        return not self._tasks

    def execute(self, command: Command, now: float) -> int:
        """Have a command carried out; return the number under which its outcome will be ``Answered``."""
        number = self._new_number()
        if self.state in (State.ENDED, State.LOGGING_OUT):
            self._events.append(Answered(number, self._why))
            return number
        task = self._tasks[number] = Task(number, command)
        self._with_connection(now, lambda connection: connection.start(task, now))
        return number

    def cancel(self, number: int, now: float) -> None:
        """Forget a command: whether it is carried out is not known, and nothing is Answered under its number."""
        self._waiting_for.discard(number)
        task = self._tasks.pop(number, None)
        if task is None:
            return
        if any(other is task for _, other in self._later):
            self._later = deque((when, other) for when, other in self._later if other is not task)
        else:
            self._with_connection(now, lambda connection: connection.cancel(task, now))

    def reset_unit(self, lun: int, now: float) -> int:
        """Have the target abort all commands to a unit, those of other initiators as well; they end in an error."""
        return self._request(now, lambda connection, number: connection.reset_unit(lun, number, now))

    def send_targets(self, now: float) -> int:
        """Ask a discovery session for its targets (appendix C); the answer is the text's octets."""

        def ask(connection: InitiatorConnection, number: int) -> None:
            self._text_number = number
            connection.ask(encode_text([("SendTargets", "All")]))

        return self._request(now, ask)

    def close(self, now: float) -> None:
        """Log out; everything without an outcome ends in an error."""
        if self.state is State.ENDED:
            return
        self._fail_all()
        if self._connection is None:
            self._disconnect()
            self._end(None)
            return
        self.state = State.LOGGING_OUT
        if self._connection.state is iscsi_initiator_connection.State.OPEN:
            self._connection.log_out(now)

    def abandon(self) -> None:
        """Close the connection without a word, as a machine does that loses its power."""
        if self.state is not State.ENDED:
            self._disconnect()
            self._end(None)

    # -- the shell -----------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When ``handle_timer`` has something to do."""
        if self._connection is None:
            return self._deadline
        return min(self._connection.deadline, self._later[0][0] if self._later else math.inf)

    def events(self) -> list[Event]:
        """Return what has happened since the last call, in its order."""
        events, self._events = self._events, []
        return events

    def connected(self, *, identifier: int, challenge: bytes) -> None:
        """Begin the login on a new connection; ``identifier`` and 16 random octets or more serve this one alone."""
        if self.state is not State.CONNECTING:
            return
        self.state = State.LOGGING_IN
        self._reader = PduReader(max_data_octets=RECEIVE_OCTETS)
        self._login = InitiatorLogin(
            self._identity,
            self._wishes,
            cmd_sn=self._cmd_sn,
            task_tag=0,
            identifier=identifier,
            challenge=challenge,
        )
        self._send_login(self._login.first())

    def lost(self, why: str, now: float) -> None:
        """Take note that the connection is gone, or could not be made."""
        if self.state not in (State.WAITING, State.ENDED):
            self._break(UnavailableError(f"{self._here}: {why}"), now)

    def buffer_wanted(self) -> memoryview:
        """Return where to receive into, before each ``received``."""
        return self._reader.buffer_wanted()

    def received(self, octets: int, now: float) -> None:
        """Take so many octets, which have been received into the buffer."""
        self._reader.received(octets)
        try:
            while (pdu := self._reader.next_pdu()) is not None:
                self._take(pdu, now)
        except PeerError as error:
            self._break(error, now)
        else:
            self._collect(now)

    def octets_to_send(self) -> list[Octets]:
        """Return the next octets to send, about SEND_OCTETS, and forget them; an empty list: nothing to send."""
        parts: list[Octets] = []
        octets = 0
        while octets < SEND_OCTETS:
            if self._login_output:
                pdu = self._login_output.popleft()
            elif self._connection is None or (taken := self._connection.taken()) is None:
                break
            else:
                pdu = taken
            parts += pdu
            octets += sum(map(len, pdu))
        return parts

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._connection is not None:
            self._with_connection(now, lambda connection: self._handle_connection_timer(connection, now))
        elif now < self._deadline:
            return
        elif self.state is State.WAITING:
            if now < self._give_up_at(now):
                self._connect(self._portal, now)
            else:
                self._give_up()
        else:
            self._break(UnavailableError(f"{self._here}: no login in {self._timing.login_seconds:g} s"), now)

    # -- connections ---------------------------------------------------------------------------------------------

    def _connect(self, portal: Portal, now: float) -> None:
        self.state = State.CONNECTING
        self._here = portal
        self._deadline = now + self._timing.login_seconds
        if self._outage_at is not None:
            self._deadline = min(self._deadline, self._give_up_at(now))
        self._events.append(Connect(portal))

    def _disconnect(self) -> None:
        self._connection = self._login = None
        self._login_output.clear()
        self._events.append(Disconnect())

    def _give_up_at(self, now: float) -> float:
        return (now if self._outage_at is None else self._outage_at) + self._timing.reconnect_seconds

    def _take(self, pdu: Pdu, now: float) -> None:
        if self._connection is not None:
            self._connection.receive(pdu, now)
        elif self._login is not None:
            step = self._login.receive(pdu)
            if step is None:
                self._open(self._login, now)
            elif isinstance(step, Redirect):
                self._redirect(step, now)
            else:
                self._send_login(step)

    def _send_login(self, request: Pdu) -> None:
        self._login_output.append(frame(request, header_digest=False, data_digest=False))

    def _redirect(self, step: Redirect, now: float) -> None:
        """Log in elsewhere (section 11.13.5)."""
        self._redirects += 1
        if self._redirects > MAX_REDIRECTS:
            raise RefusedError(f"the target sends us elsewhere more than {MAX_REDIRECTS} times")
        if step.permanent:
            self._portal = step.portal
        self._disconnect()
        self._events.append(Noted(f"the target sends us to {step.portal}"))
        self._connect(step.portal, now)

    def _open(self, login: InitiatorLogin, now: float) -> None:
        """Begin full feature phase: what has no outcome is sent, again where it was sent before."""
        self.state = State.OPEN
        self._login, self._redirects = None, 0
        self._logged_in_at, self._answered = now, False
        self._reader.header_digest = login.agreed.header_digest
        self._reader.data_digest = login.agreed.data_digest
        self._later.clear()
        self._connection = InitiatorConnection(
            login.agreed,
            self._timing,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=login.exp_stat_sn,
            max_cmd_sn=login.max_cmd_sn,
            now=now,
        )
        self._events.append(LoggedIn(self._here, login.agreed))
        for task in self._tasks.values():
            self._connection.start(task, now)

    def _break(self, why: Failure, now: float) -> None:
        """Go on after a connection that is no more, or a login that failed: later, or not at all."""
        before, connection = self.state, self._connection
        self._disconnect()
        if connection is not None:
            self._collect_from(connection, now)
        if before is State.LOGGING_OUT:
            self._end(None)
            return
        self._begin_outage(now)
        refused = before is State.LOGGING_IN and isinstance(why, RefusedError)
        passing = isinstance(why, LoginRefusedError) and why.passing
        if self._logged_in_at is None or (refused and not passing):
            self._end(why)
            return
        self._broken_why = why
        give_up_at = self._give_up_at(now)
        if now >= give_up_at:
            self._give_up()
            return
        if connection is not None:
            self._take_back(connection, why)
        wait = _again(self._attempts)
        if connection is not None:
            wait = max(wait, connection.time2wait_seconds)
        self._attempts += 1
        self._redirects = 0
        self.state = State.WAITING
        self._deadline = min(now + wait, give_up_at)
        self._events.append(Broken(str(why)))

    def _give_up(self) -> None:
        where = f"{self._identity.target or 'discovery'}: no way back in {self._timing.reconnect_seconds:g} s"
        self._end(UnavailableError(f"{where}; at last: {self._broken_why}"))

    def _begin_outage(self, now: float) -> None:
        """Begin one, unless the last one is not over: a login alone, with commands that wait, is no end of it."""
        since = self._logged_in_at
        proved = self._answered or (since is not None and not self._tasks and now - since >= self._timing.ping_seconds)
        if self._outage_at is None or proved:
            self._outage_at, self._attempts, self._answered = now, 0, False

    def _take_back(self, connection: InitiatorConnection, why: Failure) -> None:
        """Make the unanswered commands ready for the next connection."""
        for task in connection.unanswered():
            sent = task.phase is Phase.SENT
            if sent and isinstance(why, MalformedError | RefusedError):
                task.breaks += 1
            if sent and not task.command.repeatable:
                lost = CommandLostError(f"the connection broke, and the command may not be sent twice: {why}")
                self._settle(task, lost)
            elif task.breaks >= MAX_BREAKS:
                self._settle(task, CommandLostError(f"{MAX_BREAKS} connections broke under the command: {why}"))
            task.reset()
        for number in tuple(self._waiting_for):
            self._settle_request(number, why)

    def _end(self, why: Failure | None) -> None:
        self.state = State.ENDED
        self._deadline = math.inf
        if why is not None:
            self._why = why
        self._fail_all()
        self._events.append(Ended(why))

    # -- commands ------------------------------------------------------------------------------------------------

    def _new_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _request(self, now: float, make: Callable[[InitiatorConnection, int], None]) -> int:
        """Make a request that lives and dies with its connection."""
        number = self._new_number()
        if self.state is not State.OPEN:
            self._events.append(Answered(number, self._why if self.state is State.ENDED else _NOT_NOW))
            return number
        self._waiting_for.add(number)
        self._with_connection(now, lambda connection: make(connection, number))
        return number

    def _with_connection(self, now: float, act: Callable[[InitiatorConnection], None]) -> None:
        """Do something with the connection, where there is one, and see what comes of it."""
        if self._connection is None:
            return
        try:
            act(self._connection)
        except PeerError as error:
            self._break(error, now)
        else:
            self._collect(now)

    def _handle_connection_timer(self, connection: InitiatorConnection, now: float) -> None:
        while self._later and now >= self._later[0][0]:
            connection.start(self._later.popleft()[1], now)
        connection.handle_timer(now)

    def _collect(self, now: float) -> None:
        if self._connection is None:
            return
        self._collect_from(self._connection, now)
        if self._connection.state is iscsi_initiator_connection.State.LOGGED_OUT:
            self._break(CommandLostError("the target wanted a logout"), now)

    def _collect_from(self, connection: InitiatorConnection, now: float) -> None:
        """Pass on what a connection has to tell."""
        while connection.finished:
            finished, connection.finished = connection.finished, []
            self._answered = True
            for task, outcome in finished:
                if not self._attempt_again(task, outcome, now):
                    self._settle(task, outcome)
        for number, error in connection.managed:
            self._settle_request(number, error)
        connection.managed.clear()
        if connection.text is not None:
            self._settle_request(self._text_number, connection.text)
            connection.text = None
        self._events += map(Noted, connection.notes)
        connection.notes.clear()

    def _attempt_again(self, task: Task, outcome: Outcome | PeerError, now: float) -> bool:
        """Put a command back that the unit would not do now; whether it was one."""
        if isinstance(outcome, PeerError) or not task.command.insistent or task.attempts >= MAX_ATTEMPTS:
            return False
        match refusal(outcome):
            case Refusal.ATTENTION:
                self._events.append(Noted(f"unit {task.command.lun} wants attention: {outcome.sense}"))
                wait = 0.0
            case Refusal.BUSY:
                wait = _again(task.attempts + 1)
            case _:
                return False
        task.attempts += 1
        task.reset()
        if self._connection is not None:  # else it waits for the next one
            if wait:
                self._later.append((now + wait, task))
                self._later = deque(sorted(self._later, key=lambda item: item[0]))
            else:
                self._connection.start(task, now)
        return True

    def _settle(self, task: Task, outcome: Outcome | PeerError) -> None:
        if self._tasks.pop(task.number, None) is not None:
            self._events.append(Answered(task.number, outcome))

    def _settle_request(self, number: int, result: bytes | Failure | None) -> None:
        if number in self._waiting_for:
            self._waiting_for.discard(number)
            self._events.append(Answered(number, result))

    def _fail_all(self) -> None:
        self._events += [Answered(number, self._why) for number in (*self._tasks, *self._waiting_for)]
        self._tasks.clear()
        self._later.clear()
        self._waiting_for.clear()


_NOT_NOW = UnavailableError("the session has no connection now")


def _again(attempts: int) -> float:
    return AGAIN_SECONDS[min(attempts, len(AGAIN_SECONDS) - 1)]
