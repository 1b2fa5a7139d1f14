"""A TFTP transfer under any client, any link and any time."""

import hashlib
from contextlib import suppress

from fuzz.tape import Script, Tape
from fuzz.target import target
from panloom.errors import MalformedError
from panloom.protocol.tftp_server import LARGEST_WINDOWSIZE, open_transfer
from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, OptionAck, Request

CONTENT = hashlib.sha256(b"loader").digest() * 2100  # 67,200 octets
SIZES = (0, 1, 511, 512, 1000, 8 * 65536 // 8, len(CONTENT))
REQUESTS = (
    Request("x"),
    Request("x", "octet", {"tsize": "0", "blksize": "1468"}),
    Request("x", "octet", {"blksize": "8", "windowsize": "16"}),
    Request("x", "octet", {"windowsize": "65535", "timeout": "255"}),
    Request("x", "netascii"),
    Request("x", write=True),
)
WINDOWS_AFTER_SILENCE = 4  # at most
MOST_SILENCES = 40  # of 50 ms at least; the patience with a client is 11 s
ACTS = ("ack the last", "ack the last", "ack the last", "ack another", "octets", "time", "silence", "shrink")


def _seeds():
    for number, request in enumerate(REQUESTS):
        script = Script().pick(SIZES, 1000).pick(REQUESTS, request)
        for _ in range(4):
            script.pick(ACTS, "ack the last")
        yield script.pick(ACTS, "silence").pick(ACTS, "time").number(40 + number).pick(ACTS, "ack the last").octets
    yield Script().pick(SIZES, 512).number(255).piece(tftp.encode(REQUESTS[1])).octets
    yield Script().pick(SIZES, 512).number(0).pick(ACTS, "octets").piece(tftp.encode(Error(0, "no"))).octets


class _Client:
    """Hears what the transfer sends and knows what the file is."""

    def __init__(self, transfer, size, terms):
        self.transfer, self.size, self.terms = transfer, size, terms
        self.sizes_at_hand = size
        self.highest = 0  # block that came, counted without wrapping
        self.now = 0.0
        self.ends = []
        self.hear()

    def hear(self, *, windows=1):
        """Give what is wanted, take what is sent, and check it."""
        packets = 0
        while (wanted := self.transfer.octets_wanted()) is not None:
            assert 0 <= wanted.offset <= wanted.offset + wanted.octets <= self.size
            piece = CONTENT[wanted.offset : wanted.offset + wanted.octets]
            self.transfer.supply(piece[: max(self.sizes_at_hand - wanted.offset, 0)], now=self.now)
        for octets in self.transfer.packets_to_send():
            packets += 1
            match tftp.decode(octets):
                case Data(block, payload):
                    number = self.highest + ((block - self.highest + 0x8000) & 0xFFFF) - 0x8000
                    blksize = self.terms.blksize
                    assert payload == CONTENT[: self.size][(number - 1) * blksize : number * blksize]
                    self.highest = max(self.highest, number)
                case OptionAck() | Error():
                    pass
                case other:
                    raise AssertionError(other)
        assert packets <= windows * self.terms.windowsize + 1
        self.ends += self.transfer.events()
        assert len(self.ends) == self.transfer.is_over
        if self.transfer.is_over:
            assert self.transfer.deadline is None
            assert self.ends[0].why or self.ends[0].sent_octets == self.size
        else:
            assert self.transfer.deadline is not None

    def say(self, packet):
        self.transfer.receive(tftp.encode(packet), now=self.now)
        self.hear()

    def wait(self):
        """Let time pass until the transfer does something."""
        if self.transfer.deadline is not None:
            self.now = max(self.now, self.transfer.deadline)
            self.transfer.handle_timer(now=self.now)
            self.hear(windows=WINDOWS_AFTER_SILENCE if self.terms.windowsize > 1 else 1)


@target(seeds=_seeds)
def transfer(octets):
    """Whatever a client says, each block is the file's own, no packet brings more than a window, silence ends it."""
    tape = Tape(octets)
    size, chosen = tape.pick(SIZES), tape.number()
    request = tape.piece() if chosen & 0x80 else tftp.encode(REQUESTS[chosen % len(REQUESTS)])
    with suppress(MalformedError):
        opened = open_transfer(request, lambda name: size, now=0.0)
        if isinstance(opened, Error):
            tftp.encode(opened)
            return
        client = _Client(opened[0], size, opened[0]._terms)
        assert 1 <= client.terms.windowsize <= LARGEST_WINDOWSIZE
        while not tape.is_over:
            match tape.pick(ACTS):
                case "ack the last":
                    client.say(Ack(client.highest & 0xFFFF))
                case "ack another":
                    client.say(Ack((client.highest + tape.number(2)) & 0xFFFF))
                case "octets":
                    client.transfer.receive(tape.piece(), now=client.now)
                    client.hear()
                case "time":
                    client.now += tape.number() / 100
                case "silence":
                    client.wait()
                case "shrink":
                    client.sizes_at_hand = tape.number(2)
        before = client.now
        for _ in range(MOST_SILENCES):
            client.wait()
        assert client.transfer.is_over
        assert client.now - before <= MOST_SILENCES * 255
