"""The Remote Transport: iSCSI portals, and a blocking thread for each connection.

    portal ── accept ──▶ Connection thread
                           login        IscsiLogin, within LOGIN_SECONDS, however the initiator dawdles
                           admission    Manager.credentials, .admit
                           full feature HotLoop, with a ping after PING_SECONDS of silence; silence never ends it,
                                        but in discovery, where nothing is proved, after DISCOVERY_SECONDS
                           the end      Manager.gone: from here on this thread touches no Descriptor

``Connection.shut_down`` shuts the socket down in both directions.  The thread may have commands in its buffer, and
carries them out; a Descriptor whose epoch is fenced off refuses them.
"""

import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from panloom.errors import MalformedError, PeerError, RefusedError, UnavailableError
from panloom.protocol.iscsi_login import (
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
from panloom.protocol.scsi_disk import LogicalUnits
from panloom.protocol.scsi_pages import Disk
from panloom.storage.descriptor import Admission, Credentials, Descriptor, Manager, SessionFacts
from panloom.storage.hot import HotLoop
from panloom.storage.portals import portal_text
from panloom.values import Iqn
from panloom.wire import iscsi
from panloom.wire.iscsi import HEADER_OCTETS, LoginRequest

LOGIN_SECONDS = 15.0  # from accept to full feature phase
PING_SECONDS = 0.5
LOGIN_DATA_OCTETS = 8192  # RFC 7143 section 13.12: the MaxRecvDataSegmentLength of every login
DISCOVERY_SECONDS = 30.0  # of silence
MAX_WITHOUT_DISK = 32  # connections of one address that log in or discover; more are turned away
BACKLOG = 128

_log = logging.getLogger(__name__)


class RemoteTransport:
    """Listens at portals and serves whoever the Connection Manager lets in.

    ``portals`` are (address, port); port 0 takes any, see ``addresses``.
    """

    def __init__(self, portals: Sequence[tuple[str, int]], manager: Manager) -> None:
        self._portals = tuple(portals)
        self._manager = manager
        self._listeners: list[socket.socket] = []
        self._accepting: list[threading.Thread] = []
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()  # of the set
        self._stopping = threading.Event()
        self._last_tsih = secrets.randbelow(0xFFFF)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Return the addresses and ports that are listened at."""
        return tuple(listener.getsockname()[:2] for listener in self._listeners)

    def start(self) -> None:
        """Listen; UnavailableError when a portal cannot be had."""
        for address, port in self._portals:
            try:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as error:
                self.stop()
                why = os.strerror(error.errno or 0)
                raise UnavailableError(f"cannot listen at {portal_text(address, port)}: {why}") from error
            self._listeners.append(listener)
            thread = threading.Thread(
                target=self._accept, args=(listener,), name=f"iscsi-portal-{address}", daemon=True
            )
            self._accepting.append(thread)
            thread.start()

    def stop(self) -> None:
        """Shut down portals and connections, and wait until the last thread has ended."""
        self._stopping.set()
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        for thread in self._accepting:
            thread.join()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            connections = tuple(self._connections)
        for connection in connections:
            connection.shut_down()
        for connection in connections:
            connection.join()
        self._listeners, self._accepting = [], []

    def new_tsih(self) -> int:
        """Return a session handle, 1 … 65535, not used lately."""
        with self._lock:
            self._last_tsih = self._last_tsih % 0xFFFF + 1
            return self._last_tsih

    def forget(self, connection: "_Connection") -> None:
        """Take note that a connection's thread is about to end."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if not self._stopping.is_set():  # out of file descriptors, or the peer has gone again
                    _log.warning("event=accept-failed why=%r", str(error))
                    self._stopping.wait(0.1)
                continue
            connection = _Connection(self, self._manager, sock, (peer[0], peer[1]))
            with self._lock:
                others = sum(
                    1 for each in self._connections if each.address == connection.address and not each.has_disk
                )
                if others < MAX_WITHOUT_DISK:
                    self._connections.add(connection)
            why = "too many connections without a disk" if others >= MAX_WITHOUT_DISK else connection.start()
            if why:
                _log.info("event=turned-away peer=%s why=%r", connection.peer, why)
                self.forget(connection)
                sock.close()


class _Connection:
    """One connection: its socket, its thread, and its facts once it is logged in."""

    def __init__(
        self, transport: RemoteTransport, manager: Manager, sock: socket.socket, peer: tuple[str, int]
    ) -> None:
        self.address, port = peer
        self.peer = portal_text(self.address, port)
        self._transport = transport
        self._manager = manager
        self._sock = sock
        self._facts: SessionFacts | None = None
        self._resized: deque[tuple[int, int]] = deque()  # from any thread; LUN and blocks
        self._admission: Admission | None = None
        self._login = IscsiLogin(identifier=os.urandom(1)[0], challenge=os.urandom(16))
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

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def resized(self, lun: int, blocks: int) -> None:
        """Take note, from any thread, that a unit has more blocks."""
        self._resized.append((lun, blocks))

    def shut_down(self) -> None:
        """End the connection soon, from any thread, without waiting."""
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
        except PeerError as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        except Exception:  # noqa: BLE001, the thread's top guard: a fault of ours ends this connection and no other
            why = "internal error"
            _log.exception("event=fault peer=%s", self.peer)
        finally:
            self._sock.close()
            self._end(why)
            self._transport.forget(self)

    def _end(self, why: str) -> None:
        login = self._login
        if self._admission is not None:
            self._manager.gone(self._admission.session_id, why)
            _log.info("event=end session=%s peer=%s why=%r", self._admission.session_id, self.peer, why)
        elif login.state is not State.FINISHED:
            why = login.why or why
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
                    wanted = self._credentials_of(initiator, target)
                    step = login.may_prove(() if wanted is None else (wanted,))
                case AskAdmission():
                    step = self._admit()
        return step

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
        if login.target is not None:
            try:
                self._admission = self._manager.admit(initiator, login.target, login.proved, self)
            except RefusedError as error:
                return login.refuse(Status.AUTHORIZATION_FAILURE, str(error))
            except UnavailableError as error:
                return login.refuse(Status.SERVICE_UNAVAILABLE, str(error))
        return login.admit(self._transport.new_tsih())

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
            units = LogicalUnits({lun: _disk(descriptor) for lun, descriptor in admission.descriptors.items()})
        address, port = self._sock.getsockname()[:2]
        return IscsiSession(
            login.parameters,
            cid=login.cid,
            exp_cmd_sn=login.cmd_sn,
            stat_sn=login.stat_sn,
            units=units,
            targets=tuple((str(name), f"{portal_text(address, port)},1") for name in names),
        )

    def _serve(self, session: IscsiSession) -> str:
        """Serve full feature phase; return why it ended."""
        admission, facts = self._admission, self.facts
        if admission is not None:
            _log.info(
                "event=login session=%s peer=%s initiator=%s target=%s epoch=%d kind=%s",
                *(admission.session_id, self.peer, facts.initiator, facts.target, admission.epoch, facts.kind),
            )
        loop = HotLoop(
            self._sock,
            session,
            admission.descriptors if admission else {},
            facts,
            clock=time.monotonic,
            first_read=self._first_read,
            pings=admission is not None and facts.kind != "firmware",
            patience_seconds=None if admission else DISCOVERY_SECONDS,
            resized=self._resized,
        )
        return loop.run()

    def _first_read(self) -> None:
        if self._admission is not None:
            self._manager.first_read(self._admission.session_id)

    def _set_receive_timeout(self, seconds: float) -> None:
        whole = int(seconds)
        interval = struct.pack("@ll", whole, int((seconds - whole) * 1e6))  # struct timeval
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)


def _known(initiator: Iqn | None) -> Iqn:
    if initiator is None:
        raise ValueError("asked before the initiator has told its name")
    return initiator


def _disk(descriptor: Descriptor) -> Disk:
    return Disk(
        blocks=descriptor.blocks,
        read_only=descriptor.read_only,
        identity=descriptor.identity,
        serial=descriptor.serial,
        product=descriptor.product,
        block_octets=descriptor.block_octets,
        thin=descriptor.thin,
    )
