"""DHCP messages: RFC 2131 section 2, options of RFC 2132, long options of RFC 3396.

      0       1       2       3
      +-------+-------+-------+-------+
    0 | op    | htype | hlen  | hops  |
    4 | xid                           |
    8 | secs          | flags (B)     |
   12 | ciaddr   the client's address, when it has one
   16 | yiaddr   "your" address
   20 | siaddr   next server of the boot
   24 | giaddr   relay agent
   28 | chaddr   16 octets, 6 used by Ethernet
   44 | sname    64 octets, text or more options (option 52)
  108 | file    128 octets, text or more options (option 52)
  236 | 99 130 83 99, then options: code, length, value … 255
      +-------------------------------+

A message that fails a check here is dropped whole: half-understood requests are how one machine gets another's address.
"""

from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress

SERVER_PORT = 67
CLIENT_PORT = 68
UNSPECIFIED = IPv4Address(0)
BROADCAST = IPv4Address("255.255.255.255")

_HEADER = Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = bytes((99, 130, 83, 99))
_BROADCAST = 0x8000
_ETHERNET = (1, 6)  # htype, hlen
_PAD, _OVERLOAD, _END = 0, 52, 255
_SMALLEST = 300  # RFC 951 section 3: BOOTP relays drop less


class Op(IntEnum):
    """RFC 2131 section 2."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Option 53, RFC 2132 section 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options that Panloom reads or writes."""

    SUBNET_MASK = 1
    ROUTER = 3
    DOMAIN_NAME_SERVER = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    ROOT_PATH = 17
    INTERFACE_MTU = 26
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    MESSAGE = 56
    MAXIMUM_SIZE = 57
    VENDOR_CLASS = 60
    CLIENT_IDENTIFIER = 61
    TFTP_SERVER_NAME = 66
    BOOT_FILE_NAME = 67
    USER_CLASS = 77  # RFC 3004; iPXE sends the bare word instead of its length-prefixed list
    RELAY_AGENT = 82  # RFC 3046
    CLIENT_ARCHITECTURE = 93  # RFC 4578 section 2.1
    CLIENT_INTERFACE = 94  # RFC 4578 section 2.2
    CLIENT_MACHINE = 97  # RFC 4578 section 2.3
    IPXE = 175  # options of iPXE's own, encapsulated
    IPXE_INITIATOR = 203  # the initiator's iSCSI name, read by iPXE


PXE_DISCOVERY_CONTROL = 6  # within option 43, PXE 2.1 table 2-2
PXE_START_THE_FILE = 8  # its bit 3: ask no boot server, show no menu
IPXE_NO_PROXY_DHCP = 176  # within option 175: do not wait 3 s for a proxy's offer


class RelayAgent(IntEnum):
    """What stands within option 82, RFC 3046 section 2.0."""

    CIRCUIT_ID = 1
    REMOTE_ID = 2
    LINK_SELECTION = 5  # RFC 3527: the client's subnet, where giaddr is not of it
    SERVER_OVERRIDE = 11  # RFC 5107: whom the client is to take for its server


