"""The TFTP server against a plain client: whatever the link does, the file is whole and right, or there is none."""

import heapq
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.protocol.tftp_server import (
    LARGEST_BLKSIZE,
    LARGEST_WINDOWSIZE,
    READ_AHEAD_OCTETS,
    Transfer,
    TransferEnd,
    open_transfer,
)
from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, ErrorCode, OptionAck, Request
from support.tftp_client import TftpClient


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
        while (wanted := transfer.octets_wanted()) is not None:
            transfer.supply(self.files[name][wanted.offset : wanted.offset + wanted.octets], now=self.now)
        return list(transfer.packets_to_send())

    def fetch(self, options: dict[str, str] | None = None) -> TftpClient:
        """Carry a whole transfer over a good link."""
        transfer, client = self.open(options), TftpClient(options)
        packets = self.sends(transfer)
        while packets:
            answers = [answer for packet in packets if (answer := client.receive(packet))]
            assert len(answers) == 1
            transfer.receive(answers[0], now=self.now)
            packets = self.sends(transfer)
        assert transfer.is_over
        return client


@pytest.mark.parametrize("octets", [0, 1, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blksize": "8"},
        {"blksize": "1468", "tsize": "0"},
        {"windowsize": "4"},
        {"blksize": "8", "windowsize": "64"},
    ],
)
def test_a_file_of_any_size_arrives(octets, options):
    content = bytes(itertools.islice(itertools.cycle(range(251)), octets))
    client = Shelf(file=content).fetch(options)
    assert bytes(client.content) == content
    assert client.done


def test_block_numbers_go_on_after_65535():
    content = bytes(range(256)) * (8 * 65536 // 256) + b"tail"
    assert bytes(Shelf(file=content).fetch({"blksize": "8"}).content) == content
    assert bytes(Shelf(file=content).fetch({"blksize": "8", "windowsize": "33"}).content) == content


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"blksize": "1024", "tsize": "0", "timeout": "3"}, {"blksize": "1024", "tsize": "4", "timeout": "3"}),
        ({"blksize": "65464"}, {"blksize": str(LARGEST_BLKSIZE)}),
        ({"blksize": "8"}, {"blksize": "8"}),
        ({"tsize": "17"}, {"tsize": "4"}),
        ({"windowsize": "16", "blksize": "512"}, {"blksize": "512", "windowsize": "16"}),
        ({"windowsize": "1"}, {"windowsize": "1"}),
        ({"windowsize": "65535"}, {"windowsize": str(LARGEST_WINDOWSIZE)}),
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
        *({"windowsize": value} for value in ("0", "65536", "-1", "4,4")),
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
    assert transfer.events() == (TransferEnd("file", 0, "the client fell silent", is_silence=True),)


@pytest.mark.parametrize(("asked", "waits"), [("1", [0.5, 1, 1, 1]), ("3", [0.5, 1, 2, 3]), ("9", [0.5, 1, 2, 4])])
def test_the_timeout_option_is_the_longest_wait(asked, waits):
    shelf = Shelf(file=b"boot")
    transfer = shelf.open({"timeout": asked})
    seen = []
    for _ in waits:
        shelf.sends(transfer)
        seen.append(transfer.deadline - shelf.now)
        shelf.now = transfer.deadline
        transfer.handle_timer(now=shelf.now)
    assert seen == waits


def test_a_timer_before_its_time_does_nothing():
    shelf = Shelf(file=b"boot")
    transfer = shelf.open()
    shelf.sends(transfer)
    transfer.handle_timer(now=0.49)
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
    shelf = Shelf(file=bytes(READ_AHEAD_OCTETS + 5000))
    transfer, client = shelf.open(), TftpClient()
    shelf.files["file"] = bytes(READ_AHEAD_OCTETS + 600)
    while True:
        (packet,) = shelf.sends(transfer)
        answer = client.receive(packet)
        if answer is None:
            break
        transfer.receive(answer, now=0.0)
    assert client.error.code == ErrorCode.NOT_DEFINED
    assert transfer.events()[0].why == "the file has changed meanwhile"


# ── windows, RFC 7440 ────────────────────────────────────────────────────────────────────────────────────────────────


def windowed(shelf: Shelf, windowsize: int) -> Transfer:
    """A transfer with its first window out, sent 10 ms after the OACK; returns what answers take: 10 ms."""
    transfer = shelf.open({"blksize": "8", "windowsize": str(windowsize)})
    shelf.sends(transfer)
    shelf.now += 0.01
    transfer.receive(tftp.encode(Ack(0)), now=shelf.now)
    return transfer


