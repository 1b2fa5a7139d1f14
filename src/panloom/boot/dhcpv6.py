"""The DHCPv6 server's sockets: frames in from machines and UDP from relays, replies out, leases through the store.

              packet socket                                   packet socket
    machine ───────────────▶ Dhcpv6Server ── ADVERTISE, REPLY ─────────────▶ machine, by its MAC
    relay   ─── udp :547 ──▶   │   ▲    └── within RELAY-REPL ── udp ──────▶ relay
             leases_to_store   ▼   │ stored
                           LeaseBook ──▶ store

A machine's messages are read as frames, since the MAC it sends from is what the port filter holds it to.
"""

import socket
import time
import uuid
from ipaddress import IPv6Address

from panloom.boot.desk import BootDesk
from panloom.boot.dhcp_frames import DhcpFrames
from panloom.boot.interface import (
    DROP,
    JUMP_IF_EQUAL,
    KEEP,
    LARGEST_DATAGRAM,
    LOAD_HALF_WORD,
    LOAD_OCTET,
    join,
    mac_of,
    packet_socket,
    receive_frame,
    tell_checksums,
    udp_socket,
    waiting,
)
from panloom.boot.ipv6_desk import Ipv6Desk
from panloom.boot.lease_service import LeaseService
from panloom.decide.boot_answer import BootTable
from panloom.protocol.dhcpv6_server import Dhcpv6Server
from panloom.state.contract import Store
from panloom.wire import dhcpv6
from panloom.wire.internet import (
    DESTINATION_PORT_AT,
    ETHERTYPE_IPV6,
    NEXT_HEADER_AT,
    PROTOCOL_UDP,
    UdpFrame,
    decode_ipv6_udp_frame,
)
from panloom.wire.router_advertisement import link_local

_ONLY_TO_SERVERS = (
    (LOAD_OCTET, 0, 0, NEXT_HEADER_AT),
    (JUMP_IF_EQUAL, 0, 3, PROTOCOL_UDP),
    (LOAD_HALF_WORD, 0, 0, DESTINATION_PORT_AT),
    (JUMP_IF_EQUAL, 0, 1, dhcpv6.SERVER_PORT),
    KEEP,
    DROP,
)
_DUID_UUID = b"\0\4"  # RFC 6355


def server_duid(address: IPv6Address) -> bytes:
    """Return the DUID of the server at an address: the same on whatever control node, after whatever restart."""
    return _DUID_UUID + uuid.uuid5(uuid.NAMESPACE_URL, f"dhcpv6://[{address}]").bytes


class Dhcpv6Service(LeaseService[IPv6Address]):
    """Serves DHCPv6 on one interface until it is stopped."""

    def __init__(self, table: BootTable, address: IPv6Address, store: Store, desk: BootDesk) -> None:
        self._server = Dhcpv6Server(server_duid(address), Ipv6Desk(desk))
        super().__init__(self._server, IPv6Address, store, desk)
        self._interface = table.interface
        self._address = address

    def _open(self) -> DhcpFrames[IPv6Address]:
        udp = udp_socket(self._interface, self._address, dhcpv6.SERVER_PORT)
        self._read(udp, self._from_relays)
        frames = packet_socket(self._interface, ETHERTYPE_IPV6, wanted=_ONLY_TO_SERVERS)
        self._read(frames, self._from_machines)
        tell_checksums(frames)
        join(frames, self._interface, dhcpv6.ALL_AGENTS_MAC)
        return DhcpFrames(frames, udp, link_local(mac_of(frames)), dhcpv6.SERVER_PORT)

    def _from_machines(self, frames: socket.socket) -> None:
        def receive() -> UdpFrame[IPv6Address]:
            octets, has_checksum = receive_frame(frames, LARGEST_DATAGRAM)
            return decode_ipv6_udp_frame(octets, has_checksum=has_checksum)

        for frame in waiting(receive, "dhcpv6"):
            if frame.destination == dhcpv6.ALL_AGENTS:
                now = time.monotonic()
                self._server.receive(frame.payload, source=frame.source, mac=frame.source_mac, now=now)

    def _from_relays(self, udp: socket.socket) -> None:
        for octets, source in waiting(lambda: udp.recvfrom(LARGEST_DATAGRAM), "dhcpv6"):
            address = IPv6Address(source[0].partition("%")[0])
            self._server.receive(octets, source=address, mac=None, now=time.monotonic())
