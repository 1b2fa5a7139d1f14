"""One iSCSI connection: a blocking thread from accept to the end.

    login        IscsiLogin, within LOGIN_SECONDS, however the initiator dawdles
    admission    Manager.moved, .credentials, .admit; then what is under way of the session that it replaces has to end
    full feature HotLoop, with a ping after PING_SECONDS of silence; silence never ends it,
                 but in discovery, where nothing is proved, after DISCOVERY_SECONDS
    the end      Manager.gone: from here on this thread touches no Descriptor

``IscsiConnection.shut_down`` shuts the socket down in both directions.  The thread may have commands in its buffer, and
carries them out; a Descriptor whose epoch is fenced off refuses them.
"""

import logging
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from panloom.errors import ConfigError, MalformedError, PeerError, RefusedError, UnavailableError
from panloom.protocol.iscsi_login import (
    PORTAL_GROUP,
    Answer,
    AskAdmission,
    AskCredentials,
    IscsiLogin,
    State,
    Status,
    Step,
    session_kind,
)
from panloom.protocol.iscsi_session import IscsiSession
from panloom.protocol.iscsi_task_management import COLD_RESET
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_reservations import NexusName
from panloom.protocol.scsi_unit import Nexus
from panloom.storage.descriptor import Admission, Credentials, Descriptor, Manager, SessionFacts
from panloom.storage.hot import HotLoop
from panloom.storage.portals import parse_portal, portal_text
from panloom.storage.unit_table import UnitTable
from panloom.values import Iqn
from panloom.wire import iscsi
from panloom.wire.iscsi import HEADER_OCTETS, AsyncEvent, LoginRequest

LOGIN_SECONDS = 15.0  # from accept to full feature phase
PING_SECONDS = 0.5
LOGIN_DATA_OCTETS = 8192  # RFC 7143 section 13.12: the MaxRecvDataSegmentLength of every login
DISCOVERY_SECONDS = 30.0  # of silence
SETTLE_SECONDS = 1.0  # how long a command of another session waits for the end of one whose initiator has closed it
VANISH_SECONDS = 1.0  # how long a unit that is taken away waits for what is under way on it
STUCK_SECONDS = 5.0  # how long an initiator may take none of our answers while another session wants something of its

_log = logging.getLogger(__name__)


class Transport(Protocol):
    """What a connection asks of the Remote Transport, which knows the others."""

    units: UnitTable

    def new_challenge(self) -> bytes: ...
    def is_ours(self, challenge: bytes) -> bool: ...
    def answered(self, challenge: bytes) -> None: ...
    def new_tsih(self) -> int: ...
    def session(self, tsih: int) -> "IscsiConnection | None": ...
    def await_end(self, target: Iqn, but: "IscsiConnection") -> bool: ...
    def portals_for(self, local: str) -> tuple[str, ...]: ...
    def forget(self, connection: "IscsiConnection") -> None: ...
    def shut_down(self, target: Iqn, why: str) -> None: ...


