"""DHCPv6 messages: RFC 8415 sections 8, 9 and 21, boot options of RFC 5970, link-layer address of RFC 6939.

    of a client or a server                of a relay (types 12 and 13); option 9 holds the other message

      0       1       2       3                 1           1         16             16
    +-------+-------+-------+-------+       +------+-----------+--------------+--------------+----------
    | type  | transaction-id        |       | type | hop-count | link-address | peer-address | options
    +-------+-----------------------+       +------+-----------+--------------+--------------+----------
    | options: code, length (16     |
    | bits each), value …           |
    +-------------------------------+

An option may come several times where its standard says so (an association for each interface of a client); the
others are malformed when they do, and with them the whole message.
"""

from enum import IntEnum
from ipaddress import IPv6Address
from struct import Struct

import msgspec

from panloom.errors import MalformedError
from panloom.values import MacAddress

SERVER_PORT = 547
CLIENT_PORT = 546
ALL_AGENTS = IPv6Address("ff02::1:2")  # relays and servers of the link, RFC 8415 section 7.1
ALL_AGENTS_MAC = MacAddress.parse("33:33:00:01:00:02")  # RFC 2464 section 7
LONGEST_DUID_OCTETS = 130  # RFC 8415 section 11.1: a type, and 128 octets
PXE_ENTERPRISE = 343  # Intel's: in option 16, whose text is that of DHCP's option 60 (UEFI 2.10 section 24.3.3)

_MESSAGE = Struct("!B3s")
_RELAY = Struct("!BB16s16s")
_OPTION = Struct("!HH")
_ASSOCIATION = Struct("!III")
_ADDRESS = Struct("!16sII")
_DUID_LLT, _DUID_LL, _ETHERNET = 1, 3, 1  # RFC 8415 sections 11.2 and 11.4


class Kind(IntEnum):
    """RFC 8415 section 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11
    RELAY_FORWARD = 12
    RELAY_REPLY = 13


class Option(IntEnum):
    """The options that Panloom reads or writes."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_TA = 4
    IA_ADDRESS = 5
    REQUESTED_OPTIONS = 6
    PREFERENCE = 7
    ELAPSED_TIME = 8
    RELAY_MESSAGE = 9
    STATUS_CODE = 13
    RAPID_COMMIT = 14
    USER_CLASS = 15
    VENDOR_CLASS = 16
    INTERFACE_ID = 18
    DNS_SERVERS = 23  # RFC 3646
    DOMAIN_LIST = 24  # RFC 3646
    IA_PD = 25
    BOOT_FILE_URL = 59  # RFC 5970 section 3.1
    BOOT_FILE_PARAMETERS = 60  # RFC 5970 section 3.2
    CLIENT_ARCHITECTURE = 61  # RFC 5970 section 3.3
    CLIENT_INTERFACE = 62  # RFC 5970 section 3.4
    CLIENT_LINK_ADDRESS = 79  # RFC 6939


class StatusCode(IntEnum):
    """RFC 8415 section 21.13."""

    SUCCESS = 0
    UNSPECIFIED_FAILURE = 1
    NO_ADDRESSES_AVAILABLE = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5
    NO_PREFIX_AVAILABLE = 6


Options = tuple[tuple[int, bytes], ...]
"""Code and value of each, in the order of the message."""

