"""Replies of DHCP on the wire: whole frames to machines without an address, UDP to all who have one."""

import logging
import socket
from ipaddress import IPv4Address

from panloom.boot.interface import mac_of, packet_socket
from panloom.protocol.lease_server import Datagram
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.arp import encode_probe
from panloom.wire.internet import UdpFrame, encode_udp_frame

LARGEST_DATAGRAM = 65535
WAITING_OCTETS = 4 << 20  # some thousand datagrams: a room of machines that is switched on at once
_log = logging.getLogger("panloom.boot")


class DhcpFrames:
    """What a server of one interface sends from its address; closed, it sends nothing."""

    def __init__(self, interface: str, address: IPv4Address) -> None:
        self._interface = interface
        self._address = address
        self._frames: socket.socket | None = None
        self._udp: socket.socket | None = None
        self._mac = MacAddress(0)

    def open(self, udp: socket.socket) -> None:
        """Begin, ``udp`` being the server's own socket, which stays its owner's; UnavailableError without interface."""
        self._udp = udp
        self._frames = packet_socket(self._interface, 0)
        self._mac = mac_of(self._frames)

    def close(self) -> None:
        """Send no more."""
        if self._frames is not None:
            self._frames.close()
        self._frames = self._udp = None

    def probe(self, address: IPv4Address) -> None:
        """Ask all on the wire who has an address."""
        try:
            if self._frames is not None:
                self._frames.send(encode_probe(address, self._mac))
        except OSError as error:  # the client declines, or the other one is found later
            _log.info("arp=unsent address=%s why=%r", address, str(error))

    def send(self, datagram: Datagram[IPv4Address]) -> None:
        """Send a reply, by routing where it names no MAC."""
        try:
            if datagram.mac is None:
                if self._udp is not None:
                    self._udp.sendto(datagram.octets, (str(datagram.address), datagram.port))
                return
            frame = UdpFrame(
                destination_mac=datagram.mac,
                source_mac=self._mac,
                destination=datagram.address,
                source=self._address,
                destination_port=datagram.port,
                source_port=dhcp.SERVER_PORT,
                payload=datagram.octets,
            )
            if self._frames is not None:
                self._frames.send(encode_udp_frame(frame))
        except OSError as error:  # the client asks again
            _log.info("dhcp=unsent mac=%s address=%s why=%r", datagram.mac, datagram.address, str(error))
