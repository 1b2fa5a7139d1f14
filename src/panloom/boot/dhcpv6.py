"""The DHCPv6 server's sockets: frames in from machines and UDP from relays, replies out, leases through the store.

              packet socket                                   packet socket
    machine ───────────────▶ Dhcpv6Server ── ADVERTISE, REPLY ─────────────▶ machine, by its MAC
    relay   ─── udp :547 ──▶   │   ▲    └── within RELAY-REPL ── udp ──────▶ relay
             leases_to_store   ▼   │ stored
                           Ipv6LeaseBook ──▶ store

A machine's messages are read as frames, since the MAC it sends from is what the port filter holds it to.
"""

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from ipaddress import IPv6Address

from panloom.boot.alarm import Alarm
from panloom.boot.desk import BootDesk
from panloom.boot.interface import join, mac_of, packet_socket, receive_frame, tell_checksums, udp_socket
from panloom.boot.ipv6_desk import Ipv6Desk
from panloom.boot.lease_book import Ipv6LeaseBook, Written
from panloom.decide.boot_answer import BootTable
from panloom.errors import MalformedError
from panloom.protocol.dhcpv6_server import Dhcpv6Server
from panloom.protocol.lease_server import Datagram
from panloom.state.contract import Store
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.internet import PROTOCOL_UDP
from panloom.wire.router_advertisement import link_local
from panloom.wire.udp_over_ipv6 import (
    DESTINATION_PORT_AT,
    ETHERTYPE_IPV6,
    NEXT_HEADER_AT,
    Ipv6UdpFrame,
    decode_ipv6_udp_frame,
    encode_ipv6_udp_frame,
)

_LARGEST = 65535
_AT_A_TIME = 64  # datagrams read before others have their turn
_LOAD_HALF_WORD, _LOAD_OCTET, _JUMP_IF_EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06  # linux/bpf_common.h
_ONLY_TO_SERVERS = (
    (_LOAD_OCTET, 0, 0, NEXT_HEADER_AT),
    (_JUMP_IF_EQUAL, 0, 3, PROTOCOL_UDP),
    (_LOAD_HALF_WORD, 0, 0, DESTINATION_PORT_AT),
    (_JUMP_IF_EQUAL, 0, 1, dhcpv6.SERVER_PORT),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)
_DUID_UUID = b"\0\4"  # RFC 6355
_log = logging.getLogger("panloom.boot")


def server_duid(address: IPv6Address) -> bytes:
    """Return the DUID of the server at an address: the same on whatever control node, after whatever restart."""
    return _DUID_UUID + uuid.uuid5(uuid.NAMESPACE_URL, f"dhcpv6://[{address}]").bytes


class Dhcpv6Service:
    """Serves DHCPv6 on one interface until it is stopped."""

    def __init__(self, table: BootTable, address: IPv6Address, store: Store, desk: BootDesk) -> None:
        self._interface = table.interface
        self._address = address
        self._desk = desk
        self._server = Dhcpv6Server(server_duid(address), Ipv6Desk(desk))
        self._book = Ipv6LeaseBook(store, self._written)
        self._frames: socket.socket | None = None
        self._udp: socket.socket | None = None
        self._mac = MacAddress(0)
        self._writer: asyncio.Task[None] | None = None
        self._alarm = Alarm(self._expire)

    async def start(self) -> None:
        """Read the leases and listen; UnavailableError if the store, the interface or our address is not there."""
        self._server.found(await self._book.load(), now=time.monotonic())
        self._udp = udp_socket(self._interface, self._address, dhcpv6.SERVER_PORT)
        self._frames = packet_socket(self._interface, ETHERTYPE_IPV6, wanted=_ONLY_TO_SERVERS)
        tell_checksums(self._frames)
        self._mac = mac_of(self._frames)
        join(self._frames, self._interface, dhcpv6.ALL_AGENTS_MAC)
        self._writer = asyncio.create_task(self._book.run(), name="dhcpv6 leases")
        asyncio.get_running_loop().add_reader(self._udp, self._from_relays, self._udp)
        asyncio.get_running_loop().add_reader(self._frames, self._from_machines, self._frames)

    async def stop(self) -> None:
        """Close the sockets; what was not acknowledged is forgotten."""
        self._alarm.stop()
        for sock in (self._udp, self._frames):
            if sock is not None:
                asyncio.get_running_loop().remove_reader(sock)
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        for sock in (self._udp, self._frames):
            if sock is not None:
                sock.close()
        self._udp = self._frames = self._writer = None

    def _from_machines(self, frames: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                octets, has_checksum = receive_frame(frames, _LARGEST)
                frame = decode_ipv6_udp_frame(octets, has_checksum=has_checksum)
            except BlockingIOError:
                break
            except MalformedError as error:
                _log.info("dhcpv6=ignored why=%r", str(error))
                continue
            except OSError as error:  # the interface is down
                _log.info("dhcpv6=unread why=%r", str(error))
                break
            if frame.destination == dhcpv6.ALL_AGENTS:
                now = time.monotonic()
                self._server.receive(frame.payload, source=frame.source, mac=frame.source_mac, now=now)
        self._flush()

    def _from_relays(self, udp: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                octets, source = udp.recvfrom(_LARGEST)
            except BlockingIOError:
                break
            except OSError as error:  # the interface is down, or an ICMP error came back
                _log.info("dhcpv6=unread why=%r", str(error))
                break
            address = IPv6Address(source[0].partition("%")[0])
            self._server.receive(octets, source=address, mac=None, now=time.monotonic())
        self._flush()

    def _written(self, written: Written[IPv6Address]) -> None:
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
        for datagram in self._server.packets_to_send():
            self._send(datagram)
        self._alarm.put(self._server.deadline)

    def _send(self, datagram: Datagram[IPv6Address]) -> None:
        try:
            if datagram.mac is None:
                if self._udp is not None:
                    self._udp.sendto(datagram.octets, (str(datagram.address), datagram.port))
                return
            frame = Ipv6UdpFrame(
                destination_mac=datagram.mac,
                source_mac=self._mac,
                destination=datagram.address,
                source=link_local(self._mac),
                destination_port=datagram.port,
                source_port=dhcpv6.SERVER_PORT,
                payload=datagram.octets,
            )
            if self._frames is not None:
                self._frames.send(encode_ipv6_udp_frame(frame))
        except OSError as error:  # the client asks again
            _log.info("dhcpv6=unsent mac=%s address=%s why=%r", datagram.mac, datagram.address, str(error))
