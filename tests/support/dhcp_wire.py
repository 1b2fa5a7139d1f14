"""Whole DHCP frames on a machine's cable, so that a test sees every octet of an answer, and that there is none."""

import socket
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message
from panloom.wire.internet import BROADCAST_MAC, ETHERTYPE_IPV4, UdpFrame, decode_udp_frame, encode_udp_frame
from support.dhcp_client import IPXE, DhcpClient
from support.namespaces import Namespace
from support.waiting import until

WITNESS = "52:54:00:77:00:96"  # a stranger, so that no node's lease is touched


class DhcpWire:
    """A packet socket at ``interface`` of a machine; ``heard`` are the payloads of all DHCP answers so far."""

    def __init__(self, machine: Namespace, interface: str = "eth0") -> None:
        self._socket = machine.socket(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setblocking(False)
        self._socket.bind((interface, ETHERTYPE_IPV4))
        self.heard: list[UdpFrame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, payload: bytes, mac: MacAddress) -> None:
        """Broadcast a payload as a client without an address does."""
        frame = UdpFrame(
            destination_mac=BROADCAST_MAC,
            source_mac=mac,
            destination=IPv4Address("255.255.255.255"),
            source=dhcp.UNSPECIFIED,
            destination_port=dhcp.SERVER_PORT,
            source_port=dhcp.CLIENT_PORT,
            payload=payload,
        )
        self.send_frame(encode_udp_frame(frame))

    def send_frame(self, octets: bytes) -> None:
        """Put a frame on the cable as it is; waits while the cable's queue is full."""
        self._socket.setblocking(True)
        self._socket.send(octets)
        self._socket.setblocking(False)

    def answers_to(self, message: Message) -> list[Message]:
        """Return the answers that have come for the message's xid."""
        self._listen()
        replies = [dhcp.decode(frame.payload) for frame in self.heard]
        return [reply for reply in replies if reply.xid == message.xid and reply.chaddr == message.chaddr]

    def ask(self, message: Message) -> Message:
        """Send a message and return its first answer."""
        before = len(self.answers_to(message))
        self.send(dhcp.encode(message), message.chaddr)
        return until(lambda: self.answers_to(message)[before:], f"an answer to {message}")[0]

    def bind(self, client: DhcpClient) -> Message:
        """Carry a whole exchange and return the ACK."""
        client.receive(dhcp.encode(self.ask(client.discover())))
        request = client.request()
        self.send(dhcp.encode(request), client.mac)
        until(lambda: [client.receive(dhcp.encode(r)) for r in self.answers_to(request)] and client.ack, "an ACK")
        assert client.ack is not None
        return client.ack

    def answers_by_then(self, octets: bytes, xid: int) -> list[Message]:
        """Send octets and return what is answered to that xid until a client who asks later has an answer."""
        self._listen()
        before, witness = len(self.heard), DhcpClient(WITNESS, IPXE)
        self.send(octets, witness.mac)
        self.ask(witness.discover())
        replies = [dhcp.decode(frame.payload) for frame in self.heard[before:]]
        return [reply for reply in replies if reply.xid == xid]

    def is_unanswered(self, message: Message | bytes, witness: DhcpClient) -> bool:
        """Return whether a message has no answer by the time that ``witness``, who asks after it, has one."""
        self._listen()
        before = len(self.heard)
        octets = message if isinstance(message, bytes) else dhcp.encode(message)
        self.send(octets, message.chaddr if isinstance(message, Message) else witness.mac)
        self.ask(witness.discover())
        return all(dhcp.decode(frame.payload).xid == witness.xid for frame in self.heard[before:])

    def _listen(self) -> None:
        while True:
            try:
                frame = decode_udp_frame(self._socket.recv(65535))
            except BlockingIOError:
                return
            except MalformedError:
                continue
            if frame.destination_port == dhcp.CLIENT_PORT:
                self.heard.append(frame)
