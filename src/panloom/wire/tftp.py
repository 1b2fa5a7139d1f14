"""TFTP packets: RFC 1350 section 5, options of RFC 2347.

1, 2  | filename | 0 | mode | 0 | name | 0 | value | 0 …   read, write request
3     | block    | 0 … blksize octets                      data
4     | block                                              acknowledgement
5     | code     | text | 0                                error
6     | name | 0 | value | 0 …                             option acknowledgement
"""

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct

import msgspec

from panloom.errors import MalformedError

SERVER_PORT = 69
LARGEST_REQUEST = 512  # RFC 2347, "request packet … maximum 512 octets"

_OPCODE = Struct("!H")
_PAIR = Struct("!HH")


class ErrorCode(IntEnum):
    """RFC 1350 appendix, RFC 2347."""

    NOT_DEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTION_REFUSED = 8


class Request(msgspec.Struct, frozen=True, gc=False):
    """A read or, with ``write``, a write request; mode and option names in lower case (both are case-blind)."""

    filename: str
    mode: str = "octet"
    options: Mapping[str, str] = {}
    write: bool = False


class Data(msgspec.Struct, frozen=True, gc=False):
    """One block; shorter than the negotiated blksize = the last one."""

    block: int
    payload: bytes


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The block arrived; block 0 answers an OptionAck."""

    block: int


class Error(msgspec.Struct, frozen=True, gc=False):
    """Ends the transfer.  ``code`` is an ErrorCode, or whatever number the peer made up."""

    code: int
    text: str = ""


class OptionAck(msgspec.Struct, frozen=True, gc=False):
    """The options that the server accepts, with its values."""

    options: Mapping[str, str]


Packet = Request | Data | Ack | Error | OptionAck


def encode(packet: Packet) -> bytes:
    """Return the packet's octets; ValueError if a text holds a NUL."""
    match packet:
        case Request(filename, mode, options, write):
            return _OPCODE.pack(2 if write else 1) + _texts(filename, mode, *_flat(options))
        case Data(block, payload):
            return encode_data(block, payload)
        case Ack(block):
            return _PAIR.pack(4, block)
        case Error(code, text):
            return _PAIR.pack(5, code) + _texts(text)
        case OptionAck(options):
            return _OPCODE.pack(6) + _texts(*_flat(options))


def encode_data(block: int, payload: bytes | memoryview) -> bytes:
    """Return a DATA packet's octets; what ``encode`` does for Data, without the value between."""
    return _PAIR.pack(3, block) + payload


def decode(octets: bytes) -> Packet:
    """Read a packet; MalformedError says what is wrong with it."""
    if len(octets) < 4:
        raise MalformedError(f"{len(octets)} octets are too few for TFTP")
    opcode, number = _PAIR.unpack_from(octets)
    match opcode:
        case 1 | 2:
            if len(octets) > LARGEST_REQUEST:
                raise MalformedError(f"a request of {len(octets)} octets")
            filename, mode, *rest = _split(octets[2:], at_least=2)
            return Request(filename, mode.lower(), _options(rest), opcode == 2)
        case 3:
            return Data(number, octets[4:])
        case 4 if len(octets) == 4:
            return Ack(number)
        case 5:
            return Error(number, octets[4:].split(b"\0", 1)[0].decode("utf-8", "replace"))
        case 6:
            return OptionAck(_options(_split(octets[2:], at_least=0)))
        case _:
            raise MalformedError(f"opcode {opcode} in {len(octets)} octets")


def _flat(options: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(text for pair in options.items() for text in pair)


def _texts(*texts: str) -> bytes:
    if any("\0" in text for text in texts):
        raise ValueError("a text of TFTP holds no NUL")
    return b"".join(text.encode() + b"\0" for text in texts)


def _split(octets: bytes, *, at_least: int) -> list[str]:
    if octets and octets[-1]:
        raise MalformedError("the last text has no NUL at its end")
    try:
        texts = octets.decode().split("\0")[:-1]
    except UnicodeDecodeError:
        raise MalformedError("a text is not UTF-8") from None
    if len(texts) < at_least:
        raise MalformedError("a request without a mode")
    return texts


def _options(texts: list[str]) -> dict[str, str]:
    names = [name.lower() for name in texts[0::2]]
    if len(texts) % 2:
        raise MalformedError(f"option {names[-1]!r} has no value")
    if len(set(names)) != len(names):
        raise MalformedError("an option is given twice")
    return dict(zip(names, texts[1::2], strict=True))
