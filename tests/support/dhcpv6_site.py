"""A plain DHCPv6 server's surroundings: its desk, its durable leases, and machines that speak to it."""

from ipaddress import IPv6Address, IPv6Network

from panloom.protocol.dhcpv6_request import Request
from panloom.protocol.dhcpv6_server import Assignment, Dhcpv6Server
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Association, Kind, LeasedAddress, Message, Option, RelayMessage
from panloom.wire.router_advertisement import link_local
from support.lease_site import LeaseSite

OURS = b"\0\4" + bytes(range(16))
LINK = IPv6Network("2001:db8::/64")
FAR = IPv6Address("2001:db8:0:1::1")
A, B = MacAddress(0x52540000000A), MacAddress(0x52540000000B)
STRANGERS = [MacAddress(0x525400000100 + number) for number in range(5)]
RANGE = (IPv6Address("2001:db8::200"), IPv6Address("2001:db8::202"))
FIXED = {A: IPv6Address("2001:db8::51"), B: IPv6Address("2001:db8::52")}
OPTIONS = ((int(Option.DNS_SERVERS), LINK[2].packed),)
FILE = "tftp://[2001:db8::1]/snponly.efi"


class PaperDesk:
    """Two machines with an address each, and a range of three for everybody else."""

    def __init__(self) -> None:
        self.unwanted: set[MacAddress] = set()
        self.fixed = dict(FIXED)

    def assignment(self, request: Request) -> Assignment | None:
        if request.mac in self.unwanted:
            return None
        if request.mac in self.fixed:
            return Assignment(*(self.fixed[request.mac],) * 2, frozenset(), LINK, OPTIONS, FILE)
        return Assignment(*RANGE, frozenset(), LINK, OPTIONS, by_client=True)

    def acknowledged(self, request: Request, address: IPv6Address, *, now: float) -> str:
        return f"http://[2001:db8::1]/boot/{address}"

    def relays(self, link: IPv6Address) -> bool:
        return link == FAR


class Machine:
    """What one client of a machine says, and what it hears."""

    def __init__(self, mac: MacAddress, duid: bytes = b"", iaids: tuple[int, ...] = (1,)) -> None:
        self.mac = mac
        self.duid = duid or b"\0\3\0\1" + mac.to_octets()
        self.iaids = iaids
        self._number = 0

    def message(
        self, kind: Kind, *addresses: IPv6Address, server: bytes = b"", more: dhcpv6.Options = (), client: bool = True
    ) -> Message:
        """Return a message with its associations, each with the address of its turn where there is one."""
        self._number += 1
        options: list[tuple[int, bytes]] = [(Option.CLIENT_ID, self.duid)] if client else []
        if server:
            options.append((Option.SERVER_ID, server))
        for place, iaid in enumerate(self.iaids):
            leased = tuple(LeasedAddress(address) for address in addresses[place : place + 1])
            options.append((Option.IA_NA, dhcpv6.encode_association(Association(iaid, leased))))
        return Message(kind, self._number.to_bytes(3, "big"), (*options, *more))


class Site(LeaseSite):
    """A server, its durable leases, and what it sends."""

    def __init__(self) -> None:
        self.desk = PaperDesk()
        super().__init__(lambda: Dhcpv6Server(OURS, self.desk), dhcpv6.decode)

    def send(self, machine: Machine, message: Message, *, store: bool = True) -> list[Message]:
        """Give the server a machine's message to all servers, store its leases, and return the replies to it."""
        self.server.receive(dhcpv6.encode(message), source=link_local(machine.mac), mac=machine.mac, now=self.now)
        return self.collect() + (self.store() if store else [])

    def bind(self, machine: Machine) -> tuple[IPv6Address, ...]:
        """Solicit and request, and return the addresses that the machine has."""
        (offer,) = self.send(machine, machine.message(Kind.SOLICIT))
        (reply,) = self.send(machine, machine.message(Kind.REQUEST, *addresses(offer), server=OURS))
        return addresses(reply)


def associations(message: Message) -> list[Association]:
    return [dhcpv6.decode_association(value) for value in message.every(Option.IA_NA)]


def addresses(message: Message) -> tuple[IPv6Address, ...]:
    """Return the addresses of a reply that have time left."""
    return tuple(each.address for found in associations(message) for each in found.addresses if each.valid_seconds)


def statuses(message: Message) -> list[int | None]:
    """Return the status of the whole and of each association, None for none."""
    whole = message.option(Option.STATUS_CODE)
    return [
        dhcpv6.decode_status(whole).code if whole is not None else None,
        *(found.status.code if found.status else None for found in associations(message)),
    ]


def relayed(message: bytes, *, link: IPv6Address = FAR, peer: IPv6Address, more: dhcpv6.Options = ()) -> bytes:
    """Return a message as a relay brings it."""
    options = (*more, (int(Option.RELAY_MESSAGE), message))
    return dhcpv6.encode(RelayMessage(Kind.RELAY_FORWARD, 0, link, peer, options))