class IscsiConnection:
    """One connection: its socket, its thread, and its facts once it is logged in."""

    def __init__(self, transport: Transport, manager: Manager, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.address, port = peer
        self.peer = portal_text(self.address, port)
        self._transport = transport
        self._manager = manager
        self._sock = sock
        self._facts: SessionFacts | None = None
        self._news: deque[Callable[[HotLoop], None]] = deque()  # from any thread
        self._admission: Admission | None = None
        self._units: LogicalUnits | None = None
        self._loop: HotLoop | None = None  # in full feature phase
        self._left = threading.Event()  # it holds nothing of a unit any more
        self._settles_by: float | None = None  # until when others wait for that (CLOCK_MONOTONIC)
        self.accepted_at = time.monotonic()
        self.ending = ""  # why, once it was told to
        self.tsih = 0
        self._challenge = transport.new_challenge()
        self._login = IscsiLogin(identifier=os.urandom(1)[0], challenge=self._challenge, is_ours=transport.is_ours)
        self._thread = threading.Thread(target=self._run, name=f"iscsi-{self.peer}", daemon=True)

    @property
    def has_disk(self) -> bool:
        """Whether it was admitted to a target: neither logging in, nor discovering, nor refused."""
        return self._admission is not None

    @property
    def descriptors(self) -> Mapping[int, Descriptor]:
        """Return what it calls, by LUN: the very objects that the Connection Manager made."""
        return self._admission.descriptors if self._admission else {}

    @property
    def target(self) -> Iqn | None:
        """Return the target that it was admitted to."""
        return self._admission.target if self._admission else None

    @property
    def is_alive(self) -> bool:
        """Whether its thread may still touch a Descriptor."""
        return self._thread.is_alive()

    @property
    def facts(self) -> SessionFacts:
        """Return the session's facts, alive."""
        if self._facts is None:
            raise ValueError("not logged in")
        return self._facts

    def start(self) -> str:
        """Serve in a thread of its own; return why not where there is none to be had, "" otherwise."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:  # "can't start new thread"
            return str(error)
        return ""

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended, so long at most."""
        self._thread.join(None if seconds is None else max(0.0, seconds))

    def resized(self, lun: int, blocks: int) -> None:
        """Take note, from any thread, that a unit has more blocks."""
        self._news.append(lambda loop: loop.resize(lun, blocks))

    def appeared(self, lun: int, descriptor: Descriptor) -> None:
        """Take note, from any thread, of one unit more; one that cannot be served is left out."""
        try:
            disk, unit = self._transport.units.share(descriptor, str(self.facts.target))
        except (ConfigError, UnavailableError) as error:
            _log.warning("event=left-out peer=%s target=%s lun=%d why=%r", self.peer, self.target, lun, str(error))
            return
        self._news.append(lambda loop: loop.add_unit(lun, descriptor, disk, unit))

    def vanished(self, lun: int) -> None:
        """Let a unit go, in another thread, once what is under way on it has ended, VANISH_SECONDS at most."""
        self._news.append(lambda loop: loop.remove_unit(lun))
        loop = self._loop
        if loop is None:
            return  # it begins with the news, or is over
        if loop.tell(lambda _: loop.take_news(), seconds=VANISH_SECONDS):
            loop.await_fact(lambda session: not session.has_tasks(lun), seconds=VANISH_SECONDS)
        else:
            self.shut_down("takes no answers, and a unit of its is taken away")

    def announce(self, event: AsyncEvent, seconds: int = 0) -> None:
        """Tell the initiator, from any thread, that the session ends, or should be ended by it."""
        loop = self._loop
        if loop is not None and self.has_disk:
            loop.tell(lambda session: session.announce(event, seconds), seconds=STUCK_SECONDS)

    def abort_unit(self, lun: int) -> None:
        """Abort the session's tasks at a unit, from the thread of another; a session that is stuck ends."""
        loop = self._loop
        if loop is not None and not loop.tell(lambda session: session.abort_unit(lun), seconds=STUCK_SECONDS):
            self.shut_down("takes no answers, and another session has reset a unit")

    def await_quiet(self, lun: int) -> None:
        """Return when nothing that was aborted at a unit is under way any more."""
        loop = self._loop
        if loop is not None:
            loop.await_fact(lambda session: session.is_quiet(lun))

    def settle(self) -> None:
        """Return, in another thread, when the session has left its units, if its initiator has closed the connection.

        It takes SETTLE_SECONDS at most, once for all who ask; then the connection is shut down.  TCP puts two
        connections in no order, but an initiator that closes one and then sends over another means it so: what came
        over the first is done, and its reservation is over.
        """
        if self._left.is_set() or not _is_closed(self._sock):
            return
        self._settles_by = self._settles_by or time.monotonic() + SETTLE_SECONDS
        if not self._left.wait(max(0.0, self._settles_by - time.monotonic())):
            self.shut_down("closed, and in another session's way")

    def shut_down(self, why: str = "shut down") -> None:
        """End the connection soon, from any thread, without waiting."""
        self.ending = self.ending or why
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def _run(self) -> None:
        why = "closed"
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = self._log_in()
            if session is not None:
                why = self._serve(session)
                if why == COLD_RESET and self._admission is not None:
                    self._transport.shut_down(self._admission.target, why)
        except PeerError as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        except Exception:  # noqa: BLE001, the thread's top guard: a fault of ours ends this connection and no other
            why = "internal error"
            _log.exception("event=fault peer=%s", self.peer)
        finally:
            self._sock.close()
            self._transport.answered(self._challenge)
            self._end(why)
            self._transport.forget(self)

    def _end(self, why: str) -> None:
        login = self._login
        self._leave()
        if self._admission is not None:
            self._manager.gone(self._admission.session_id, why)
            _log.info("event=end session=%s peer=%s why=%r", self._admission.session_id, self.peer, why)
        elif login.state is not State.FINISHED:
            why = login.why or self.ending or why
            self._manager.refused(login.initiator, login.target, self.peer, why)
            _log.info(
                "event=refused peer=%s initiator=%s target=%s why=%r", self.peer, login.initiator, login.target, why
            )

    # -- login ---------------------------------------------------------------------------------------------------

    def _log_in(self) -> IscsiSession | None:
        """Log the initiator in; None when it was refused."""
        deadline = time.monotonic() + LOGIN_SECONDS
        login = self._login
        while login.state not in (State.FINISHED, State.REFUSED):
            step = self._decide(login.receive(self._receive_request(deadline)))
            self._sock.sendall(iscsi.encode(step.response))
        self._transport.answered(self._challenge)
        if login.state is State.REFUSED:
            return None
        self._sock.settimeout(None)
        # A time-out of the kernel's leaves the socket blocking: no poll before each receive.
        self._set_receive_timeout(PING_SECONDS)
        return self._new_session()

    def _decide(self, step: Step) -> Answer:
        """Answer the login's questions until it has something to send."""
        login = self._login
        while not isinstance(step, Answer):
            match step:
                case AskCredentials(initiator, None):
                    step = login.may_prove(self._discovery_candidates(initiator))
                case AskCredentials(initiator, Iqn() as target):
                    step = self._target_candidates(initiator, target)
                case AskAdmission():
                    step = self._admit()
        return step

    def _target_candidates(self, initiator: Iqn, target: Iqn) -> Step:
        """Say what opens a target, or where it has gone."""
        moved = self._manager.moved(initiator, target, self.address)
        if moved is not None:
            address = f"{portal_text(*parse_portal(moved.portal))},{PORTAL_GROUP}"
            return self._login.redirect(address, permanent=moved.permanent)
        wanted = self._credentials_of(initiator, target)
        return self._login.may_prove(() if wanted is None else (wanted,))

    def _discovery_candidates(self, initiator: Iqn) -> tuple[Credentials, ...]:
        """Return all that this initiator could prove somewhere: proving one shows the targets that it opens."""
        wanted = {self._credentials_of(initiator, target) for target in self._visible(initiator)}
        return (Credentials(), *(each for each in wanted if each is not None and each.user is not None))

    def _visible(self, initiator: Iqn) -> tuple[Iqn, ...]:
        return self._manager.targets_visible(initiator, self.address)

    def _credentials_of(self, initiator: Iqn, target: Iqn) -> Credentials | None:
        return self._manager.credentials(initiator, target, self.address)

    def _admit(self) -> Step:
        login = self._login
        now = time.monotonic()
        initiator = _known(login.initiator)
        self._facts = SessionFacts(
            initiator=initiator,
            target=login.target,
            peer=self.peer,
            isid=login.isid,
            kind=session_kind(login),
            login_at=now,
            last_heard_at=now,
        )
        if login.tsih:
            joined = self._transport.session(login.tsih)
            if joined is None or not joined.is_session(self._facts):
                return login.refuse(Status.SESSION_DOES_NOT_EXIST, f"no session {login.tsih} to join")
            if joined.cid != login.cid:
                return login.refuse(Status.TOO_MANY_CONNECTIONS, "a session is one connection here")
        if login.target is not None:
            try:
                self._admission = self._manager.admit(initiator, login.target, login.proved, self)
            except RefusedError as error:
                return login.refuse(Status.AUTHORIZATION_FAILURE, str(error))
            except UnavailableError as error:
                return login.refuse(Status.SERVICE_UNAVAILABLE, str(error))
            if not self._transport.await_end(login.target, self):
                return login.refuse(Status.SERVICE_UNAVAILABLE, "commands of the session before are still under way")
            port = NexusName(f"{initiator},i,0x{login.isid.hex()}", str(login.target))
            try:
                self._units = self._transport.units.join(self._admission.descriptors, port)
            except (ConfigError, UnavailableError) as error:
                return login.refuse(Status.SERVICE_UNAVAILABLE, str(error))
        self.tsih = login.tsih or self._transport.new_tsih()
        return login.admit(self.tsih)

    @property
    def cid(self) -> int:
        """Return the identifier that the initiator has given the connection."""
        return self._login.cid

    def is_session(self, facts: SessionFacts) -> bool:
        """Whether a login is to this session (RFC 7143 section 6.3.1)."""
        own = self._facts
        if own is None or self._admission is None:
            return False
        return (own.initiator, own.target, own.isid) == (facts.initiator, facts.target, facts.isid)

    def _receive_request(self, deadline: float) -> LoginRequest:
        header = self._receive(HEADER_OCTETS, deadline)
        ahs, octets = iscsi.header_lengths(header)
        if header[0] & 0x3F != LoginRequest.OPCODE or octets > LOGIN_DATA_OCTETS:
            raise MalformedError("no login request")
        rest = self._receive(ahs + octets + -octets % 4, deadline)
        request = iscsi.decode(header, rest[:ahs], rest[ahs : ahs + octets])
        if not isinstance(request, LoginRequest):
            raise MalformedError("no login request")
        return request

    def _receive(self, octets: int, deadline: float) -> memoryview:
        """Receive exactly so many octets; PeerError when they do not come in time."""
        buffer = memoryview(bytearray(octets))
        filled = 0
        while filled < octets:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise RefusedError("the login took too long")
            self._sock.settimeout(remaining)
            try:
                received = self._sock.recv_into(buffer[filled:])
            except TimeoutError as error:
                raise RefusedError("the login took too long") from error
            if not received:
                raise RefusedError("closed during the login")
            filled += received
        return buffer

    # -- full feature phase --------------------------------------------------------------------------------------

    def _new_session(self) -> IscsiSession:
        login, admission = self._login, self._admission
        if admission is None:
            names: tuple[Iqn, ...] = tuple(
                target
                for target in self._visible(_known(login.initiator))
                if self._credentials_of(_known(login.initiator), target) in (Credentials(), login.proved)
            )
            units = None
        else:
            names = (admission.target,)
            units = self._units
        portals = self._transport.portals_for(self._sock.getsockname()[0])
        return IscsiSession(
            login.parameters,
            cid=login.cid,
            exp_cmd_sn=login.cmd_sn,
            stat_sn=login.stat_sn,
            units=units,
            targets=tuple((str(name), portal) for name in names for portal in portals),
        )

    def _serve(self, session: IscsiSession) -> str:
        """Serve full feature phase; return why it ended."""
        admission, facts = self._admission, self.facts
        if admission is not None:
            _log.info(
                "event=login session=%s peer=%s initiator=%s target=%s epoch=%d kind=%s",
                *(admission.session_id, self.peer, facts.initiator, facts.target, admission.epoch, facts.kind),
            )
        self._loop = loop = HotLoop(
            self._sock,
            session,
            admission.descriptors if admission else {},
            facts,
            clock=time.monotonic,
            first_read=self._first_read,
            pings=admission is not None and facts.kind != "firmware",
            patience_seconds=None if admission else DISCOVERY_SECONDS,
            news=self._news,
            leaving=self._leave,
            threads=True,
        )
        if self._units:
            self._units.entered = self._entered
            for lun, nexus in self._units.nexuses.items():
                self._entered(lun, nexus)
        try:
            return loop.run()
        finally:
            self._loop = None  # which knows us: its buffers would wait for the collector of cycles

    def _entered(self, lun: int, nexus: Nexus) -> None:
        nexus.abort, nexus.await_quiet = partial(self.abort_unit, lun), partial(self.await_quiet, lun)
        nexus.settle = self.settle

    def _leave(self) -> None:
        if self._units is not None:
            self._units.leave()
        self._left.set()

    def _first_read(self) -> None:
        if self._admission is not None:
            self._manager.first_read(self._admission.session_id)

    def _set_receive_timeout(self, seconds: float) -> None:
        whole = int(seconds)
        interval = struct.pack("@ll", whole, int((seconds - whole) * 1e6))  # struct timeval
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer sends nothing any more; what it has sent may still wait to be received."""
    ended = select.poll()
    try:
        ended.register(sock, select.POLLRDHUP)  # POLLHUP and POLLERR, a reset, are told unasked
    except ValueError:  # closed by us as well
        return True
    return bool(ended.poll(0))


def _known(initiator: Iqn | None) -> Iqn:
    if initiator is None:
        raise ValueError("asked before the initiator has told its name")
    return initiator
