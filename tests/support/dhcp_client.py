"""A DHCP client by RFC 2131 section 4.4, as plain as one can be: no clock of its own, one exchange at a time.

DISCOVER ──▶ OFFER ──▶ REQUEST ──▶ ACK: bound
"""

from ipaddress import IPv4Address

from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option

IPXE = {Option.USER_CLASS: b"iPXE", Option.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001"}
PXE_BIOS = {Option.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001", Option.CLIENT_ARCHITECTURE: b"\0\0"}
PXE_EFI = {Option.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003016", Option.CLIENT_ARCHITECTURE: b"\0\7"}
HTTP_EFI = {Option.VENDOR_CLASS: b"HTTPClient:Arch:00016:UNDI:003001", Option.CLIENT_ARCHITECTURE: b"\0\x10"}


class DhcpClient:
    """One client; ``asks()`` is what it sends now, over and over, until something comes back."""

    def __init__(self, mac: str | MacAddress, options: dict[int, bytes] | None = None) -> None:
        self.mac = mac if isinstance(mac, MacAddress) else MacAddress.parse(mac)
        self.options = dict(options or {})
        self.xid = self.mac.number & 0xFFFFFFFF
        self.offer: Message | None = None
        self.ack: Message | None = None
        self.heard: list[Message] = []

    @property
    def address(self) -> IPv4Address | None:
        """The address it is bound to."""
        return self.ack.yiaddr if self.ack else None

    def message(self, kind: MessageType, options: dict[int, bytes] | None = None, **fields: object) -> Message:
        """Return a message of this client's."""
        whole = {Option.MESSAGE_TYPE: bytes((kind,)), **self.options, **(options or {})}
        return Message(op=Op.REQUEST, xid=self.xid, chaddr=self.mac, options=whole, **fields)  # type: ignore[arg-type]

    def discover(self, wanted: IPv4Address | None = None) -> Message:
        """Begin anew."""
        self.offer = self.ack = None
        self.xid = (self.xid + 1) & 0xFFFFFFFF
        return self.message(MessageType.DISCOVER, {Option.REQUESTED_ADDRESS: wanted.packed} if wanted else None)

    def request(self) -> Message:
        """Ask for what was offered."""
        assert self.offer is not None
        server = self.offer.options[Option.SERVER_IDENTIFIER]
        options = {Option.REQUESTED_ADDRESS: self.offer.yiaddr.packed, Option.SERVER_IDENTIFIER: server}
        return self.message(MessageType.REQUEST, options)

    def reboot(self, address: IPv4Address) -> Message:
        """Ask whether a remembered address is still right (INIT-REBOOT)."""
        return self.message(MessageType.REQUEST, {Option.REQUESTED_ADDRESS: address.packed})

    def renew(self) -> Message:
        """Ask for more time (RENEWING)."""
        assert self.ack is not None
        return self.message(MessageType.REQUEST, ciaddr=self.ack.yiaddr)

    def release(self) -> Message:
        """Give the address back."""
        assert self.ack is not None
        address, self.ack, self.offer = self.ack.yiaddr, None, None
        return self.message(MessageType.RELEASE, ciaddr=address)

    def decline(self) -> Message:
        """Refuse the address because somebody else uses it."""
        assert self.ack is not None
        address, self.ack, self.offer = self.ack.yiaddr, None, None
        return self.message(MessageType.DECLINE, {Option.REQUESTED_ADDRESS: address.packed})

    def asks(self) -> bytes | None:
        """Return what to send next in an undisturbed exchange, None when bound."""
        if self.ack is not None:
            return None
        if self.offer is not None:
            return dhcp.encode(self.request())
        return dhcp.encode(self.discover())

    def receive(self, octets: bytes) -> None:
        """Take in a reply; those of other transactions are not for us."""
        reply = dhcp.decode(octets)
        if reply.chaddr != self.mac or reply.xid != self.xid:
            return
        self.heard.append(reply)
        match reply.message_type:
            case MessageType.OFFER if self.ack is None:
                self.offer = reply
            case MessageType.ACK if reply.yiaddr != dhcp.UNSPECIFIED:
                self.ack = reply
            case MessageType.NAK:
                self.offer = self.ack = None
            case _:
                return
