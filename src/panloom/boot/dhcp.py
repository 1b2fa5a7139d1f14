"""The DHCP server's sockets: datagrams in by UDP, replies out as frames, leases through the store before their ACK.

              udp :67                                 packet socket
    client ───────────▶ DhcpServer ── OFFER, NAK ──────────────────▶ client, by its MAC
                          │   ▲ └──── ACK ─────────────────────────▶
         leases_to_store  ▼   │ stored
                        LeaseBook ──▶ store

A machine that asks for an address has none that ARP could find, so replies are whole frames to its MAC, or to all
where it asked for that.
"""

import asyncio
import contextlib
import logging
import socket
import time

from panloom.boot.desk import BootDesk
from panloom.boot.interface import mac_of, packet_socket, udp_socket
from panloom.boot.lease_book import LeaseBook, Written
from panloom.decide.boot_answer import BootTable
from panloom.protocol.dhcp_server import Datagram, DhcpServer
from panloom.state.contract import Store
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.internet import UdpFrame, encode_udp_frame

_LARGEST_DATAGRAM = 65535
_WAITING_OCTETS = 4 << 20  # some thousand datagrams: a room of machines that is switched on at once
_AT_A_TIME = 64  # datagrams read before others have their turn
_log = logging.getLogger("panloom.boot")


class DhcpService:
    """Serves DHCP on one interface until it is stopped."""

    def __init__(self, table: BootTable, store: Store, desk: BootDesk) -> None:
        self._table = table
        self._desk = desk
        self._server = DhcpServer(table.address, desk)
        self._book = LeaseBook(store, self._written)
        self._udp: socket.socket | None = None
        self._frames: socket.socket | None = None
        self._mac = MacAddress(0)
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Read the leases and listen; UnavailableError if the store or the interface is not there."""
        self._server.found(await self._book.load(), now=time.monotonic())
        # 0.0.0.0: a socket bound to an address hears no broadcast.
        self._udp = udp_socket(
            self._table.interface, dhcp.UNSPECIFIED, dhcp.SERVER_PORT, waiting_octets=_WAITING_OCTETS
        )
        self._frames = packet_socket(self._table.interface, 0)
        self._mac = mac_of(self._frames)
        self._writer = asyncio.create_task(self._book.run(), name="dhcp leases")
        asyncio.get_running_loop().add_reader(self._udp, self._readable, self._udp)

    async def stop(self) -> None:
        """Close the sockets; what was not acknowledged is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        for sock in (self._udp, self._frames):
            if sock is not None:
                sock.close()
        self._udp = self._frames = self._writer = self._timer = None

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                octets = udp.recv(_LARGEST_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:  # the interface is down, or an ICMP error came back
                _log.info("dhcp=unread why=%r", str(error))
                break
            self._server.receive(octets, now=time.monotonic())
        self._flush()

    def _written(self, written: Written) -> None:
        now = time.monotonic()
        if written.why:
            self._server.not_stored(written.write, written.why, now=now)
        else:
            self._server.stored(written.write, now=now)
        if written.owner is not None:
            self._server.found([(written.write.address, written.owner)], now=now)
        self._flush()

    def _expire(self) -> None:
        self._timer = None
        self._server.handle_timer(now=time.monotonic())
        self._flush()

    def _flush(self) -> None:
        now = time.monotonic()
        for event in self._server.events():
            self._desk.tell(event, now=now)
        self._book.add(self._server.leases_to_store())
        for datagram in self._server.packets_to_send():
            self._send(datagram)
        if self._timer is None and (deadline := self._server.deadline) is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _send(self, datagram: Datagram) -> None:
        try:
            if datagram.mac is None:
                if self._udp is not None:
                    self._udp.sendto(datagram.octets, (str(datagram.address), datagram.port))
                return
            frame = UdpFrame(
                destination_mac=datagram.mac,
                source_mac=self._mac,
                destination=datagram.address,
                source=self._table.address,
                destination_port=datagram.port,
                source_port=dhcp.SERVER_PORT,
                payload=datagram.octets,
            )
            if self._frames is not None:
                self._frames.send(encode_udp_frame(frame))
        except OSError as error:  # the client asks again
            _log.info("dhcp=unsent mac=%s address=%s why=%r", datagram.mac, datagram.address, str(error))
