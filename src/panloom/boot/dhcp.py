"""The DHCP server's sockets: datagrams in by UDP, replies out as frames, leases through the store before their ACK.

              udp :67                                 packet socket
    client ───────────▶ DhcpServer ── OFFER, NAK ──────────────────▶ client, by its MAC
                          │   ▲ ├──── ACK ─────────────────────────▶
                          │   │ └──── ARP ─────────────────────────▶ all: who has what is to be lent?
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
from ipaddress import IPv4Address

from panloom.boot.alarm import Alarm
from panloom.boot.desk import BootDesk
from panloom.boot.dhcp_frames import LARGEST_DATAGRAM, WAITING_OCTETS, DhcpFrames
from panloom.boot.interface import packet_socket, udp_socket
from panloom.boot.lease_book import LeaseBook, Written
from panloom.decide.boot_answer import BootTable
from panloom.errors import MalformedError
from panloom.protocol.dhcp_server import DhcpServer
from panloom.state.contract import Store
from panloom.wire import dhcp
from panloom.wire.arp import ETHERTYPE_ARP, OPERATION_AT, REPLY, decode_reply

_AT_A_TIME = 64  # datagrams read before others have their turn
_LOAD_HALF_WORD, _JUMP_IF_EQUAL, _RETURN = 0x28, 0x15, 0x06  # linux/bpf_common.h
_ONLY_REPLIES = (
    (_LOAD_HALF_WORD, 0, 0, OPERATION_AT),
    (_JUMP_IF_EQUAL, 0, 1, REPLY),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)
_log = logging.getLogger("panloom.boot")


class DhcpService:
    """Serves DHCP on one interface until it is stopped."""

    def __init__(self, table: BootTable, store: Store, desk: BootDesk) -> None:
        self._table = table
        self._desk = desk
        self._server = DhcpServer(table.address, desk)
        self._book = LeaseBook(store, self._written)
        self._udp: socket.socket | None = None
        self._frames = DhcpFrames(table.interface, table.address)
        self._arp: socket.socket | None = None
        self._writer: asyncio.Task[None] | None = None
        self._alarm = Alarm(self._expire)

    async def start(self) -> None:
        """Read the leases and listen; UnavailableError if the store or the interface is not there."""
        self._server.found(await self._book.load(), now=time.monotonic())
        # 0.0.0.0: a socket bound to an address hears no broadcast.
        self._udp = udp_socket(self._table.interface, dhcp.UNSPECIFIED, dhcp.SERVER_PORT, waiting_octets=WAITING_OCTETS)
        self._frames.open(self._udp)
        self._writer = asyncio.create_task(self._book.run(), name="dhcp leases")
        self._arp = packet_socket(self._table.interface, ETHERTYPE_ARP, wanted=_ONLY_REPLIES)
        asyncio.get_running_loop().add_reader(self._udp, self._readable, self._udp)
        asyncio.get_running_loop().add_reader(self._arp, self._answered, self._arp)

    async def stop(self) -> None:
        """Close the sockets; what was not acknowledged is forgotten."""
        self._alarm.stop()
        for sock in (self._udp, self._arp):
            if sock is not None:
                asyncio.get_running_loop().remove_reader(sock)
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        self._frames.close()
        for sock in (self._udp, self._arp):
            if sock is not None:
                sock.close()
        self._udp = self._arp = self._writer = None

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                octets = udp.recv(LARGEST_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:  # the interface is down, or an ICMP error came back
                _log.info("dhcp=unread why=%r", str(error))
                break
            self._server.receive(octets, now=time.monotonic())
        self._flush()

    def _answered(self, arp: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                reply = decode_reply(arp.recv(LARGEST_DATAGRAM))
            except BlockingIOError:
                break
            except MalformedError as error:
                _log.info("arp=ignored why=%r", str(error))
                continue
            except OSError as error:  # the interface is down
                _log.info("arp=unread why=%r", str(error))
                break
            self._server.answered(reply.sender, reply.sender_mac, now=time.monotonic())
        self._flush()

    def _written(self, written: Written[IPv4Address]) -> None:
        now = time.monotonic()
        if written.why:
            self._server.not_stored(written.write, written.why, now=now)
        else:
            self._server.stored(written.write, now=now)
        if written.owner is not None:
            self._server.found([(written.write.address, written.owner)], now=now)
        self._flush()

    def _expire(self) -> None:
        self._server.handle_timer(now=time.monotonic())
        self._flush()

    def _flush(self) -> None:
        now = time.monotonic()
        for event in self._server.events():
            self._desk.tell(event, now=now)
        self._book.add(self._server.leases_to_store())
        for address in self._server.probes_to_send():
            self._frames.probe(address)
        for datagram in self._server.packets_to_send():
            self._frames.send(datagram)
        self._alarm.put(self._server.deadline)
