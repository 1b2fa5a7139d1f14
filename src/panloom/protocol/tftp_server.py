"""The TFTP server's side of one transfer: RFC 1350, RFC 2347–2349, without sockets, clock or files.

    open_transfer(octets, find, now=)   a request came to port 69: a Transfer, or the error to send
    receive(octets, now=)               a packet from the transfer's own client came in
    block_wanted(), supply(…)           the octets of the file that the next packet needs
    handle_timer(now=)                  nothing came for a while; wanted at ``deadline``
    packets_to_send(), events()         DATA, OACK, ERROR; how the transfer ended

                 options                ACK 0
    RRQ ─────────────────────▶ OFFERED ────────┐
     │ none                                    ▼      ACK of the block sent: the next one
     └──────────────────────────────────▶ SENDING ◀──────────┐
                                               ├─────────────┘
                                               ├── ACK of the last block ──▶ DONE
                                               └── ERROR, silence ─────────▶ DONE

Only the ACK of the very block that is out moves on, and only silence repeats a block: an ACK that comes twice never
doubles the traffic (the sorcerer's apprentice, RFC 1123 section 4.2.3.1).  Block numbers go on from 65535 to 0, for
files of any size.
"""

from collections.abc import Callable
from enum import Enum

import msgspec

from panloom.errors import MalformedError
from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, ErrorCode, OptionAck, Request

DEFAULT_BLKSIZE = 512
LARGEST_BLKSIZE = 1468  # 1500 of Ethernet less the headers of IPv4, UDP and DATA: never a fragment
_SMALLEST_BLKSIZE = 8  # RFC 2348
_TIMEOUTS = (1.0, 1.0, 2.0, 4.0, 4.0)  # after each sending of a packet


class File(msgspec.Struct, frozen=True):
    """A file that exists: its name and size."""

    name: str
    octets: int


class Wanted(msgspec.Struct, frozen=True):
    """A piece of the file, ``octets`` long exactly."""

    offset: int
    octets: int


class TransferEnd(msgspec.Struct, frozen=True):
    """The transfer is over; ``why`` is empty when every block was acknowledged."""

    name: str
    sent_octets: int
    why: str = ""


class _State(Enum):
    OFFERED = "options offered"
    SENDING = "sending"
    DONE = "done"


