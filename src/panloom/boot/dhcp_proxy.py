"""The sockets of boot information beside another DHCP server: port 67 for all, port 4011 for who asks us alone."""

import asyncio
import socket
import time
from functools import partial
from ipaddress import IPv4Address

from panloom.boot.desk import BootDesk
from panloom.boot.dhcp_frames import DhcpFrames
from panloom.boot.interface import BOOT_STORM_OCTETS, LARGEST_DATAGRAM, packet_socket, udp_socket, waiting
from panloom.decide.boot_answer import BootTable
from panloom.protocol.dhcp_proxy import PXE_PORT, DhcpProxy
from panloom.wire import dhcp


class DhcpProxyService:
    """Tells nodes what to boot, and gives nobody an address, on one interface until it is stopped."""

    def __init__(self, table: BootTable, desk: BootDesk) -> None:
        self._table = table
        self._desk = desk
        self._proxy = DhcpProxy(table.address, desk)
        self._sockets: list[socket.socket] = []
        self._frames: DhcpFrames[IPv4Address] | None = None

    async def start(self) -> None:
        """Listen; UnavailableError if the interface is not there, or a DHCP server of this machine has port 67."""
        for address, port in ((dhcp.UNSPECIFIED, dhcp.SERVER_PORT), (self._table.address, PXE_PORT)):
            sock = udp_socket(self._table.interface, address, port, waiting_octets=BOOT_STORM_OCTETS)
            self._sockets.append(sock)
            asyncio.get_running_loop().add_reader(sock, partial(self._readable, sock, is_pxe=port == PXE_PORT))
        udp, frames = self._sockets[0], packet_socket(self._table.interface, 0)
        self._sockets.append(frames)
        self._frames = DhcpFrames(frames, udp, self._table.address, dhcp.SERVER_PORT)

    async def stop(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()
        self._frames = None

    def _readable(self, sock: socket.socket, *, is_pxe: bool) -> None:
        for octets, (host, port) in waiting(lambda: sock.recvfrom(LARGEST_DATAGRAM), "dhcp"):
            self._proxy.receive(octets, pxe=(IPv4Address(host), port) if is_pxe else None, now=time.monotonic())
        for event in self._proxy.events():
            self._desk.tell(event, now=time.monotonic())
        for datagram in self._proxy.packets_to_send():
            if self._frames is not None:
                self._frames.send(datagram)
