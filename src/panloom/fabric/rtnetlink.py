"""rtnetlink(7) message by message, for what pyroute2 has no class for or is slow at: nexthops, FDB entries.

header  = length u32, type u16, flags u16, sequence u32, port 0       request ─▶ acknowledgement, or an error
message = header, a struct by type, attributes                        dump    ─▶ messages … DONE
attribute = length u16, kind u16, octets, padding to four             all in the octet order of this machine
"""

import itertools
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from panloom.errors import KernelError
from panloom.fabric.namespaces import within

CREATE, REPLACE, EXCLUSIVE, APPEND = 0x400, 0x100, 0x200, 0x800  # linux/netlink.h

_REQUEST, _ACKNOWLEDGE, _DUMP, _INTERRUPTED, _WITH_WORDS = 0x001, 0x004, 0x300, 0x010, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_WORDS: Final = 1  # NLMSGERR_ATTR_MSG
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_KIND: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED: Final = 0x8000
_DUMPS: Final = 8  # as often as a dump may be overtaken by changes, before that is an error


class RouteSocket:
    """A connection to rtnetlink of one namespace (None: this thread's); a context manager, for one thread at a time."""

    def __init__(self, namespace: Path | None = None) -> None:
        with within(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def request(self, kind: int, message: bytes, flags: int = 0) -> None:
        """Have the kernel do one thing; OSError with its number and words if it does not."""
        number = self._send(kind, message, flags | _REQUEST | _ACKNOWLEDGE)
        _, answer_flags, octets = next(self._answers(number))
        _raise(octets, answer_flags)

    def get(self, kind: int, message: bytes) -> bytes:
        """Return the one thing asked for, without its header; OSError if there is none."""
        answer, flags, octets = next(self._answers(self._send(kind, message, _REQUEST)))
        if answer == _ERROR:
            _raise(octets, flags)
        return octets

    def dump(self, kind: int, message: bytes) -> list[bytes]:
        """Return all that the kernel lists, each without its header; KernelError if it never holds still for it."""
        for _ in range(_DUMPS):
            found: list[bytes] = []
            whole = True
            for answer, flags, octets in self._answers(self._send(kind, message, _REQUEST | _DUMP)):
                whole = whole and not flags & _INTERRUPTED
                if answer == _ERROR:
                    _raise(octets, flags)
                if answer == _DONE:
                    break
                found.append(octets)
            if whole:
                return found
        raise KernelError(f"rtnetlink: what request {kind} lists changes while it is read, {_DUMPS} times by now")

    def _send(self, kind: int, message: bytes, flags: int) -> int:
        number = next(self._numbers)
        self._socket.send(_HEADER.pack(_HEADER.size + len(message), kind, flags, number, 0) + message)
        return number

    def _answers(self, to: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield type, flags and content of the answers to a request, for as long as the caller asks."""
        while True:
            octets = self._socket.recv(1 << 16)
            at = 0
            while at < len(octets):
                length, kind, flags, number, _ = _HEADER.unpack_from(octets, at)
                if number == to:  # what is left of an answer that nobody read to its end is passed over
                    yield kind, flags, octets[at + _HEADER.size : at + length]
                at += _aligned(length)


def attribute(kind: int, value: bytes | int | str) -> bytes:
    """Return an attribute: octets, a u32, or a string."""
    match value:
        case int():
            value = struct.pack("=I", value)
        case str():
            value = value.encode() + b"\0"
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(octets: bytes) -> dict[int, bytes]:
    """Return kind → octets; of several of a kind the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = octets[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _raise(octets: bytes, flags: int) -> None:
    """Raise what an answer of type ERROR says; nothing for 0, the acknowledgement."""
    (number,) = struct.unpack_from("=i", octets)
    if number == 0:
        return
    words = attributes(octets[4 + _HEADER.size :]).get(_WORDS, b"") if flags & _WITH_WORDS else b""
    said = words.rstrip(b"\0").decode(errors="replace")
    raise OSError(-number, f"{os.strerror(-number)}{f' ({said})' if said else ''}")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
