"""Bad input of TFTP, item by item, against the real services: what is sent, what is answered.

After each, a good client fetches a file whole.
"""

import hashlib
import select
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, OptionAck, Request
from support.boot_chassis import boot_services, table
from support.tftp_client import TftpClient
from support.waiting import until

CONTENT = hashlib.sha256(b"loader").digest() * 1000 + b"end"
MOST_TRANSFERS = 512
PORT = ("10.77.0.1", 69)


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tftp")
    files = directory / "files"
    (files / "sub").mkdir(parents=True)
    (files / "loader").write_bytes(CONTENT)
    (files / "out").symlink_to("../secret")
    (directory / "secret").write_bytes(b"outside")
    with (files / "sparse").open("wb") as sparse:
        sparse.truncate(512 * 65537 + 1)
    with boot_services(directory, table(), files=files) as running:
        for name, host in (("n1", 51), ("n2", 52)):
            running.chassis[name].ip(f"address add 10.77.0.{host}/24 dev eth0")
        yield running


class Client:
    """A UDP socket of a machine's."""

    def __init__(self, services, machine="n1", address=""):
        self.socket = services.chassis[machine].socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.bind((address, 0))
        self.socket.settimeout(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, packet, to=PORT):
        self.socket.sendto(packet if isinstance(packet, bytes) else tftp.encode(packet), to)

    def receive(self):
        octets, peer = self.socket.recvfrom(65536)
        return tftp.decode(octets), peer

    def asks(self, packet):
        self.send(packet)
        return self.receive()

    def fetch(self, name, options=None):
        """Fetch a file as a good client does, which asks again where nothing comes."""
        client = TftpClient(options)
        until(lambda: self._is_answered(client.request(name)), "an answer to a request")
        while not client.done:
            octets, peer = self.socket.recvfrom(65536)
            answer = client.receive(octets)
            if answer is not None:
                self.send(answer, peer)
        return bytes(client.content)

    def _is_answered(self, request):
        self.send(request)
        answers = select.poll()
        answers.register(self.socket, select.POLLIN)
        return answers.poll(200)


@pytest.fixture
def bad(services):
    with Client(services) as client:
        yield client


@pytest.fixture(autouse=True)
def good(services):
    """Fetch a file after each item."""
    yield
    with Client(services) as client:
        assert client.fetch("loader", {"blksize": "1428"}) == CONTENT


NOT_FOUND, NOT_ALLOWED, ILLEGAL, UNKNOWN = 1, 2, 4, 5
NAMES = (
    *("../secret", "..", ".", "", "/etc/passwd", "//etc/passwd", "sub/../../secret", "%2e%2e/secret", "..%2fsecret"),
    *("..\\secret", "\\\\server\\share", "C:\\x", "n" * 480, "out", "sub", "sub/", "loader/", "loader/x", "LOADER"),
    *("....//secret", "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/secret", "loader\n", "\u202eredaol", "~/secret"),
)
REFUSED = {
    **{f"the name {name[:30]!r}": (Request(name), NOT_FOUND) for name in NAMES},
    "a NUL within the name": (b"\0\1loader\0/../secret\0octet\0", ILLEGAL),
    "a name of 512 characters": (b"\0\1" + b"n" * 512 + b"\0octet\0", ILLEGAL),
    "a name that is not UTF-8": (b"\0\1\xff\xfe\0octet\0", ILLEGAL),
    "no NUL at the end": (b"\0\1loader\0octet", ILLEGAL),
    "no mode": (b"\0\1loader\0", ILLEGAL),
    "nothing": (b"", ILLEGAL),
    "one octet": (b"\0", ILLEGAL),
    "an opcode alone": (b"\0\1", ILLEGAL),
    **{f"opcode {code}": (code.to_bytes(2, "big") + b"x\0octet\0", ILLEGAL) for code in (0, 7, 9, 255, 65535)},
    **{f"mode {mode!r}": (Request("loader", mode), ILLEGAL) for mode in ("mail", "netascii", "", "octets", "\u0130")},
    "a write": (Request("loader", write=True), NOT_ALLOWED),
    "a write of what is not there": (Request("new", write=True), NOT_ALLOWED),
    "data": (Data(1, b"x" * 512), UNKNOWN),
    "an acknowledgement": (Ack(1), UNKNOWN),
    "an error": (Error(0, "x"), UNKNOWN),
    "an acknowledgement of options": (OptionAck({"blksize": "512"}), UNKNOWN),
    "an option without a value": (b"\0\1loader\0octet\0blksize\0", ILLEGAL),
    "an option said twice": (b"\0\1loader\0octet\0blksize\x00512\0BLKSIZE\x008\0", ILLEGAL),
}


