"""A DHCP server's reply to a request, RFC 2131 section 4.3.1, table 3, and the way on which it reaches the client."""

from collections.abc import Mapping
from ipaddress import IPv4Address

from panloom.protocol.lease_server import Datagram
from panloom.wire import dhcp
from panloom.wire.dhcp import UNSPECIFIED, Message, MessageType, Op, Option, RelayAgent


def reply_to(
    request: Message,
    kind: MessageType,
    server: IPv4Address,
    *,
    yiaddr: IPv4Address = UNSPECIFIED,
    options: Mapping[int, bytes],
    file: bytes = b"",
) -> Message:
    """Return the reply of the server, or of whom a relay says that the client is to take for it.

    A file name stands in option 67, and in the field too where it is short enough.
    """
    identifier = request.relayed(RelayAgent.SERVER_OVERRIDE) or server  # RFC 5107 section 4
    whole: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes((kind,)), Option.SERVER_IDENTIFIER: identifier.packed}
    whole.update(options)
    if file:
        whole[Option.BOOT_FILE_NAME] = file
    for echoed in (Option.CLIENT_IDENTIFIER, Option.CLIENT_MACHINE):  # RFC 6842; RFC 4578 section 2.3
        if echoed in request.options:
            whole[echoed] = request.options[echoed]
    relayed = request.giaddr != UNSPECIFIED
    if relayed and Option.RELAY_AGENT in request.options:
        whole[Option.RELAY_AGENT] = request.options[Option.RELAY_AGENT]  # RFC 3046 section 2.2: the last option
    return Message(
        op=Op.REPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        broadcast=request.broadcast or (kind is MessageType.NAK and relayed),
        ciaddr=request.ciaddr if kind is MessageType.ACK else UNSPECIFIED,
        yiaddr=yiaddr,
        siaddr=server if file else UNSPECIFIED,
        giaddr=request.giaddr,
        file=file if len(file) < 128 else b"",
        options=whole,
    )


def to_relay(reply: Message) -> Datagram[IPv4Address]:
    """Send a reply to the relay that brought the request: who forges another's has sent it to that one."""
    return Datagram(dhcp.encode(reply), None, reply.giaddr, dhcp.SERVER_PORT)
