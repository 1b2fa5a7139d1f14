"""The TFTP server's side of one transfer: RFC 1350, RFC 2347–2349, RFC 7440, without sockets, clock or files.

    open_transfer(octets, find, now=)   a request came to port 69: a Transfer, or the error to send
    receive(octets, now=)               a packet from the transfer's own client came in
    octets_wanted(), supply(…)          the octets of the file that the next packets need
    handle_timer(now=)                  nothing came for a while; wanted at ``deadline``
    packets_to_send(), events()         DATA, OACK, ERROR; how the transfer ended

                 options                ACK 0
    RRQ ─────────────────────▶ OFFERED ────────┐
     │ none                                    ▼      ACK of what is out: the next window
     └──────────────────────────────────▶ SENDING ◀──────────┐
                                               ├─────────────┘
                                               ├── ACK of the last block ──▶ DONE
                                               └── ERROR, silence ─────────▶ DONE

A window is ``windowsize`` blocks after the last one acknowledged, 1 where the client did not ask for more.  What
sends a block again:

    silence                             the window, after the time that RFC 6298 gives; never later than the client
                                        asked for (RFC 2349), which may be seconds for a way of a millisecond (curl)
    more silence                        the window and each time one more after it: a client whose ACK was lost may
                                        ignore what it has, and count its own time-out from the last packet that it
                                        ignored (atftp); only a block that it has not seen makes it speak
    ACK within the window               the client misses the block after it: a new window from there
    ACK of the window before, again     it misses the first block

An ACK that comes sooner after a repeat than any round trip took so far was said before it, and one of the window
before says nothing about blocks that were repeated: neither repeats anything.  So an ACK or block that comes twice
never doubles the traffic for longer than a window (the sorcerer's apprentice, RFC 1123 section 4.2.3.1), and where
windowsize is 1 not even once: there only silence repeats a block.  Block numbers go on from 65535 to 0, for files of
any size.
"""

from collections.abc import Callable, Mapping
from enum import Enum

import msgspec

from panloom.errors import MalformedError
from panloom.protocol.round_trip import RoundTrip
from panloom.wire import tftp
from panloom.wire.tftp import Ack, Error, ErrorCode, OptionAck, Request

DEFAULT_BLKSIZE = 512
LARGEST_BLKSIZE = 1468  # 1500 of Ethernet less the headers of IPv4, UDP and DATA: never a fragment
LARGEST_WINDOWSIZE = 64  # below 100 kB: what receive buffers and switches take at once
READ_AHEAD_OCTETS = 65536  # of the file held for a client
_SMALLEST_BLKSIZE = 8  # RFC 2348
_SOONEST = 0.9  # of the shortest round trip seen: it may yet be a little shorter
_MOST_WINDOWS = 4  # at once
_SENDINGS = 5  # of a packet that is not answered, at least …
_PATIENCE_SECONDS = 11.0  # … and for so long


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
    is_silence: bool = False
    """Whether nothing came back for too long, rather than a word that it is over."""


class Terms(msgspec.Struct, frozen=True):
    """What client and server agreed on; ``timeout`` is the longest wait for an answer, None: what its answers take."""

    blksize: int = DEFAULT_BLKSIZE
    windowsize: int = 1
    timeout: float | None = None


class _State(Enum):
    OFFERED = "options offered"
    SENDING = "sending"
    DONE = "done"


