"""A plain DHCP server's surroundings: its desk, its durable leases, and clients that hear what it sends."""

from ipaddress import IPv4Address

from panloom.protocol.dhcp_leases import Assignment
from panloom.protocol.dhcp_probes import PROBE_SECONDS
from panloom.protocol.dhcp_server import DhcpServer
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Option
from support.dhcp_client import DhcpClient
from support.lease_site import LeaseSite

OURS = IPv4Address("10.77.0.1")
MASK = {Option.SUBNET_MASK: b"\xff\xff\xff\0"}
RELAY = IPv4Address("10.88.0.1")
A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
STRANGERS = [f"52:54:00:00:01:{number:02x}" for number in range(5)]
NIC = MacAddress.parse("02:50:4c:00:00:01")
NIC_RANGE = (IPv4Address("10.77.0.100"), IPv4Address("10.77.0.119"))
RANGE = (IPv4Address("10.77.0.200"), IPv4Address("10.77.0.202"))


class PaperDesk:
    """Two machines with an address each, a NIC with one for each client, and a range of three for everybody else."""

    def __init__(self) -> None:
        self.fixed = {MacAddress.parse(A): IPv4Address("10.77.0.51"), MacAddress.parse(B): IPv4Address("10.77.0.52")}
        self.unwanted: set[MacAddress] = set()
        self.reserved: frozenset[IPv4Address] = frozenset()

    def assignment(self, request: Message) -> Assignment | None:
        if request.chaddr in self.unwanted:
            return None
        if request.chaddr == NIC:
            return Assignment(*NIC_RANGE, self.reserved, MASK, by_client=True)
        first, last = (self.fixed[request.chaddr],) * 2 if request.chaddr in self.fixed else RANGE
        return Assignment(first, last, self.reserved, MASK, b"http://10.77.0.1/boot/")

    def acknowledged(self, request: Message, address: IPv4Address, *, now: float) -> bytes:
        return b"http://10.77.0.1/boot/token"

    def serves(self, address: IPv4Address) -> bool:
        return str(address).startswith("10.77.0.")

    def relays(self, address: IPv4Address) -> bool:
        return address == RELAY


class Site(LeaseSite):
    """A server, its durable leases, and clients that hear what is sent to their MAC or to all."""

    def __init__(self) -> None:
        self.desk = PaperDesk()
        super().__init__(lambda: DhcpServer(OURS, self.desk), dhcp.decode)

    @property
    def replies(self) -> list[Message]:
        """All that was sent so far."""
        return [dhcp.decode(datagram.octets) for datagram in self.sent]

    def send(self, message: Message | bytes, *, store: bool = True) -> list[Message]:
        """Give the server a message, store its leases, and return its replies."""
        octets = message if isinstance(message, bytes) else dhcp.encode(message)
        self.server.receive(octets, now=self.now)
        replies = self.collect()
        if self.server.probes_to_send():
            replies += self.nobody_answers()
        if store:
            replies += self.store()
        return replies

    def nobody_answers(self) -> list[Message]:
        """Let the time of probing pass."""
        for _ in range(2):
            self.now += PROBE_SECONDS
            self.server.handle_timer(now=self.now)
            self.server.probes_to_send()
        return self.collect()

    def bind(self, client: DhcpClient) -> IPv4Address:
        for message in (client.discover, client.request):
            for reply in self.send(message()):
                client.receive(dhcp.encode(reply))
        assert client.address is not None, self.events[-1]
        return client.address


def kinds(messages: list[Message]) -> list[MessageType]:
    return [message.message_type for message in messages]