def acknowledge(shelf: Shelf, transfer: Transfer, block: int, *, after: float = 0.01) -> list[int]:
    """The client acknowledges; return the blocks that it is sent."""
    shelf.now += after
    transfer.receive(tftp.encode(Ack(block)), now=shelf.now)
    return blocks(shelf.sends(transfer))


def blocks(packets: list[bytes]) -> list[int]:
    return [tftp.decode(packet).block for packet in packets]


def test_a_window_goes_out_at_once_and_the_next_after_its_last_block():
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    assert blocks(shelf.sends(transfer)) == [1, 2, 3, 4]
    assert acknowledge(shelf, transfer, 4) == [5, 6, 7, 8]


def test_a_gap_is_repeated_from_the_block_that_is_missed():
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    shelf.sends(transfer)
    assert acknowledge(shelf, transfer, 2) == [3, 4, 5, 6]
    assert acknowledge(shelf, transfer, 6) == [7, 8, 9, 10]


def test_a_first_block_that_is_missed_is_repeated_once():
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    shelf.sends(transfer)
    assert acknowledge(shelf, transfer, 4) == [5, 6, 7, 8]
    assert acknowledge(shelf, transfer, 4) == [5, 6, 7, 8]
    assert [acknowledge(shelf, transfer, 4) for _ in range(3)] == [[], [], []]


def test_an_ack_that_comes_twice_at_once_repeats_nothing():
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    shelf.sends(transfer)
    assert acknowledge(shelf, transfer, 4) == [5, 6, 7, 8]
    assert acknowledge(shelf, transfer, 4, after=0.001) == []


def test_a_client_that_stays_silent_is_sent_what_it_cannot_have_seen():
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    assert blocks(shelf.sends(transfer)) == [1, 2, 3, 4]
    ends = []
    for _ in range(6):
        shelf.now = transfer.deadline
        transfer.handle_timer(now=shelf.now)
        first, *_, last = blocks(shelf.sends(transfer))
        assert first == 1
        ends.append(last)
    assert ends == [4, 8, 12, 16, 16, 16]
    assert acknowledge(shelf, transfer, 8) == [9, 10, 11, 12]


@pytest.mark.parametrize("block", [5, 6, 65535, 32768])
def test_acks_from_outside_the_window_move_nothing(block):
    shelf = Shelf(file=bytes(8 * 100))
    transfer = windowed(shelf, 4)
    shelf.sends(transfer)
    assert acknowledge(shelf, transfer, block) == []


def test_the_wait_for_an_answer_follows_the_answers():
    shelf = Shelf(file=bytes(8 * 1000))
    transfer = windowed(shelf, 1)
    assert blocks(shelf.sends(transfer)) == [1]
    for block in range(1, 40):
        assert acknowledge(shelf, transfer, block, after=0.2)
    assert 0.2 <= transfer.deadline - shelf.now < 0.25
    for waits in (0.5, 1.0, 1.0):  # doubled, but never longer than a second
        shelf.now = transfer.deadline
        transfer.handle_timer(now=shelf.now)
        shelf.sends(transfer)
        assert 0.8 * waits <= transfer.deadline - shelf.now <= waits
    assert acknowledge(shelf, transfer, 40, after=0.01) == [41]  # which of the four sendings it answers, nobody knows
    assert transfer.deadline - shelf.now == 1.0
    assert acknowledge(shelf, transfer, 41, after=0.2) == [42]
    assert transfer.deadline - shelf.now < 0.25


def test_who_answers_late_at_first_is_not_kept_waiting_for_seconds():
    shelf = Shelf(file=bytes(8 * 1000))
    transfer = shelf.open()
    shelf.sends(transfer)
    for _ in range(3):
        shelf.now = transfer.deadline
        transfer.handle_timer(now=shelf.now)
        shelf.sends(transfer)
    assert transfer.deadline - shelf.now == 4.0
    assert acknowledge(shelf, transfer, 1, after=0.01) == [2]
    assert transfer.deadline - shelf.now == 1.0


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize("talkative", [True, False])
def test_a_repeat_too_many_dies_out(windowsize, talkative):
    """The client pauses: everything out is repeated, and arrives twice.  From then on each block is sent once."""
    content = bytes(8 * 2000)
    line = Line(content, {"blksize": "8", "windowsize": str(windowsize)}, talkative=talkative)
    line.pause(at=0.1, seconds=0.3)
    line.run()
    assert bytes(line.client.content) == content
    assert line.sent <= 2001 + 3 * windowsize + 1


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize("talkative", [True, False])
def test_a_link_that_says_everything_twice_is_not_answered_in_kind(windowsize, talkative):
    content = bytes(8 * 2000)
    line = Line(content, {"blksize": "8", "windowsize": str(windowsize)}, talkative=talkative, copies=lambda: 2)
    line.run()
    assert bytes(line.client.content) == content
    assert line.sent <= (2002 if windowsize == 1 else 2 * 2002)