class Transfer:
    """One file on its way to one client."""

    def __init__(self, file: File, options: dict[str, str], terms: Terms, *, now: float) -> None:
        self._file = file
        self._terms = terms
        self._state = _State.OFFERED if options else _State.SENDING
        self._offer = tftp.encode(OptionAck(options)) if options else b""
        self._blocks = file.octets // terms.blksize + 1  # the last one is short, or empty
        self._acknowledged = 0  # blocks, counted without wrapping
        self._sent = 0
        self._next = 1  # the block to send next, up to …
        self._last = 0  # … the end of the window; beyond it nothing is due
        self._repeated = -1  # the highest block that was out when something was sent again; 0 is the OACK
        self._octets = memoryview(b"")  # of the file, from …
        self._octets_at = 0
        self._round_trip = RoundTrip()
        self._sendings = 0  # of this window
        self._backed_off = 0  # silences since the last answer that told the round trip, RFC 6298 section 5.7
        self._sent_at = self._heard_at = self._now = now
        self._repeated_at = float("-inf")
        self._deadline: float | None = None
        self._packets: list[bytes] = []
        self._events: list[TransferEnd] = []
        if options:
            self._packets.append(self._offer)
            self._await_answer()
        else:
            self._send_window(from_block=1)

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next; None when the transfer is over or waits for its octets."""
        return self._deadline

    @property
    def is_over(self) -> bool:
        """Return whether nothing will be sent any more."""
        return self._state is _State.DONE

    @property
    def is_answered(self) -> bool:
        """Return whether the client has acknowledged anything: until then its address may be forged."""
        return self._acknowledged > 0 or (bool(self._offer) and self._state is not _State.OFFERED)

    def octets_wanted(self) -> Wanted | None:
        """Return the piece of the file that the next blocks are cut from, None while none is due."""
        if self._state is not _State.SENDING or self._next > self._last:
            return None
        offset = (self._next - 1) * self._terms.blksize
        ahead = max(READ_AHEAD_OCTETS // self._terms.blksize, 1) * self._terms.blksize
        return Wanted(offset, min(ahead, self._file.octets - offset))

    def supply(self, octets: bytes, *, now: float) -> None:
        """Give the piece that ``octets_wanted`` named; fewer octets end the transfer: the file has changed."""
        self._now = max(self._now, now)
        wanted = self.octets_wanted()
        if wanted is None:
            return
        if len(octets) != wanted.octets:
            self._packets.append(tftp.encode(Error(ErrorCode.NOT_DEFINED, "the file has changed")))
            self._end("the file has changed meanwhile")
            return
        self._octets, self._octets_at = memoryview(octets), wanted.offset
        self._send_what_is_due()

    def receive(self, octets: bytes, *, now: float) -> None:
        """Take in one packet of the client, whatever it holds."""
        self._now = max(self._now, now)
        if self.is_over:
            return
        try:
            packet = tftp.decode(octets)
        except MalformedError as error:
            self._packets.append(tftp.encode(Error(ErrorCode.ILLEGAL_OPERATION, "no TFTP")))
            self._end(str(error))
            return
        match self._state, packet:
            case _State.SENDING, Ack(block):
                self._acknowledge(block)
            case _State.OFFERED, Ack(block):
                if block == 0:
                    self._state = _State.SENDING
                    self._hear()
                    self._send_window(from_block=1)
            case _, Error(code, text):
                self._end(f"the client ended it: {code} {text[:80]!r}")
            case _:
                self._packets.append(tftp.encode(Error(ErrorCode.ILLEGAL_OPERATION, "not in a read")))
                self._end(f"the client sent {type(packet).__name__} in a read")

    def handle_timer(self, *, now: float) -> None:
        """Send what is out once more, or give the client up."""
        self._now = max(self._now, now)
        if self._deadline is None or self._now < self._deadline:
            return
        if self._sendings >= _SENDINGS and self._now - self._heard_at >= _PATIENCE_SECONDS:
            self._end("the client fell silent", is_silence=True)
            return
        self._backed_off += 1
        if self._state is _State.OFFERED:
            self._packets.append(self._offer)
            self._repeated = 0
            self._await_answer()
        else:
            self._repeat_window(windows=min(self._sendings, _MOST_WINDOWS) if self._terms.windowsize > 1 else 1)

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

    def _acknowledge(self, block: int) -> None:
        """Go on after what the client has, or repeat what it misses."""
        ahead = (block - self._acknowledged) & 0xFFFF
        if ahead == 0:
            first_is_missed = self._terms.windowsize > 1 and self._acknowledged > self._repeated
            if first_is_missed and self._may_answer(self._sent_at):
                self._repeat_window()
            return
        if ahead > self._sent - self._acknowledged:
            return  # older than the window, or of a block that was never sent
        self._acknowledged += ahead
        if self._acknowledged == self._blocks:
            self._end("")
        elif self._acknowledged == self._sent:
            self._hear()
            self._send_window(from_block=self._acknowledged + 1)
        elif self._may_answer(self._repeated_at):
            self._hear()
            self._repeat_window()
        else:  # said before the repeat came: nothing is known to be missed
            self._hear()
            self._send_window(from_block=self._sent + 1)

    def _may_answer(self, sent_at: float) -> bool:
        """Return whether what comes now can be an answer to what was sent then."""
        return self._now - sent_at >= _SOONEST * self._round_trip.shortest

    def _hear(self) -> None:
        """Note that the client got on; Karn: what was sent twice says nothing of the way's length."""
        if self._sendings == 1 and self._acknowledged == self._sent > self._repeated:
            self._round_trip.sample(self._now - self._sent_at)
            self._backed_off = 0
        elif not self._round_trip.shortest:  # it lives, though nothing is known of its way: no 4 s for a packet lost
            self._backed_off = min(self._backed_off, 1)
        self._heard_at = self._now
        self._sendings = 0

    def _repeat_window(self, *, windows: int = 1) -> None:
        self._repeated = self._sent
        self._repeated_at = self._now
        self._send_window(from_block=self._acknowledged + 1, windows=windows)

    def _send_window(self, *, from_block: int, windows: int = 1) -> None:
        self._next = from_block
        self._last = min(self._acknowledged + windows * self._terms.windowsize, self._blocks)
        self._deadline = None
        self._send_what_is_due()

    def _send_what_is_due(self) -> None:
        """Cut blocks from the octets at hand, up to the end of the window; the clock runs from the last one."""
        blksize, octets = self._terms.blksize, self._octets
        while self._next <= self._last:
            start = (self._next - 1) * blksize - self._octets_at
            stop = min(start + blksize, self._file.octets - self._octets_at)
            if start < 0 or stop > len(octets):
                return  # wanted
            self._packets.append(tftp.encode_data(self._next & 0xFFFF, octets[start:stop]))
            self._next += 1
        self._sent = max(self._sent, self._last)
        self._await_answer()

    def _await_answer(self) -> None:
        self._sent_at = self._now
        usual, asked = self._round_trip.timeout(self._backed_off), self._terms.timeout
        self._deadline = self._now + (usual if asked is None else min(usual, asked))
        self._sendings += 1

    def _end(self, why: str, *, is_silence: bool = False) -> None:
        sent = min(self._acknowledged * self._terms.blksize, self._file.octets)
        self._events.append(TransferEnd(self._file.name, sent, why, is_silence))
        self._state = _State.DONE
        self._octets = memoryview(b"")
        self._deadline = None