@pytest.mark.parametrize(("packet", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_requests(services, bad, packet, code):
    answer, peer = bad.asks(packet)
    assert (type(answer), answer.code) == (Error, code)
    assert peer == PORT  # no transfer was begun for it
    assert b"outside" not in tftp.encode(answer)


OPTIONS = {
    **{f"blksize {value!r}": ({"blksize": value}, {}) for value in ("0", "7", "65465", "-1", "", "1e3", "9" * 99)},
    "a blksize in digits that are not ASCII": ({"blksize": "\N{FULLWIDTH DIGIT NINE}00"}, {}),
    "the least blksize": ({"blksize": "8"}, {"blksize": "8"}),
    "a blksize beyond a frame": ({"blksize": "65464"}, {"blksize": "1468"}),
    **{f"windowsize {value!r}": ({"windowsize": value}, {}) for value in ("0", "65536", "-1", "x")},
    "a windowsize without end": ({"windowsize": "65535"}, {"windowsize": "64"}),
    **{f"timeout {value!r}": ({"timeout": value}, {}) for value in ("0", "256", "-1", "1.5")},
    "tsize abc": ({"tsize": "abc"}, {}),
    "tsize 2^64": ({"tsize": str(2**64)}, {}),
    "tsize of a write": ({"tsize": "123456"}, {"tsize": str(len(CONTENT))}),
    "a hundred options": ({f"o{number}": "1" for number in range(50)}, {}),
    "good ones among bad ones": ({"x": "1", "blksize": "1024", "timeout": "0"}, {"blksize": "1024"}),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "accepted"), OPTIONS.values(), ids=OPTIONS.keys())
def test_bad_options_are_left_out(services, bad, asked, accepted):
    answer, _ = bad.asks(Request("loader", "octet", asked))
    if accepted:
        assert answer == OptionAck(accepted)
    else:
        assert answer == Data(1, CONTENT[:512])


def test_an_acknowledgement_from_another_port_moves_nothing(services, bad):
    first, peer = bad.asks(Request("loader"))
    with Client(services) as other, Client(services, "n2") as another:
        for client in (other, another):
            client.send(Ack(1), peer)
            client.send(Error(0, "I end it for you"), peer)
    bad.send(Ack(1), peer)
    assert (first, bad.receive()[0]) == (Data(1, CONTENT[:512]), Data(2, CONTENT[512:1024]))


@pytest.mark.parametrize("blocks", [(2, 40, 65535), (0, 0, 0)], ids=["of what is to come", "of what is over"])
def test_acknowledgements_of_other_blocks_move_nothing(services, bad, blocks):
    _, peer = bad.asks(Request("loader"))
    for block in blocks:
        bad.send(Ack(block), peer)
    bad.send(Ack(1), peer)
    assert bad.receive()[0] == Data(2, CONTENT[512:1024])


def test_an_acknowledgement_that_comes_a_hundred_times_is_one(services, bad):
    """The sorcerer's apprentice, RFC 1123 section 4.2.3.1."""
    _, peer = bad.asks(Request("loader"))
    for _ in range(100):
        bad.send(Ack(1), peer)
    assert bad.receive()[0] == Data(2, CONTENT[512:1024])
    bad.send(Ack(2), peer)
    blocks = {bad.receive()[0].block for _ in range(2)}
    assert blocks <= {2, 3}  # the second one once more, if its time was over, and never a hundred times


@pytest.mark.parametrize(
    "packet",
    [Error(3, "full"), Data(1, b"x"), Request("loader"), OptionAck({}), b"\0", b"\xff" * 600],
    ids=["an error", "data", "a request", "options", "one octet", "nonsense"],
)
def test_nonsense_half_way_ends_one_transfer(services, bad, packet):
    with Client(services) as other:
        (_, peer), (_, others) = bad.asks(Request("loader")), other.asks(Request("loader"))
        bad.send(packet, peer)
        if not isinstance(packet, Error):
            assert isinstance(bad.receive()[0], Error)
        other.send(Ack(1), others)
        assert other.receive()[0] == Data(2, CONTENT[512:1024])
        other.send(Error(0, "enough"), others)


def test_blocks_go_on_after_65535(services, bad):
    """32 MiB at 512 octets, in windows so that it takes a moment only."""
    assert len(bad.fetch("sparse", {"windowsize": "64"})) == 512 * 65537 + 1


def test_who_never_answers_is_sent_little(services, bad):
    """A source may be forged: until it answers, it is sent one packet a time-out, and no window."""
    answer, _ = bad.asks(Request("loader", "octet", {"blksize": "1428", "windowsize": "64", "timeout": "255"}))
    assert isinstance(answer, OptionAck)
    bad.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        bad.receive()


def open_files():
    """Return how many files this process, which the services run in, has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_10000_who_ask_and_vanish_keep_nobody_from_booting(services):
    """From 127 addresses, so that none has too many: those who have never answered make room."""
    before, machine = open_files(), services.chassis["stranger"]
    machine.ip("link set lo up")
    machine.ip("address add 10.77.0.66/24 dev eth0")
    machine.ip("route add local 10.77.0.128/25 dev lo")  # each of them is its own
    for _ in range(4):
        machine.socket(ask_and_vanish).close()
        with Client(services) as client:
            assert client.fetch("loader", {"blksize": "1428"}) == CONTENT
    assert open_files() <= before + 2 * MOST_TRANSFERS


def ask_and_vanish():
    """Ask 2,500 times from as many sockets, in the namespace of the thread that calls; return the last one, closed."""
    request = tftp.encode(Request("loader", "octet", {"timeout": "255", "tsize": "0"}))
    for number in range(2500):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as vanishing, suppress(OSError):
            vanishing.bind((f"10.77.0.{128 + number % 127}", 0))
            vanishing.sendto(request, PORT)
    return vanishing