@pytest.mark.parametrize(("windowsize", "seconds", "sent"), [(1, 60, 1.2), (4, 30, 1.4), (16, 20, 2.0), (64, 20, 6.0)])
@pytest.mark.parametrize("talkative", [True, False])
def test_one_packet_in_twenty_lost_costs_little(windowsize, seconds, sent, talkative):
    content = bytes(range(250)) * 64
    chance = random.Random(windowsize)
    line = Line(
        content,
        {"blksize": "8", "windowsize": str(windowsize)},
        talkative=talkative,
        copies=lambda: 0 if chance.random() < 0.05 else 1,
    )
    line.run()
    assert bytes(line.client.content) == content
    assert line.now < seconds
    assert line.sent < sent * 2001
    assert line.longest_pause < 5


CLIENT_SECONDS = 5  # atftp's


class Line:
    """A server and a client five milliseconds apart (10 µs a block), with what happens in between in order of time."""

    def __init__(self, content, options, *, talkative=True, copies=lambda: 1):
        self.shelf = Shelf(file=content)
        self.client = TftpClient(options, talkative=talkative)
        self.transfer = self.shelf.open(options)
        self.copies = copies
        self.sent = 0
        self.longest_pause = 0.0
        self._got_on_at = 0.0
        self._due = []  # (when, number, to the server?, octets)
        self._number = itertools.count()
        self._paused = (0.0, 0.0)
        self._free_at = 0.0
        self._ack_at = math.inf

    @property
    def now(self):
        return self.shelf.now

    def pause(self, *, at, seconds):
        """The client sleeps; what arrives waits for it."""
        self._paused = (at, at + seconds)

    def run(self):
        self._server_sends()
        while not self.transfer.is_over:
            timer = min(self.transfer.deadline or math.inf, self._ack_at)
            if self._due and self._due[0][0] <= timer:
                self.shelf.now, _, to_server, octets = heapq.heappop(self._due)
                if to_server:
                    self.transfer.receive(octets, now=self.now)
                    self._server_sends()
                else:
                    self._client_hears(octets)
            elif timer == self._ack_at:
                self.shelf.now = timer
                self._ack_at = timer + CLIENT_SECONDS
                self._carry(self.client.ack(), True, self.now + 0.0025)
            else:
                self.shelf.now = timer
                self.transfer.handle_timer(now=self.now)
                self._server_sends()
        assert self.transfer.events()[0].why == ""

    def _server_sends(self):
        for packet in self.shelf.sends(self.transfer):
            self.sent += 1
            self._free_at = max(self._free_at, self.now) + 1e-5
            self._carry(packet, False, self._free_at + 0.0025)

    def _client_hears(self, octets):
        start, end = self._paused
        if start <= self.now < end:
            heapq.heappush(self._due, (end, next(self._number), False, octets))
            return
        before = self.client.blocks
        answer = self.client.receive(octets)
        # A client too repeats what may be lost, but some count from any packet: one repeated to is never silent.
        self._ack_at = math.inf if self.client.done else self.now + CLIENT_SECONDS
        if self.client.blocks > before:
            self.longest_pause = max(self.longest_pause, self.now - self._got_on_at)
            self._got_on_at = self.now
        if answer:
            self._carry(answer, True, self.now + 0.0025)

    def _carry(self, octets, to_server, at):
        for _ in range(self.copies()):
            heapq.heappush(self._due, (at, next(self._number), to_server, octets))


@given(
    st.integers(0, 80),
    st.sampled_from(
        [
            {},
            {"blksize": "8"},
            {"blksize": "16", "tsize": "0"},
            {"blksize": "8", "windowsize": "3"},
            {"windowsize": "2"},
        ]
    ),
    st.booleans(),
    st.lists(st.sampled_from(["deliver", "lose", "repeat", "delay", "swap"]), max_size=60),
)
def test_over_a_bad_link_the_file_arrives_whole_or_not_at_all(octets, options, talkative, fates):
    content = bytes(range(octets))
    shelf, client, script = Shelf(file=content), TftpClient(options, talkative=talkative), iter(fates)
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
        shelf.now += 0.001
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
