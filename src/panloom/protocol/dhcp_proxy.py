"""Boot information beside another DHCP server, which gives the addresses: PXE 2.1 section 2.2, "proxyDHCP".

                     existing server                      ours
    DISCOVER ──all──▶ OFFER with an address               OFFER without one: what to boot, told to its MAC alone
    REQUEST  ──all──▶ ACK                                 –
    REQUEST to port 4011, from its new address            ACK: what to boot

Only machines that the desk knows are answered, so that other machines of that network boot as they did.  Firmware is
told to start the file and to look for no boot server; some asks port 4011 all the same.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Protocol

import msgspec

from panloom.errors import MalformedError
from panloom.protocol.dhcp_reply import reply_to, to_relay
from panloom.protocol.lease_server import Datagram, DhcpEvent, DhcpEventKind
from panloom.wire import dhcp
from panloom.wire.dhcp import BROADCAST, UNSPECIFIED, Message, MessageType, Op, Option

PXE_PORT = 4011

Source = tuple[IPv4Address, int]
"""Address and port that a datagram came from."""

_START_THE_FILE = dhcp.encode_options({dhcp.PXE_DISCOVERY_CONTROL: bytes((dhcp.PXE_START_THE_FILE,))}) + b"\xff"


class Boot(msgspec.Struct, frozen=True):
    """What a machine is to boot."""

    vendor_class: bytes  # PXEClient or HTTPClient, as its own
    file: bytes
    options: Mapping[int, bytes]


class ProxyDesk(Protocol):
    """Who boots what; its answers may change between two calls."""

    def proxied(self, request: Message, *, now: float) -> Boot | None:
        """Note that the sender boots, and return what; None if it is to hear nothing."""
        ...

    def relays(self, address: IPv4Address) -> bool:
        """Return whether ``address`` is a relay whose requests are answered."""
        ...


class DhcpProxy:
    """Answers of one interface; it keeps nothing."""

    def __init__(self, address: IPv4Address, desk: ProxyDesk) -> None:
        self._address = address
        self._desk = desk
        self._packets: list[Datagram[IPv4Address]] = []
        self._events: list[DhcpEvent] = []

    def receive(self, octets: bytes, *, pxe: Source | None = None, now: float) -> None:
        """Take in one datagram, whatever it holds; ``pxe`` is the source of one that came to port 4011."""
        try:
            request = dhcp.decode(octets)
        except MalformedError as error:
            self._events.append(DhcpEvent(DhcpEventKind.IGNORED, why=str(error)))
            return
        if request.op is not Op.REQUEST or not self._is_for_us(request):
            return
        match request.message_type, pxe:
            case MessageType.DISCOVER, None:
                self._answer(request, MessageType.OFFER, None, now)
            case ((MessageType.REQUEST | MessageType.INFORM), (_, _)):
                self._answer(request, MessageType.ACK, pxe, now)
            case _:
                return

    def packets_to_send(self) -> tuple[Datagram[IPv4Address], ...]:
        """Return the replies that are due, in order."""
        packets, self._packets = tuple(self._packets), []
        return packets

    def events(self) -> tuple[DhcpEvent, ...]:
        """Return what happened since the last call."""
        events, self._events = tuple(self._events), []
        return events

    def _is_for_us(self, request: Message) -> bool:
        server = request.address(Option.SERVER_IDENTIFIER)
        relayed = request.giaddr != UNSPECIFIED
        return server in (None, self._address) and (not relayed or self._desk.relays(request.giaddr))

    def _answer(self, request: Message, kind: MessageType, pxe: Source | None, now: float) -> None:
        boot = self._desk.proxied(request, now=now)
        if boot is None:
            return
        options = {Option.VENDOR_CLASS: boot.vendor_class, Option.VENDOR_SPECIFIC: _START_THE_FILE, **boot.options}
        reply = reply_to(request, kind, self._address, options=options, file=boot.file)
        if pxe is not None:
            self._packets.append(Datagram(dhcp.encode(reply), None, *pxe))
        elif request.giaddr != UNSPECIFIED:
            self._packets.append(to_relay(reply))
        else:  # it has no address yet; what it is told is for nobody else
            self._packets.append(Datagram(dhcp.encode(reply), request.chaddr, BROADCAST, dhcp.CLIENT_PORT))
        self._events.append(DhcpEvent(DhcpEventKind.OFFERED, request.chaddr))
