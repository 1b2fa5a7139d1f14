"""What a DHCP server sends: whole frames to machines without an address, datagrams to all who have one."""

import logging
import socket
from ipaddress import IPv4Address
from typing import Generic

from panloom.boot.interface import mac_of
from panloom.protocol.dhcp_leases import Address
from panloom.protocol.lease_server import Datagram
from panloom.wire.arp import encode_probe
from panloom.wire.internet import UdpFrame, encode_udp_frame

_log = logging.getLogger("panloom.boot")


class DhcpFrames(Generic[Address]):
    """The way out of one interface, from its server's address and port; the sockets stay their owner's."""

    def __init__(self, frames: socket.socket, udp: socket.socket, source: Address, port: int) -> None:
        self._frames = frames
        self._udp = udp
        self._mac = mac_of(frames)
        self._source: Address = source
        self._port = port

    def probe(self, address: IPv4Address) -> None:
        """Ask all on the wire who has an address."""
        try:
            self._frames.send(encode_probe(address, self._mac))
        except OSError as error:  # the client declines, or the other one is found later
            _log.info("arp=unsent address=%s why=%r", address, str(error))

    def send(self, datagram: Datagram[Address]) -> None:
        """Send a reply, by routing where it names no MAC."""
        try:
            if datagram.mac is None:
                self._udp.sendto(datagram.octets, (str(datagram.address), datagram.port))
                return
            frame = UdpFrame(
                destination_mac=datagram.mac,
                source_mac=self._mac,
                destination=datagram.address,
                source=self._source,
                destination_port=datagram.port,
                source_port=self._port,
                payload=datagram.octets,
            )
            self._frames.send(encode_udp_frame(frame))
        except OSError as error:  # the client asks again
            _log.info("dhcp=unsent mac=%s address=%s why=%r", datagram.mac, datagram.address, str(error))