class Transfer:
    """One file on its way to one client."""

    def __init__(self, file: File, options: dict[str, str], *, blksize: int, timeout: float | None, now: float) -> None:
        self._file = file
        self._blksize = blksize
        self._timeouts = (timeout,) * len(_TIMEOUTS) if timeout is not None else _TIMEOUTS
        self._state = _State.OFFERED if options else _State.SENDING
        self._number = 0 if options else 1  # of the packet that is out, counted without wrapping
        self._packet = tftp.encode(OptionAck(options)) if options else b""  # what is out
        self._sendings = 0
        self._now = now
        self._deadline: float | None = None
        self._packets: list[bytes] = []
        self._events: list[TransferEnd] = []
        if options:
            self._send()

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next; None when the transfer is over or waits for its octets."""
        return self._deadline

    @property
    def is_over(self) -> bool:
        """Return whether nothing will be sent any more."""
        return self._state is _State.DONE

    def block_wanted(self) -> Wanted | None:
        """Return the piece of the file that the next block carries, None while none is to be made."""
        if self._state is not _State.SENDING or self._packet:
            return None
        offset = (self._number - 1) * self._blksize
        return Wanted(offset, min(self._blksize, self._file.octets - offset))

    def supply(self, octets: bytes, *, now: float) -> None:
        """Give the piece that ``block_wanted`` named; fewer octets end the transfer: the file has changed."""
        self._now = max(self._now, now)
        wanted = self.block_wanted()
        if wanted is None:
            return
        if len(octets) != wanted.octets:
            self._packets.append(tftp.encode(Error(ErrorCode.NOT_DEFINED, "the file has changed")))
            self._end("the file has changed meanwhile")
            return
        self._packet = tftp.encode(Data(self._number & 0xFFFF, octets))
        self._sendings = 0
        self._send()

    def receive(self, octets: bytes, *, now: float) -> None:
        """Take in one packet of the client, whatever it holds."""
        self._now = max(self._now, now)
        try:
            packet = tftp.decode(octets)
        except MalformedError as error:
            self._packets.append(tftp.encode(Error(ErrorCode.ILLEGAL_OPERATION, "no TFTP")))
            self._end(str(error))
            return
        match self._state, packet:
            case _State.DONE, _:
                return
            case _, Error(code, text):
                self._end(f"the client ended it: {code} {text[:80]!r}")
            case _State.OFFERED, Ack(0):
                self._advance()
            case _State.SENDING, Ack(block) if self._packet and block == self._number & 0xFFFF:
                if self._number * self._blksize > self._file.octets:
                    self._end("")
                else:
                    self._advance()
            case _, Ack():
                return
            case _:
                self._packets.append(tftp.encode(Error(ErrorCode.ILLEGAL_OPERATION, "not in a read")))
                self._end(f"the client sent {type(packet).__name__} in a read")

    def handle_timer(self, *, now: float) -> None:
        """Send what is out once more, or give the client up."""
        self._now = max(self._now, now)
        if self._deadline is None or self._now < self._deadline:
            return
        if self._sendings >= len(self._timeouts):
            self._end("the client fell silent")
        else:
            self._send()

    def abandon(self, why: str) -> None:
        """End the transfer because the client's port is closed or the service stops."""
        if not self.is_over:
            self._end(why)

    def packets_to_send(self) -> tuple[bytes, ...]:
        """Return what is due, in order."""
        packets, self._packets = tuple(self._packets), []
        return packets

    def events(self) -> tuple[TransferEnd, ...]:
        """Return the end of the transfer, once."""
        events, self._events = tuple(self._events), []
        return events

    def _advance(self) -> None:
        self._state = _State.SENDING
        self._number += 1
        self._packet = b""
        self._deadline = None

    def _send(self) -> None:
        self._packets.append(self._packet)
        self._deadline = self._now + self._timeouts[self._sendings]
        self._sendings += 1

    def _end(self, why: str) -> None:
        acknowledged = max(self._number - (1 if why else 0), 0)
        self._events.append(TransferEnd(self._file.name, min(acknowledged * self._blksize, self._file.octets), why))
        self._state = _State.DONE
        self._packet = b""
        self._deadline = None


def open_transfer(octets: bytes, find: Callable[[str], int | None], *, now: float) -> tuple[Transfer, File] | Error:
    """Begin a transfer for what came to port 69; ``find`` returns a file's size, None if there is none to be had.

    Options with values that RFC 2348 and 2349 do not allow are left out of the answer, which means "not accepted".
    Raises MalformedError or, for what is no request at all, returns the error of RFC 1350 section 5.
    """
    packet = tftp.decode(octets)
    if not isinstance(packet, Request):
        return Error(ErrorCode.UNKNOWN_TRANSFER, "no request")
    if packet.write:
        return Error(ErrorCode.ACCESS_VIOLATION, "nothing is written here")
    if packet.mode != "octet":  # netascii would change what is sent; boot files are binary
        return Error(ErrorCode.ILLEGAL_OPERATION, "mode octet only")
    size = find(packet.filename)
    if size is None:
        return Error(ErrorCode.FILE_NOT_FOUND, "no such file")
    accepted: dict[str, str] = {}
    blksize, timeout = DEFAULT_BLKSIZE, None
    for name, value in packet.options.items():
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 12 else -1
        match name:
            case "blksize" if _SMALLEST_BLKSIZE <= number <= 65464:
                blksize = min(number, LARGEST_BLKSIZE)
                accepted[name] = str(blksize)
            case "timeout" if 1 <= number <= 255:
                timeout = float(number)
                accepted[name] = value
            case "tsize" if number >= 0:
                accepted[name] = str(size)
            case _:
                continue
    file = File(packet.filename, size)
    return Transfer(file, accepted, blksize=blksize, timeout=timeout, now=now), file
