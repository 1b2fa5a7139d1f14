"""The Remote Transport: iSCSI portals, and what their connections must know of each other.

    portal ── accept ──▶ room for one more of this address? ──▶ IscsiConnection, a thread of its own
                         else the oldest without a disk goes

All portals are of one portal group; SendTargets tells every one of them.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address

from panloom.errors import UnavailableError
from panloom.protocol.chap import CHALLENGE_OCTETS
from panloom.protocol.iscsi_login import PORTAL_GROUP
from panloom.storage.descriptor import Manager
from panloom.storage.iscsi_connection import IscsiConnection
from panloom.storage.portals import portal_text, send_unpaced
from panloom.storage.unit_table import UnitTable
from panloom.values import Iqn
from panloom.wire.iscsi import AsyncEvent

MAX_WITHOUT_DISK = 32  # connections of one address that log in or discover; for one more the oldest has to go
TAKE_OVER_SECONDS = 10.0  # how long a login waits for what is under way of the session that it replaces
LOGOUT_SECONDS = 2.0  # that initiators have to log out when we stop
BACKLOG = 128

_log = logging.getLogger(__name__)


class RemoteTransport:
    """Listens at portals and serves whoever the Connection Manager lets in.

    ``portals`` are (address, port); port 0 takes any, see ``addresses``.  ``units`` None remembers nothing of units.
    """

    def __init__(self, portals: Sequence[tuple[str, int]], manager: Manager, units: UnitTable | None = None) -> None:
        self.units = units or UnitTable()
        self._portals = tuple(portals)
        self._manager = manager
        self._listeners: list[socket.socket] = []
        self._accepting: list[threading.Thread] = []
        self._connections: set[IscsiConnection] = set()
        self._lock = threading.Lock()  # of the set
        self._stopping = threading.Event()
        self._last_tsih = secrets.randbelow(0xFFFF)
        self._challenges: set[bytes] = set()  # of logins that are under way

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
                send_unpaced(listener)
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
        self._say_goodbye(connections)
        for connection in connections:
            connection.shut_down()
        self.units.stop()
        for connection in connections:
            connection.join()
        self._listeners, self._accepting = [], []

    def _say_goodbye(self, connections: Sequence[IscsiConnection]) -> None:
        """Have initiators log out that have shown that they listen; tell the others that it is over."""

        def speak() -> None:
            for connection in listening:
                connection.announce(AsyncEvent.LOGOUT_REQUEST, seconds=int(LOGOUT_SECONDS))
            for connection in listening:
                connection.join(deadline - time.monotonic())
            for connection in connections:
                connection.announce(AsyncEvent.SESSION_DROPPED)

        deadline = time.monotonic() + LOGOUT_SECONDS
        listening = [each for each in connections if each.has_disk and each.facts.answers_nop]
        speaking = threading.Thread(target=speak, name="iscsi-goodbye", daemon=True)
        speaking.start()  # not in this thread: an initiator that takes nothing would hold us up
        speaking.join(LOGOUT_SECONDS + 1)

    def shut_down(self, target: Iqn, why: str) -> None:
        """End every connection to a target."""
        with self._lock:
            ended = [each for each in self._connections if each.target == target]
        for connection in ended:
            connection.shut_down(why)

    def portals_for(self, local: str) -> tuple[str, ...]:
        """Return every portal as a TargetAddress, for an initiator that reaches us at a local address."""
        portals = []
        for address, port in self.addresses:
            if ip_address(address).is_unspecified:
                if ip_address(address).version != ip_address(local).version:
                    continue
                address = local
            portals.append(f"{portal_text(address, port)},{PORTAL_GROUP}")
        return tuple(dict.fromkeys(portals))

    def new_challenge(self) -> bytes:
        """Return a challenge for one login, from the operating system's generator."""
        challenge = os.urandom(CHALLENGE_OCTETS)
        with self._lock:
            self._challenges.add(challenge)
        return challenge

    def is_ours(self, challenge: bytes) -> bool:
        """Whether a challenge is put to somebody who has not answered it yet."""
        with self._lock:
            return challenge in self._challenges

    def answered(self, challenge: bytes) -> None:
        """Take note that a login is over."""
        with self._lock:
            self._challenges.discard(challenge)

    def new_tsih(self) -> int:
        """Return a session handle, 1 … 65535, that no session has."""
        with self._lock:
            taken = {connection.tsih for connection in self._connections}
            self._last_tsih = self._last_tsih % 0xFFFF + 1
            while self._last_tsih in taken:
                self._last_tsih = self._last_tsih % 0xFFFF + 1
            return self._last_tsih

    def session(self, tsih: int) -> IscsiConnection | None:
        """Return the connection of a session that is live."""
        with self._lock:
            return next((each for each in self._connections if each.tsih == tsih and not each.ending), None)

    def await_end(self, target: Iqn, but: IscsiConnection) -> bool:
        """Wait until no connection that is ending has a command of a target under way; False if that takes too long."""
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        with self._lock:
            ending = [each for each in self._connections if each is not but and each.ending and each.target == target]
        for connection in ending:
            connection.join(deadline - time.monotonic())
        return not any(connection.is_alive for connection in ending)

    def forget(self, connection: IscsiConnection) -> None:
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
            connection = IscsiConnection(self, self._manager, sock, (peer[0], peer[1]))
            why = self._take_in(connection) or connection.start()
            if why:
                _log.info("event=turned-away peer=%s why=%r", connection.peer, why)
                self.forget(connection)
                sock.close()

    def _take_in(self, connection: IscsiConnection) -> str:
        """Count a connection; return why there is no room for it, "" otherwise.

        Whoever makes more of them than is allowed loses the oldest, so that half-open ones do not keep out a machine
        of the same address.
        """
        with self._lock:
            idle = [each for each in self._connections if each.address == connection.address and not each.has_disk]
            staying = sorted((each for each in idle if not each.ending), key=lambda each: each.accepted_at)
            if len(idle) >= 2 * MAX_WITHOUT_DISK:  # those that have to go have not gone yet
                return "too many connections without a disk"
            self._connections.add(connection)
        if len(staying) >= MAX_WITHOUT_DISK:
            staying[0].shut_down("makes room for a newer one")
        return ""
