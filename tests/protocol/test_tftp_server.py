"""The TFTP server against a plain client: whatever the link does, the file is whole and right, or there is none."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.protocol.tftp_server import LARGEST_BLKSIZE, Transfer, TransferEnd, open_transfer
from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, ErrorCode, OptionAck, Request


class PlainClient:
    """A client by RFC 1350: keeps each block once, acknowledges whatever it has."""

    def __init__(self, blksize: int = 512) -> None:
        self.blksize = blksize
        self.content = bytearray()
        self.blocks = 0
        self.options: dict[str, str] = {}
        self.done = False

    def receive(self, octets: bytes) -> bytes | None:
        """Take in a packet, return the answer."""
        match tftp.decode(octets):
            case OptionAck(options):
                self.options = dict(options)
                self.blksize = int(options.get("blksize", 512))
                return tftp.encode(Ack(0))
            case Data(block, payload) if block == (self.blocks + 1) & 0xFFFF:
                assert not self.done
                self.content += payload
                self.blocks += 1
                self.done = len(payload) < self.blksize
                return tftp.encode(Ack(block))
            case Data(block, _):
                return tftp.encode(Ack(block))
            case other:
                raise AssertionError(other)


class Shelf:
    """Files by name, and the server's clock."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.now = 0.0

    def size(self, name: str) -> int | None:
        return len(self.files[name]) if name in self.files else None

    def open(self, options: dict[str, str] | None = None, name: str = "file") -> Transfer:
        opened = open_transfer(tftp.encode(Request(name, "octet", options or {})), self.size, now=self.now)
        assert not isinstance(opened, Error), opened
        return opened[0]

    def sends(self, transfer: Transfer, name: str = "file") -> list[bytes]:
        """Read what the transfer wants, return what it sends."""
        while (wanted := transfer.block_wanted()) is not None:
            transfer.supply(self.files[name][wanted.offset : wanted.offset + wanted.octets], now=self.now)
        return list(transfer.packets_to_send())

    def fetch(self, options: dict[str, str] | None = None) -> PlainClient:
        """Carry a whole transfer over a good link."""
        transfer, client = self.open(options), PlainClient()
        packets = self.sends(transfer)
        while packets:
            answers = [client.receive(packet) for packet in packets]
            for answer in answers:
                transfer.receive(answer, now=self.now)
            packets = self.sends(transfer)
        assert transfer.is_over
        return client


@pytest.mark.parametrize("octets", [0, 1, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize("options", [{}, {"blksize": "8"}, {"blksize": "1468", "tsize": "0"}])
def test_a_file_of_any_size_arrives(octets, options):
    content = bytes(itertools.islice(itertools.cycle(range(251)), octets))
    client = Shelf(file=content).fetch(options)
    assert bytes(client.content) == content
    assert client.done


def test_block_numbers_go_on_after_65535():
    content = bytes(range(256)) * (8 * 65536 // 256) + b"tail"
    assert bytes(Shelf(file=content).fetch({"blksize": "8"}).content) == content


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"blksize": "1024", "tsize": "0", "timeout": "3"}, {"blksize": "1024", "tsize": "4", "timeout": "3"}),
        ({"blksize": "65464"}, {"blksize": str(LARGEST_BLKSIZE)}),
        ({"blksize": "8"}, {"blksize": "8"}),
        ({"tsize": "17"}, {"tsize": "4"}),
        ({"windowsize": "16", "blksize": "512"}, {"blksize": "512"}),
    ],
)
def test_options_are_answered_with_our_values(asked, answered):
    shelf = Shelf(file=b"boot")
    (packet,) = shelf.sends(shelf.open(asked))
    assert tftp.decode(packet) == OptionAck(answered)


@pytest.mark.parametrize(
    "asked",
    [
        *({"blksize": value} for value in ("0", "7", "65465", "-1", "", "0x200", "1e3", "٥١٢", "9" * 400)),
        *({"timeout": value} for value in ("0", "256", "-1")),
        *({"tsize": value} for value in ("abc", "-1")),
        *({"windowsize": value} for value in ("0", "65535")),
        {f"option{number}": "1" for number in range(30)},
    ],
)
def test_options_of_no_sense_are_not_accepted_and_harm_nobody(asked):
    shelf = Shelf(file=b"boot")
    (packet,) = shelf.sends(shelf.open(asked))
    assert tftp.decode(packet) == Data(1, b"boot")


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (Request("missing"), ErrorCode.FILE_NOT_FOUND),
        (Request("file", write=True), ErrorCode.ACCESS_VIOLATION),
        (Request("file", "netascii"), ErrorCode.ILLEGAL_OPERATION),
        (Request("file", "mail"), ErrorCode.ILLEGAL_OPERATION),
        (Request("file", "\x7f"), ErrorCode.ILLEGAL_OPERATION),
        (Data(1, b""), ErrorCode.UNKNOWN_TRANSFER),
        (Ack(0), ErrorCode.UNKNOWN_TRANSFER),
        (Error(0, ""), ErrorCode.UNKNOWN_TRANSFER),
    ],
)
def test_what_is_no_request_for_a_file_is_refused(packet, code):
    answer = open_transfer(tftp.encode(packet), Shelf(file=b"boot").size, now=0.0)
    assert isinstance(answer, Error)
    assert answer.code == code