_ONCE = frozenset(Option) - {Option.IA_NA, Option.IA_TA, Option.IA_PD, Option.IA_ADDRESS, Option.VENDOR_CLASS}
_LENGTHS = {Option.PREFERENCE: 1, Option.ELAPSED_TIME: 2, Option.RAPID_COMMIT: 0, Option.CLIENT_INTERFACE: 3}


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a client or a server says."""

    kind: Kind
    transaction_id: bytes  # 3 octets
    options: Options = ()

    def option(self, code: int) -> bytes | None:
        """Return the value of the first option of a code, None if there is none."""
        return next((value for each, value in self.options if each == code), None)

    def every(self, code: int) -> tuple[bytes, ...]:
        """Return the values of all options of a code."""
        return tuple(value for each, value in self.options if each == code)


class RelayMessage(msgspec.Struct, frozen=True, gc=False):
    """What a relay forwards, or is to send on; option 9 is the message within."""

    kind: Kind
    hop_count: int
    link_address: IPv6Address
    peer_address: IPv6Address
    options: Options = ()

    def option(self, code: int) -> bytes | None:
        """Return the value of the first option of a code, None if there is none."""
        return next((value for each, value in self.options if each == code), None)


class Status(msgspec.Struct, frozen=True, gc=False):
    """How something went, with a text for people."""

    code: int
    text: str = ""


class LeasedAddress(msgspec.Struct, frozen=True, gc=False):
    """An address with its lifetimes; both 0: the client may not use it any more."""

    address: IPv6Address
    preferred_seconds: int = 0
    valid_seconds: int = 0


class Association(msgspec.Struct, frozen=True, gc=False):
    """An IA_NA: the addresses of one interface of a client, and when it is to renew and rebind them."""

    iaid: int
    addresses: tuple[LeasedAddress, ...] = ()
    status: Status | None = None
    t1_seconds: int = 0
    t2_seconds: int = 0


def encode(message: Message | RelayMessage) -> bytes:
    """Return the datagram; ValueError if an option exceeds 65,535 octets."""
    if isinstance(message, RelayMessage):
        addresses = message.link_address.packed, message.peer_address.packed
        head = _RELAY.pack(message.kind, message.hop_count, *addresses)
    else:
        head = _MESSAGE.pack(message.kind, message.transaction_id)
    return head + encode_options(message.options)


def encode_options(options: Options) -> bytes:
    """Return the options one after the other, as they stand in a message and within options 3 and 5."""
    pieces = []
    for code, value in options:
        if len(value) > 0xFFFF:
            raise ValueError(f"option {code} of {len(value)} octets is too long")
        pieces.append(_OPTION.pack(code, len(value)) + value)
    return b"".join(pieces)


def decode(octets: bytes) -> Message | RelayMessage:
    """Read a datagram; MalformedError says what is wrong with it."""
    if not octets or not Kind.SOLICIT <= octets[0] <= Kind.RELAY_REPLY:
        raise MalformedError(f"message type {octets[0]} is unknown" if octets else "an empty datagram")
    kind = Kind(octets[0])
    head = _RELAY if kind in (Kind.RELAY_FORWARD, Kind.RELAY_REPLY) else _MESSAGE
    if len(octets) < head.size:
        raise MalformedError(f"{len(octets)} octets are too few for {kind.name}")
    options = decode_options(octets[head.size :], kind.name)
    if head is _RELAY:
        _, hop_count, link_address, peer_address = _RELAY.unpack_from(octets)
        return RelayMessage(kind, hop_count, IPv6Address(link_address), IPv6Address(peer_address), options)
    return Message(kind, octets[1:4], options)


def decode_options(octets: bytes, where: str) -> Options:
    """Read options to the end; ``where`` names what they stand in, in a MalformedError."""
    options: list[tuple[int, bytes]] = []
    at = 0
    while at < len(octets):
        start = at + _OPTION.size
        if start > len(octets):
            raise MalformedError(f"an option is cut off in {where}")
        code, length = _OPTION.unpack_from(octets, at)
        at = start + length
        if at > len(octets):
            raise MalformedError(f"option {code} runs past the end of {where}")
        options.append((code, octets[start:at]))
    _check(options)
    return tuple(options)


def encode_association(association: Association) -> bytes:
    """Return the value of option 3."""
    options = [
        (
            int(Option.IA_ADDRESS),
            _ADDRESS.pack(leased.address.packed, leased.preferred_seconds, leased.valid_seconds),
        )
        for leased in association.addresses
    ]
    if association.status is not None:
        options.append((Option.STATUS_CODE, encode_status(association.status)))
    head = _ASSOCIATION.pack(association.iaid, association.t1_seconds, association.t2_seconds)
    return head + encode_options(tuple(options))


def decode_association(octets: bytes) -> Association:
    """Read the value of option 3; MalformedError says what is wrong with it."""
    if len(octets) < _ASSOCIATION.size:
        raise MalformedError(f"IA_NA has {len(octets)} octets")
    iaid, t1, t2 = _ASSOCIATION.unpack_from(octets)
    addresses, status = [], None
    for code, value in decode_options(octets[_ASSOCIATION.size :], "IA_NA"):
        if code == Option.IA_ADDRESS:
            if len(value) < _ADDRESS.size:
                raise MalformedError(f"an address of IA_NA has {len(value)} octets")
            decode_options(value[_ADDRESS.size :], "an address of IA_NA")
            address, preferred, valid = _ADDRESS.unpack_from(value)
            addresses.append(LeasedAddress(IPv6Address(address), preferred, valid))
        elif code == Option.STATUS_CODE:
            status = decode_status(value)
    return Association(iaid, tuple(addresses), status, t1, t2)


def encode_status(status: Status) -> bytes:
    """Return the value of option 13."""
    return int(status.code).to_bytes(2, "big") + status.text.encode()


def decode_status(octets: bytes) -> Status:
    """Read the value of option 13; MalformedError if it has no code, or a text that is no UTF-8."""
    if len(octets) < 2:
        raise MalformedError(f"option 13 has {len(octets)} octets")
    try:
        return Status(int.from_bytes(octets[:2], "big"), octets[2:].decode())
    except UnicodeDecodeError as error:
        raise MalformedError("the text of option 13 is no UTF-8") from error


def encode_vendor_class(*texts: bytes) -> bytes:
    """Return the value of option 16 as PXE and HTTP boot write it, RFC 8415 section 21.16."""
    return PXE_ENTERPRISE.to_bytes(4, "big") + b"".join(len(text).to_bytes(2, "big") + text for text in texts)


def vendor_classes(message: Message) -> tuple[bytes, ...]:
    """Return the texts of every option 16, whosever enterprise number they have; what is cut off is left out."""
    return tuple(text for value in message.every(Option.VENDOR_CLASS) for text in _texts(value[4:]))


def user_classes(message: Message) -> tuple[bytes, ...]:
    """Return the texts of option 15, RFC 8415 section 21.15."""
    return _texts(message.option(Option.USER_CLASS) or b"")


def link_address_of(duid: bytes) -> MacAddress | None:
    """Return the Ethernet address that a DUID is made of (RFC 8415 sections 11.2 and 11.4), None if it is of none."""
    kind, hardware = int.from_bytes(duid[:2], "big"), int.from_bytes(duid[2:4], "big")
    start = {_DUID_LLT: 8, _DUID_LL: 4}.get(kind)
    if start is None or hardware != _ETHERNET or len(duid) != start + 6:
        return None
    return MacAddress.from_octets(duid[start:])


def encode_domain(name: str) -> bytes:
    """Return a domain as option 24 has it, RFC 1035 section 3.1 without compression."""
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def _texts(octets: bytes) -> tuple[bytes, ...]:
    found, at = [], 0
    while at + 2 <= len(octets):
        start = at + 2
        at = start + int.from_bytes(octets[at:start], "big")
        if at <= len(octets):
            found.append(octets[start:at])
    return tuple(found)


def _check(options: list[tuple[int, bytes]]) -> None:
    seen = set()
    for code, value in options:
        if code in _ONCE and code in seen:
            raise MalformedError(f"option {code} comes twice")
        seen.add(code)
        if code in _LENGTHS and len(value) != _LENGTHS[Option(code)]:
            raise MalformedError(f"option {code} has {len(value)} octets instead of {_LENGTHS[Option(code)]}")
        if code in (Option.CLIENT_ID, Option.SERVER_ID) and not 3 <= len(value) <= LONGEST_DUID_OCTETS:
            raise MalformedError(f"option {code} is a DUID of {len(value)} octets")
        if code in (Option.REQUESTED_OPTIONS, Option.CLIENT_ARCHITECTURE) and len(value) % 2:
            raise MalformedError(f"option {code} has {len(value)} octets")
