"""A DHCPv6 client's message, and the way on which it came: RFC 8415 sections 9 and 19.

sent to all servers, in a frame of the client's    Request
brought by relays                                  Request with its link and path
sent to this server alone                          the message, to be refused
"""

from ipaddress import IPv6Address

import msgspec

from panloom.errors import MalformedError, RefusedError
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Association, Kind, Message, Option, RelayMessage

HOP_LIMIT = 8  # RFC 8415 section 7.6


class Request(msgspec.Struct, frozen=True):
    """What a client says, and how it came here."""

    message: Message
    mac: MacAddress
    source: IPv6Address  # the client's link-local address, or the relay's own
    link: IPv6Address | None = None  # the address by which a relay tells the client's link; None: no relay was between
    associations: tuple[Association, ...] = ()
    path: tuple[RelayMessage, ...] = ()  # the relays that brought it, the nearest to us first

    @property
    def duid(self) -> bytes:
        """Option 1, empty where there is none: in an INFORMATION-REQUEST alone."""
        return self.message.option(Option.CLIENT_ID) or b""

    def client(self, association: Association) -> bytes:
        """Return what tells one association of the sender from all others: its DUID and IAID."""
        return self.duid + association.iaid.to_bytes(4, "big")


def unwrap(octets: bytes, source: IPv6Address, mac: MacAddress | None) -> Request | Message:
    """Read a datagram down to the client's message; ``mac`` None: it was sent to this server alone.

    PeerError if it is to be dropped.
    """
    message = dhcpv6.decode(octets)
    path: list[RelayMessage] = []
    while isinstance(message, RelayMessage):
        if message.kind is not Kind.RELAY_FORWARD or len(path) == HOP_LIMIT:
            raise MalformedError(f"{message.kind.name} after {len(path)} relays")
        path.append(message)
        message = dhcpv6.decode(message.option(Option.RELAY_MESSAGE) or b"")
    link = None
    if path:
        link = next((relay.link_address for relay in reversed(path) if int(relay.link_address)), None)
        mac = _mac_behind(path[-1], message)
        if link is None:
            raise RefusedError(f"relayed by {source}, which does not tell the client's link")
        if mac is None:
            raise RefusedError(f"relayed by {source}, and nothing tells the sender's MAC: have it add option 79")
    if mac is None:
        return message
    if mac.is_multicast or not mac.number:
        raise MalformedError(f"{mac} is nobody's own address")
    associations = tuple(dhcpv6.decode_association(value) for value in message.every(Option.IA_NA))
    return Request(message, mac, source, link, associations, tuple(path))


def _mac_behind(relay: RelayMessage, message: Message) -> MacAddress | None:
    """Return the MAC of a client behind a relay: what that one saw (RFC 6939), else what the client says of itself."""
    seen = relay.option(Option.CLIENT_LINK_ADDRESS)
    if seen is not None and seen[:2] == b"\0\1" and len(seen) == 8:
        return MacAddress.from_octets(seen[2:])
    found = dhcpv6.link_address_of(message.option(Option.CLIENT_ID) or b"")
    octets = relay.peer_address.packed
    if found is None and relay.peer_address.is_link_local and octets[11:13] == b"\xff\xfe":
        return MacAddress.from_octets(bytes((octets[8] ^ 2,)) + octets[9:11] + octets[13:])  # RFC 4291 appendix A
    return found