def open_transfer(octets: bytes, find: Callable[[str], int | None], *, now: float) -> tuple[Transfer, File] | Error:
    """Begin a transfer for what came to port 69; ``find`` returns a file's size, None if there is none to be had.

    Options with values that RFC 2348, 2349 and 7440 do not allow are left out of the answer: "not accepted".
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
    terms, accepted = _agree(packet.options, size)
    file = File(packet.filename, size)
    return Transfer(file, accepted, terms, now=now), file


def _agree(options: Mapping[str, str], size: int) -> tuple[Terms, dict[str, str]]:
    """Return the terms of the transfer, and what the OACK says of them."""
    accepted: dict[str, int] = {}
    for name, value in options.items():
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 12 else -1
        match name:
            case "blksize" if _SMALLEST_BLKSIZE <= number <= 65464:
                accepted[name] = min(number, LARGEST_BLKSIZE)
            case "windowsize" if 1 <= number <= 65535:
                accepted[name] = min(number, LARGEST_WINDOWSIZE)
            case "timeout" if 1 <= number <= 255:
                accepted[name] = number
            case "tsize" if number >= 0:
                accepted[name] = size
            case _:
                continue
    terms = Terms(accepted.get("blksize", DEFAULT_BLKSIZE), accepted.get("windowsize", 1), accepted.get("timeout"))
    return terms, {name: str(number) for name, number in accepted.items()}
