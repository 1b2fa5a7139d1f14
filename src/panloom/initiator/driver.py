"""The shell around an initiator's session: its sockets, the clock and the randomness of one event loop.

call ──▶ execute ──▶ core ──▶ events ──▶ futures
                      │ ▲
    octets_to_send ◀──┘ └── buffer_wanted, received, lost, handle_timer
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from panloom.errors import PanloomError, PeerError, UnavailableError
from panloom.protocol.iscsi_initiator import InitiatorSession
from panloom.protocol.iscsi_initiator_events import (
    Answered,
    Broken,
    Connect,
    Disconnect,
    Ended,
    Event,
    LoggedIn,
    Noted,
)
from panloom.protocol.iscsi_initiator_keys import Agreed
from panloom.protocol.iscsi_initiator_task import Command, Outcome
from panloom.wire.iscsi_text import Portal

Connector: TypeAlias = Callable[[str, int], Awaitable[socket.socket]]

_log = logging.getLogger(__name__)


class Driver:
    """Runs one session; ``name`` is for the log, ``connect`` makes its connections.

    A connection is made by the event loop from ``local_address``, unless ``connect`` is given.
    """

    def __init__(
        self,
        name: str,
        make_session: Callable[[float], InitiatorSession],
        *,
        connect: Connector | None = None,
        local_address: str | None = None,
    ) -> None:
        self.name = name
        self.agreed: Agreed | None = None  # while logged in
        self.logins = 0
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._local_address = local_address
        self._core = make_session(self._loop.time())
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Outcome | bytes | None]] = {}
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._go_on()

    # -- calls ---------------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait for the first login; why it failed is raised."""
        await asyncio.shield(self._opened)

    async def execute(self, command: Command) -> Outcome:
        """Have a command carried out; PeerError or UnavailableError when nobody knows how it ended."""
        outcome = await self._answer(lambda now: self._core.execute(command, now))
        if not isinstance(outcome, Outcome):
            raise TypeError("an outcome that is none")
        return outcome

    async def reset_unit(self, lun: int) -> None:
        """Have the target abort all commands to a unit."""
        await self._answer(lambda now: self._core.reset_unit(lun, now))

    async def send_targets(self) -> bytes:
        """Return a discovery session's targets as a text."""
        text = await self._answer(self._core.send_targets)
        if not isinstance(text, bytes):
            raise TypeError("a text that is none")
        return text

    async def close(self) -> None:
        """Log out, and wait until the connection is closed."""
        self._core.close(self._loop.time())
        self._go_on()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.abandon()
            raise

    async def ended(self) -> None:
        """Wait until the session is over."""
        await asyncio.shield(self._ended)

    def abandon(self) -> None:
        """Close the connection without a logout."""
        self._core.abandon()
        self._go_on()

    async def _answer(self, request: Callable[[float], int]) -> Outcome | bytes | None:
        """Make a request of the core and wait for what is Answered; a caller that is cancelled cancels the request."""
        at_once = self._core.idle  # else more may come in this turn of the loop, and all leaves in one piece
        number = request(self._loop.time())
        future: asyncio.Future[Outcome | bytes | None] = self._loop.create_future()
        self._waiting[number] = future
        if at_once:
            self._go_on()
        else:
            self._go_on_soon()
        try:
            answer = await future
        finally:
            if self._waiting.pop(number, None) is not None:
                self._core.cancel(number, self._loop.time())
                self._go_on_soon()
        return answer

    # -- the loop ------------------------------------------------------------------------------------------------

    def _go_on_soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Do what the core wants done."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while events := self._core.events():
            for event in events:
                self._handle(event)
        if self._link is not None:
            self._link.send(self._core)
        self._set_timer()

    def _handle(self, event: Event) -> None:
        match event:
            case Answered(number, result):
                future = self._waiting.pop(number, None)
                if future is not None and not future.done():
                    if isinstance(result, PanloomError):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
            case Connect(portal):
                self._connecting = self._loop.create_task(self._make_link(portal))
            case Disconnect():
                self._disconnect()
            case LoggedIn(portal, agreed):
                self.agreed = agreed
                self.logins += 1
                _log.info("event=login target=%s portal=%s logins=%d", self.name, portal, self.logins)
                if not self._opened.done():
                    self._opened.set_result(None)
            case Broken(why):
                _log.info("event=broken target=%s why=%r", self.name, why)
            case Noted(what):
                _log.info("event=note target=%s what=%r", self.name, what)
            case Ended(why):
                self._end(why)

    def _end(self, why: PeerError | UnavailableError | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(why or UnavailableError("the session was closed before it was open"))
            self._opened.exception()  # who opens may have gone
        elif why is not None:
            _log.info("event=end target=%s why=%r", self.name, str(why))
        if not self._ended.done():
            self._ended.set_result(None)

    def _set_timer(self) -> None:
        """Be woken at the core's deadline; a deadline that has moved away costs one wake-up in vain."""
        deadline = self._core.deadline
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline != float("inf"):
            self._timer = self._loop.call_at(deadline, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._core.handle_timer(self._loop.time())
        self._go_on()

    # -- connections ---------------------------------------------------------------------------------------------

    async def _make_link(self, portal: Portal) -> None:
        """Make a connection; the core bounds how long that may take."""
        try:
            link = _Link(self)
            if self._connect is not None:
                sock = await self._connect(portal.address, portal.port)
                await self._loop.create_connection(lambda: link, sock=sock)
            else:
                local = (self._local_address, 0) if self._local_address else None
                await self._loop.create_connection(lambda: link, portal.address, portal.port, local_addr=local)
        except (OSError, PanloomError) as error:
            self._connecting = None
            self._core.lost(_reason(error), self._loop.time())
        else:
            self._connecting = None
            self._link = link
            self._core.connected(identifier=os.urandom(1)[0], challenge=os.urandom(16))
        self._go_on()

    def _disconnect(self) -> None:
        self.agreed = None
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def buffer_wanted(self) -> memoryview:
        """Return where to receive into."""
        return self._core.buffer_wanted()

    def received(self, link: "_Link", octets: int) -> None:
        """Take what has been received."""
        if link is self._link:
            self._core.received(octets, self._loop.time())
            self._go_on()

    def lost(self, link: "_Link", why: str) -> None:
        """Take note of the end of a connection."""
        if link is self._link:
            self._core.lost(why, self._loop.time())
            self._go_on()

    def writable(self, link: "_Link") -> None:
        """Go on sending."""
        if link is self._link:
            link.send(self._core)


class _Link(asyncio.BufferedProtocol):
    """One connection; when it is closed, nothing of it reaches the driver any more."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver | None = driver
        self._transport: asyncio.Transport | None = None
        self._full = False

    def send(self, core: InitiatorSession) -> None:
        """Send what the core has, as long as the socket takes it."""
        while self._transport is not None and not self._full and (parts := core.octets_to_send()):
            self._transport.writelines(parts)

    def close(self) -> None:
        """Close the connection, now."""
        self._driver = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            if self._driver is None:
                transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._driver.buffer_wanted() if self._driver else memoryview(bytearray(sizehint or 1))

    def buffer_updated(self, nbytes: int) -> None:
        if self._driver:
            self._driver.received(self, nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._driver:
            self._driver.lost(self, _reason(exc) if exc else "the target has closed the connection")

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._driver:
            self._driver.writable(self)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