_OF_ONE_ADDRESS = (RelayAgent.LINK_SELECTION, RelayAgent.SERVER_OVERRIDE)
_LENGTHS: Mapping[int, int] = {
    Option.REQUESTED_ADDRESS: 4,
    Option.LEASE_TIME: 4,
    Option.MESSAGE_TYPE: 1,
    Option.SERVER_IDENTIFIER: 4,
    Option.MAXIMUM_SIZE: 2,
    Option.CLIENT_INTERFACE: 3,
    Option.CLIENT_MACHINE: 17,
}


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One DHCP message of an Ethernet client.

    ``options`` maps a code to its whole value: values that came in pieces are joined (RFC 3396), those from overloaded
    ``file`` and ``sname`` are among them, and these fields are then empty.
    """

    op: Op
    xid: int
    chaddr: MacAddress
    hops: int = 0
    secs: int = 0
    broadcast: bool = False
    ciaddr: IPv4Address = UNSPECIFIED
    yiaddr: IPv4Address = UNSPECIFIED
    siaddr: IPv4Address = UNSPECIFIED
    giaddr: IPv4Address = UNSPECIFIED
    sname: bytes = b""
    file: bytes = b""
    options: Mapping[int, bytes] = {}

    @property
    def message_type(self) -> MessageType | None:
        """Option 53; None in plain BOOTP."""
        value = self.options.get(Option.MESSAGE_TYPE)
        return MessageType(value[0]) if value else None

    def address(self, option: Option) -> IPv4Address | None:
        """Return the value of an option that holds one address, or None if it is absent."""
        value = self.options.get(option)
        return IPv4Address(value) if value is not None else None

    def relayed(self, code: RelayAgent) -> IPv4Address | None:
        """Return the address that a relay says in option 82, None if it says none, or if no relay was between."""
        if self.giaddr == UNSPECIFIED:
            return None
        value = _relay_agent(self.options.get(Option.RELAY_AGENT, b"")).get(code)
        return IPv4Address(value) if value is not None else None


def encode(message: Message) -> bytes:
    """Return at least 300 octets; ValueError if a field is too long or an option is 0, 52 or 255."""
    if len(message.sname) > 64 or len(message.file) > 128:
        raise ValueError("sname takes 64 octets and file 128")
    header = _HEADER.pack(
        message.op,
        *_ETHERNET,
        message.hops,
        message.xid,
        message.secs,
        _BROADCAST if message.broadcast else 0,
        message.ciaddr.packed,
        message.yiaddr.packed,
        message.siaddr.packed,
        message.giaddr.packed,
        message.chaddr.to_octets(),
        message.sname,
        message.file,
        _COOKIE,
    )
    octets = header + encode_options(message.options) + bytes((_END,))
    return octets.ljust(_SMALLEST, b"\0")


def encode_options(options: Mapping[int, bytes]) -> bytes:
    """Return the options one after the other, without END; as they stand within options 43 and 175 too."""
    pieces = []
    for code, value in options.items():
        if code in (_PAD, _OVERLOAD, _END) or not 0 < code < _END:
            raise ValueError(f"option {code} has no value of its own")
        for start in range(0, len(value) or 1, 255):
            piece = value[start : start + 255]
            pieces.append(bytes((code, len(piece))) + piece)
    return b"".join(pieces)


def decode(octets: bytes) -> Message:
    """Read a message; MalformedError says what is wrong with it."""
    if len(octets) < _HEADER.size:
        raise MalformedError(f"{len(octets)} octets are too few for DHCP")
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie = (
        _HEADER.unpack_from(octets)
    )
    if op not in (Op.REQUEST, Op.REPLY):
        raise MalformedError(f"op {op} is neither request nor reply")
    if (htype, hlen) != _ETHERNET:
        raise MalformedError(f"htype {htype} with hlen {hlen} is not Ethernet")
    if cookie != _COOKIE:
        raise MalformedError("the magic cookie is wrong")
    mac = MacAddress.from_octets(chaddr[:6])
    if mac.is_multicast or not mac.number:
        raise MalformedError(f"chaddr {mac} is nobody's own address")
    options = decode_options(octets[_HEADER.size :], "options")
    overload = options.pop(_OVERLOAD, b"\0")
    if overload not in (b"\0", b"\1", b"\2", b"\3"):
        raise MalformedError(f"option 52 is {overload.hex()}")
    # RFC 2131 section 4.1: first the field "file", then "sname".
    if overload[0] & 1:
        _join(options, decode_options(file, "file"))
        file = b""
    if overload[0] & 2:
        _join(options, decode_options(sname, "sname"))
        sname = b""
    _check(options)
    if any(giaddr):
        _check_relay_agent(options)
    return Message(
        op=Op(op),
        xid=xid,
        chaddr=mac,
        hops=hops,
        secs=secs,
        broadcast=bool(flags & _BROADCAST),
        ciaddr=IPv4Address(ciaddr),
        yiaddr=IPv4Address(yiaddr),
        siaddr=IPv4Address(siaddr),
        giaddr=IPv4Address(giaddr),
        sname=sname.split(b"\0", 1)[0],
        file=file.split(b"\0", 1)[0],
        options=options,
    )


def decode_options(octets: bytes, where: str) -> dict[int, bytes]:
    """Read options up to END, joining pieces of one code; ``where`` names the field in a MalformedError."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(octets):
        code = octets[at]
        if code == _END:
            return options
        if code == _PAD:
            at += 1
            continue
        start = at + 2
        end = start + octets[at + 1] if start <= len(octets) else start
        if end > len(octets):
            raise MalformedError(f"option {code} runs past the end of {where}")
        options[code] = options.get(code, b"") + octets[start:end]
        at = end
    raise MalformedError(f"no END in {where}")


def _relay_agent(octets: bytes) -> dict[int, bytes]:
    """Read the sub-options of option 82, which have neither padding nor an end."""
    found, at = {}, 0
    while at < len(octets):
        start = at + 2
        end = start + octets[at + 1] if start <= len(octets) else start
        if end > len(octets):
            raise MalformedError(f"sub-option {octets[at]} runs past the end of option 82")
        found[octets[at]] = octets[start:end]
        at = end
    return found


def _join(options: dict[int, bytes], more: Mapping[int, bytes]) -> None:
    if _OVERLOAD in more:
        raise MalformedError("option 52 within an overloaded field")
    for code, value in more.items():
        options[code] = options.get(code, b"") + value


def _check(options: Mapping[int, bytes]) -> None:
    for code, length in _LENGTHS.items():
        if code in options and len(options[code]) != length:
            raise MalformedError(f"option {code} has {len(options[code])} octets instead of {length}")
    kind = options.get(Option.MESSAGE_TYPE)
    if kind is not None and not MessageType.DISCOVER <= kind[0] <= MessageType.INFORM:
        raise MalformedError(f"message type {kind[0]} is unknown")
    architectures = options.get(Option.CLIENT_ARCHITECTURE, b"\0\0")
    if not architectures or len(architectures) % 2:
        raise MalformedError(f"option 93 has {len(architectures)} octets")


def _check_relay_agent(options: Mapping[int, bytes]) -> None:
    relay_agent = _relay_agent(options.get(Option.RELAY_AGENT, b""))
    for code in _OF_ONE_ADDRESS:
        if len(relay_agent.get(code, bytes(4))) != 4:
            raise MalformedError(
                f"sub-option {int(code)} of option 82 has {len(relay_agent[code])} octets instead of 4"
            )
