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

import socket
import time
from ipaddress import IPv4Address

from panloom.boot.desk import BootDesk
from panloom.boot.dhcp_frames import DhcpFrames
from panloom.boot.interface import (
    BOOT_STORM_OCTETS,
    DROP,
    JUMP_IF_EQUAL,
    KEEP,
    LARGEST_DATAGRAM,
    LOAD_HALF_WORD,
    packet_socket,
    udp_socket,
    waiting,
)
from panloom.boot.lease_service import LeaseService
from panloom.decide.boot_answer import BootTable
from panloom.protocol.dhcp_server import DhcpServer
from panloom.state.contract import Store
from panloom.wire import dhcp
from panloom.wire.arp import ETHERTYPE_ARP, OPERATION_AT, REPLY, decode_reply

_ONLY_REPLIES = ((LOAD_HALF_WORD, 0, 0, OPERATION_AT), (JUMP_IF_EQUAL, 0, 1, REPLY), KEEP, DROP)


class DhcpService(LeaseService[IPv4Address]):
    """Serves DHCP on one interface until it is stopped."""

    def __init__(self, table: BootTable, store: Store, desk: BootDesk) -> None:
        self._server = DhcpServer(table.address, desk)
        super().__init__(self._server, IPv4Address, store, desk)
        self._table = table

    def _open(self) -> DhcpFrames[IPv4Address]:
        # 0.0.0.0: a socket bound to an address hears no broadcast.
        interface = self._table.interface
        udp = udp_socket(interface, dhcp.UNSPECIFIED, dhcp.SERVER_PORT, waiting_octets=BOOT_STORM_OCTETS)
        self._read(udp, self._requested)
        self._read(packet_socket(interface, ETHERTYPE_ARP, wanted=_ONLY_REPLIES), self._answered)
        return DhcpFrames(self._keep(packet_socket(interface, 0)), udp, self._table.address, dhcp.SERVER_PORT)

    def _requested(self, udp: socket.socket) -> None:
        for octets in waiting(lambda: udp.recv(LARGEST_DATAGRAM), "dhcp"):
            self._server.receive(octets, now=time.monotonic())

    def _answered(self, arp: socket.socket) -> None:
        for reply in waiting(lambda: decode_reply(arp.recv(LARGEST_DATAGRAM)), "arp"):
            self._server.answered(reply.sender, reply.sender_mac, now=time.monotonic())

    def _flush(self) -> None:
        for address in self._server.probes_to_send():
            if self._frames is not None:
                self._frames.probe(address)
        super()._flush()
