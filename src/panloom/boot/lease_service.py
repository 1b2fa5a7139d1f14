"""What the services of DHCP and of DHCPv6 have in common: one interface's sockets, and leases through the store.

   sockets ──▶ LeaseServer ──▶ events, replies
                 │   ▲
leases_to_store  ▼   │ stored
                LeaseBook ──▶ store
"""

import asyncio
import contextlib
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic

from panloom.boot.alarm import Alarm
from panloom.boot.desk import BootDesk
from panloom.boot.dhcp_frames import DhcpFrames
from panloom.boot.lease_book import Book, Written
from panloom.protocol.dhcp_leases import Address
from panloom.protocol.lease_server import LeaseServer
from panloom.state.contract import Store


class LeaseService(ABC, Generic[Address]):
    """Serves leases on one interface until it is stopped."""

    def __init__(self, server: LeaseServer[Address], kind: type[Address], store: Store, desk: BootDesk) -> None:
        self._leases: LeaseServer[Address] = server
        self._book: Book[Address] = Book(store, self._written, kind)
        self._desk = desk
        self._sockets: list[socket.socket] = []
        self._frames: DhcpFrames[Address] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._alarm = Alarm(self._expire)

    async def start(self) -> None:
        """Read the leases and listen; UnavailableError if the store, the interface or our address is not there."""
        self._leases.found(await self._book.load(), now=time.monotonic())
        self._frames = self._open()
        self._writer = asyncio.create_task(self._book.run(), name="leases")

    async def stop(self) -> None:
        """Close the sockets; what was not acknowledged is forgotten."""
        self._alarm.stop()
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._frames = self._writer = None

    @abstractmethod
    def _open(self) -> DhcpFrames[Address]:
        """Open the sockets by ``_keep`` and ``_read``, and return the way out."""

    def _keep(self, sock: socket.socket) -> socket.socket:
        """Close a socket when the service stops."""
        self._sockets.append(sock)
        return sock

    def _read(self, sock: socket.socket, take: Callable[[socket.socket], None]) -> None:
        """Have ``take`` called whenever something waits at a socket, and then do what comes of it."""

        def readable() -> None:
            take(sock)
            self._flush()

        asyncio.get_running_loop().add_reader(self._keep(sock), readable)

    def _written(self, written: Written[Address]) -> None:
        now = time.monotonic()
        if written.why:
            self._leases.not_stored(written.write, written.why, now=now)
        else:
            self._leases.stored(written.write, now=now)
        if written.owner is not None:
            self._leases.found([(written.write.address, written.owner)], now=now)
        self._flush()

    def _expire(self) -> None:
        self._leases.handle_timer(now=time.monotonic())
        self._flush()

    def _flush(self) -> None:
        now = time.monotonic()
        for event in self._leases.events():
            self._desk.tell(event, now=now)
        self._book.add(self._leases.leases_to_store())
        for datagram in self._leases.packets_to_send():
            if self._frames is not None:
                self._frames.send(datagram)
        self._alarm.put(self._leases.deadline)
