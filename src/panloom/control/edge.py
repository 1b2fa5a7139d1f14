"""The control node's sockets towards its machines: boot services and the ear for beacons.

They open when a platform document names an interface, and open anew when it names another; while the interface is
missing or an address is not yet there, they are tried again each second.  The table may change at any time.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from panloom.boot.services import BootServices
from panloom.control.events import EventLog
from panloom.decide.boot_answer import BootEvent, BootTable
from panloom.decide.personality import BEACON_PORT
from panloom.errors import PanloomError
from panloom.state.contract import Store

RETRY_SECONDS = 1.0
_log = logging.getLogger("panloom.edge")


class Edge:
    """Keeps the boot services and the beacon socket open where the platform says."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        *,
        files: Path | None,
        boot_event: Callable[[BootEvent], None],
        beacon: Callable[[bytes, float], str | None],
    ) -> None:
        self._store = store
        self._events = events
        self._files = files
        self._boot_event = boot_event
        self._beacon = beacon
        self._table: BootTable | None = None
        self._open: BootTable | None = None
        self._services: BootServices | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._wake = asyncio.Event()
        self.answer: Callable[[str], bytes | None] = lambda server: None  # noqa: ARG005
        """What the server that has sent a beacon is told, None for nothing."""
        self.trouble = ""
        """Why the sockets are not open; empty where they are, or nothing asks for them."""

    def replace(self, table: BootTable) -> None:
        """Answer from this table from now on."""
        self._table = table
        if self._services is not None and self._open is not None and _place(table) == _place(self._open):
            self._services.replace(table)
        else:
            self._wake.set()

    def login_seen(self, initiator: str, epoch: int) -> None:
        """End the boot token of a machine that has logged in."""
        if self._services is not None:
            self._services.login_seen(initiator, epoch)

    async def run(self) -> None:
        """Open, and open again where that fails, until cancelled; then close."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                table = self._table
                if table is None or (self._open is not None and _place(table) == _place(self._open)):
                    continue
                await self._close()
                try:
                    await self._start(table)
                    self.trouble = ""
                except (OSError, PanloomError) as error:
                    if str(error) != self.trouble:
                        self.trouble = str(error)
                        self._events.report("boot services", f"cannot open on {table.interface}: {error}; trying again")
                    await self._close()
                    await asyncio.sleep(RETRY_SECONDS)
                    self._wake.set()
        finally:
            await self._close()

    async def _start(self, table: BootTable) -> None:
        self._transport = await _listen(table, self._hear)
        self._services = BootServices(table, self._store, self._boot_event, self._files)
        await self._services.start()
        self._open = table
        self._events.report("boot services", f"open on {table.interface} at {table.address}")
        if self._table is not None and self._table is not table:
            self._wake.set()
            self._services.replace(self._table)

    def _hear(self, octets: bytes, at: float) -> bytes | None:
        server = self._beacon(octets, at)
        return self.answer(server) if server is not None else None

    async def _close(self) -> None:
        services, self._services = self._services, None
        transport, self._transport = self._transport, None
        self._open = None
        if transport is not None:
            transport.close()
        if services is not None:
            await services.stop()


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, hear: Callable[[bytes, float], bytes | None]) -> None:
        self._hear = hear
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # which Python 3.11's own does not derive from

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._hear(data, time.monotonic())
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        _log.info("beacon=lost why=%r", str(exc))


async def _listen(table: BootTable, hear: Callable[[bytes, float], bytes | None]) -> asyncio.DatagramTransport:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, table.interface.encode())
        sock.bind((str(table.address), BEACON_PORT))
        sock.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Ear(hear), sock=sock)
    except OSError:
        sock.close()
        raise
    return transport


def _place(table: BootTable) -> tuple[object, ...]:
    return (table.interface, table.address, table.ipv6_address, table.http_port, table.is_proxy)