@given(st.binary(max_size=200))
def test_any_request_is_answered_or_malformed(octets):
    for request in (octets, b"\0\1" + octets):
        try:
            open_transfer(request, lambda name: 4, now=0.0)
        except MalformedError:
            continue


def test_an_ack_that_comes_twice_never_doubles_the_traffic():
    """The sorcerer's apprentice: block 1 is repeated by a time-out, so both of its ACKs arrive."""
    shelf = Shelf(file=bytes(5000))
    transfer = shelf.open()
    assert len(shelf.sends(transfer)) == 1
    shelf.now += 1
    transfer.handle_timer(now=shelf.now)
    assert len(shelf.sends(transfer)) == 1
    sent = 0
    for block in range(1, 10):
        for _ in range(2):
            transfer.receive(tftp.encode(Ack(block)), now=shelf.now)
            sent += len(shelf.sends(transfer))
    assert sent == 9


@pytest.mark.parametrize("block", [0, 2, 3, 65535])
def test_acks_of_other_blocks_move_nothing(block):
    shelf = Shelf(file=bytes(5000))
    transfer = shelf.open()
    shelf.sends(transfer)
    transfer.receive(tftp.encode(Ack(block)), now=0.0)
    assert shelf.sends(transfer) == []
    assert not transfer.is_over


def test_a_client_that_falls_silent_is_given_up():
    shelf = Shelf(file=bytes(5000))
    transfer = shelf.open()
    sent = len(shelf.sends(transfer))
    while transfer.deadline is not None:
        shelf.now = transfer.deadline
        transfer.handle_timer(now=shelf.now)
        sent += len(shelf.sends(transfer))
    assert sent == 5
    assert transfer.events() == (TransferEnd("file", 0, "the client fell silent"),)


def test_the_timeout_option_is_kept_to():
    shelf = Shelf(file=b"boot")
    transfer = shelf.open({"timeout": "7"})
    shelf.sends(transfer)
    assert transfer.deadline == 7.0


def test_a_timer_before_its_time_does_nothing():
    shelf = Shelf(file=b"boot")
    transfer = shelf.open()
    shelf.sends(transfer)
    transfer.handle_timer(now=0.5)
    assert shelf.sends(transfer) == []


@pytest.mark.parametrize("packet", [tftp.encode(Error(3, "disk full")), b"\0\7", b"", tftp.encode(Data(1, b"x"))])
def test_an_error_or_nonsense_of_the_client_ends_its_transfer_alone(packet):
    shelf = Shelf(file=bytes(5000))
    transfer = shelf.open()
    shelf.sends(transfer)
    transfer.receive(packet, now=0.0)
    assert transfer.is_over
    (end,) = transfer.events()
    assert end.why
    transfer.receive(tftp.encode(Ack(1)), now=0.0)
    assert transfer.events() == ()


def test_a_file_that_shrinks_is_never_taken_for_a_whole_one():
    shelf = Shelf(file=bytes(5000))
    transfer = shelf.open()
    shelf.sends(transfer)
    shelf.files["file"] = bytes(600)
    transfer.receive(tftp.encode(Ack(1)), now=0.0)
    (packet,) = shelf.sends(transfer)
    assert tftp.decode(packet).code == ErrorCode.NOT_DEFINED
    assert transfer.events()[0].why == "the file has changed meanwhile"


@given(
    st.integers(0, 60),
    st.sampled_from([{}, {"blksize": "8"}, {"blksize": "16", "tsize": "0"}]),
    st.lists(st.sampled_from(["deliver", "lose", "repeat", "delay", "swap"]), max_size=40),
)
def test_over_a_bad_link_the_file_arrives_whole_or_not_at_all(octets, options, fates):
    content = bytes(range(octets))
    shelf, client, script = Shelf(file=content), PlainClient(), iter(fates)
    transfer = shelf.open(options)
    to_client, to_server = shelf.sends(transfer), []
    late: list[bytes] = []

    def carry(packets):
        for packet in packets:
            match next(script, "deliver"):
                case "deliver":
                    yield packet
                case "lose":
                    continue
                case "repeat":
                    yield from (packet, packet)
                case "delay":
                    late.append(packet)
                case "swap":
                    yield from (packet, *late)
                    late.clear()

    while not transfer.is_over:
        to_server = [answer for packet in carry(to_client) if (answer := client.receive(packet))]
        late.clear()
        for packet in carry(to_server):
            transfer.receive(packet, now=shelf.now)
        late.clear()
        to_client = shelf.sends(transfer)
        if not to_client and transfer.deadline is not None:
            shelf.now = transfer.deadline
            transfer.handle_timer(now=shelf.now)
            to_client = shelf.sends(transfer)
    (end,) = transfer.events()
    assert bytes(client.content) == content[: len(client.content)]
    if not end.why:
        assert client.done
        assert bytes(client.content) == content
        assert end.sent_octets == octets
