"""curl (HTTP with ranges, TFTP) and tftp-hpa against the real boot services, and the bad input of both protocols."""

import hashlib
import socket
from ipaddress import IPv4Address

import pytest

from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, OptionAck, Request
from support.boot_chassis import MACS, SECRET, boot_services, server, table
from support.dhcp_client import IPXE, DhcpClient
from support.dhcp_wire import DhcpWire
from support.loss import losing

CONTENT = hashlib.sha256(b"kernel").digest() * 40_000  # 1.28 MB, of no whole number of blocks
CHUNKED = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
URL = "http://10.77.0.1:8080"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    files = directory / "files"
    (files / "sub").mkdir(parents=True)
    (files / "kernel").write_bytes(CONTENT)
    (files / "sub" / "empty").write_bytes(b"")
    (files / "out").symlink_to("../secret")
    (directory / "secret").write_bytes(b"outside")
    with boot_services(directory, table(n1=server()), files=files) as running:
        for name, host in (("n1", 51), ("n2", 52), ("stranger", 66)):
            running.chassis[name].ip(f"address add 10.77.0.{host}/24 dev eth0")
        running.directory = directory
        yield running


@pytest.fixture
def services(site):
    site.events.clear()
    site.replace(table(n1=server()))
    return site


def curl(services, *arguments, machine="n1", check=True):
    """Run curl on a machine; return status and body."""
    command = ("curl", "-s", "-m", "10", "--globoff", "--path-as-is", "-w", "\n%{http_code}", *arguments)
    body, _, status = services.chassis[machine].run(*command, check=check).stdout.rpartition(b"\n")
    return int(status), body


def talk(services, request: bytes) -> bytes:
    """Send octets to the HTTP port and return all that comes back until the server closes."""
    with services.chassis["n1"].socket(lambda: socket.create_connection(("10.77.0.1", 8080), 5)) as connection:
        connection.settimeout(15)
        answer = b""
        try:
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        return answer


def boot_url(services, name="n1") -> str:
    """Go through DHCP as iPXE on a machine and return the boot file name it is given."""
    with DhcpWire(services.chassis[name]) as wire:
        return wire.bind(DhcpClient(MACS[name], IPXE)).file.decode()


# ── the script ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_fetches_the_script_from_its_own_address_and_from_no_other(services, caplog):
    caplog.set_level("DEBUG")
    url = boot_url(services)
    status, script = curl(services, url)
    assert status == 200
    assert script.startswith(b"#!ipxe\n")
    assert f"set password {SECRET}".encode() in script
    assert services.wait_for("script").node == "n1"
    status, line = curl(services, url, machine="n2")
    assert (status, line) == (403, b"this boot token is another machine's\n")
    refused = services.wait_for("refused")
    assert (str(refused.mac), refused.address) == (MACS["n1"], IPv4Address("10.77.0.52"))
    assert curl(services, url)[0] == 200
    token = url.rpartition("/")[2]
    assert not [record for record in caplog.records if SECRET in record.getMessage() or token in record.getMessage()]


@pytest.mark.parametrize("token", ["", "x", "A" * 24, "A" * 4000, "%00", "..", "../files/kernel", "%ff%fe"])
def test_another_token_gives_one_line(services, token):
    status, body = curl(services, f"{URL}/boot/{token}")
    assert status == 404
    assert body.count(b"\n") <= 1
    assert SECRET.encode() not in body


def test_a_machine_that_holds_connections_keeps_nobody_else_from_booting(services):
    begun = b"GET /boot/x HTTP/1.1\r\nHost: a\r\n\r\nGET /boot/x HTTP/1.1\r\nHo"  # the second request never ends
    held = []
    try:
        for _ in range(600):
            held.append(services.chassis["n2"].socket(lambda: socket.create_connection(("10.77.0.1", 8080), 5)))
            held[-1].sendall(begun)
            assert held[-1].recv(1024).startswith(b"HTTP/1.1 404")
        assert curl(services, boot_url(services))[0] == 200
        assert curl(services, f"{URL}/files/kernel", machine="n2")[0] == 200  # not even itself
    finally:
        for connection in held:
            connection.close()


def test_a_token_ends_with_the_first_login(services):
    url = boot_url(services)
    node = server()
    services.login_seen(node.initiator, node.epoch)
    assert curl(services, url)[0] == 404


def test_a_token_of_an_epoch_that_is_over_gives_no_secret_but_has_the_machine_ask_again(services):
    url = boot_url(services)
    services.replace(table(n1=server(epoch=2)))
    status, script = curl(services, url)
    assert status == 200
    assert SECRET.encode() not in script
    assert b"chain --replace --autofree ${filename}" in script
    assert services.wait_for("waiting").epoch == 2


def test_a_token_says_nothing_about_a_server_that_has_moved_away(services):
    url = boot_url(services)
    services.replace(table(n2=server(epoch=2, node="n2")))
    status, script = curl(services, url)
    assert (status, SECRET.encode() in script) == (200, False)
    assert b"n1 carries no server" in script


def test_a_stranger_is_told_to_wait_ever_longer(services):
    services.chassis["stranger"].ip("address add 10.77.0.200/24 dev eth0")
    pauses = []
    for _ in range(3):
        script = curl(services, "--interface", "10.77.0.200", boot_url(services, "stranger"), machine="stranger")[1]
        assert SECRET.encode() not in script
        pauses.append(next(line for line in script.splitlines() if line.startswith(b"sleep")))
    assert pauses == [b"sleep 1 ||", b"sleep 2 ||", b"sleep 3 ||"]
    kinds = [event.kind for event in services.events]
    assert kinds == ["discovered", "waiting"] * 3


# ── files by HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_comes_whole(services):
    assert curl(services, f"{URL}/files/kernel") == (200, CONTENT)
    assert curl(services, f"{URL}/files/sub/empty") == (200, b"")
    head = services.chassis["n1"].run("curl", "-sI", f"{URL}/files/kernel").stdout.lower()
    assert f"content-length: {len(CONTENT)}".encode() in head
    assert b"accept-ranges: bytes" in head
    assert b"server:" not in head


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ("0-0", CONTENT[:1]),
        ("100-199", CONTENT[100:200]),
        ("1279000-", CONTENT[1279000:]),
        ("-10", CONTENT[-10:]),
        (f"0-{2**70}", CONTENT),
    ],
)
def test_ranges_of_a_file_come_exactly(services, wanted, content):
    assert curl(services, "-r", wanted, f"{URL}/files/kernel") == (206, content)


def test_a_broken_download_is_taken_up_where_it_stopped(services, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(CONTENT[:700_000])
    services.chassis["n1"].run("curl", "-s", "-C", "-", "-o", part, f"{URL}/files/kernel")
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("wanted", ["9999999-", "x-y", "5-1", "--1"])
def test_ranges_of_no_sense_are_refused(services, wanted):
    assert curl(services, "-H", f"Range: bytes={wanted}", f"{URL}/files/kernel")[0] in (400, 416)


def test_a_thousand_ranges_harm_nobody(services):
    wanted = ",".join(f"{start}-{start + 5}" for start in range(0, 3000, 3))
    status, _ = curl(services, "-H", f"Range: bytes={wanted}", f"{URL}/files/kernel")
    assert status in (200, 206, 400, 416)
    assert curl(services, f"{URL}/files/kernel") == (200, CONTENT)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "../secret",
            "%2e%2e/secret",
            "..%2fsecret",
            "%2e%2e%2fsecret",
            "sub/../../secret",
            "out",
            "sub",
        ),
        *("/etc/passwd", "%2fetc%2fpasswd", "kernel%00", "kernel/", "..%5csecret", "....//secret", "%252e%252e/secret"),
    ],
)
def test_nothing_outside_the_directory_is_served(services, name):
    status, body = curl(services, f"{URL}/files/{name}")
    assert status == 404
    assert b"outside" not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /files/" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /files/kernel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + b"".join(b"H%d: v\r\n" % n for n in range(10_000))
        + b"\r\n",
        b"POST /files/kernel HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + CHUNKED + b"0\r\n\r\nGET /",
        b"GET /files/kernel HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /files/kernel HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\nConnection: close\r\n\r\n",
        b"GET /files/kernel HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"DELETE /files/kernel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /nowhere HTTP/1.0\r\n\r\n",
    ],
)
def test_bad_requests_end_and_harm_nobody(services, request_head):
    answer = talk(services, request_head)
    assert answer == b"" or b" 4" in answer.splitlines()[0] or b" 200" in answer.splitlines()[0]
    assert curl(services, f"{URL}/files/kernel") == (200, CONTENT)


def test_who_never_finishes_a_request_is_dropped(services):
    assert talk(services, b"GET /files/ker") == b""


# ── files by TFTP ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options", [(), ("--tftp-blksize", "1428"), ("--tftp-blksize", "65464"), ("--tftp-no-options",)]
)
def test_curl_fetches_by_tftp(services, tmp_path, options):
    out = tmp_path / "out"
    services.chassis["n1"].run("curl", "-s", "-m", "20", *options, "-o", out, "tftp://10.77.0.1/kernel")
    assert out.read_bytes() == CONTENT
    event = services.wait_for("file")
    assert (event.address, event.why) == (IPv4Address("10.77.0.51"), "kernel")


def test_tftp_hpa_fetches_and_is_refused(services, tmp_path):
    machine, out = services.chassis["n1"], tmp_path / "out"
    machine.run("tftp", "-m", "binary", "10.77.0.1", "-c", "get", "kernel", out)
    assert out.read_bytes() == CONTENT
    machine.run("tftp", "-m", "binary", "10.77.0.1", "-c", "get", "sub/empty", out)
    assert out.read_bytes() == b""
    missing = machine.run("tftp", "-m", "binary", "10.77.0.1", "-c", "get", "missing", tmp_path / "m", check=False)
    assert b"Error code 1: no such file" in missing.stdout + missing.stderr
    written = machine.run("tftp", "-m", "binary", "10.77.0.1", "-c", "put", out, "new", check=False)
    assert b"Error code 2" in written.stdout + written.stderr
    assert not (services.directory / "files" / "new").exists()


@pytest.mark.parametrize("windowsize", [1, 4, 16])
def test_atftp_fetches_in_windows(services, tmp_path, windowsize):
    machine, out = services.chassis["n1"], tmp_path / "out"
    options = ("--option", "blksize 1428", "--option", f"windowsize {windowsize}")
    done = machine.run("atftp", "--trace", *options, "--get", "-r", "kernel", "-l", out, "10.77.0.1")
    assert out.read_bytes() == CONTENT
    said = (done.stdout + done.stderr).decode()
    assert f"received OACK <windowsize: {windowsize}, blksize: 1428" in said
    assert said.count("sent ACK") <= len(CONTENT) / 1428 / windowsize + 2


def test_atftp_fetches_in_windows_over_a_link_that_loses_one_packet_in_twenty(services, tmp_path):
    machine, out = services.chassis["n1"], tmp_path / "out"
    with losing(machine, services.chassis.control, percent=5):
        options = ("--option", "blksize 1428", "--option", "windowsize 8")
        fetch = ("atftp", *options, "--get", "-r", "kernel", "-l", out, "10.77.0.1")
        while (done := machine.run(*fetch, check=False)).returncode:
            assert b"unexpected OACK" in done.stderr  # its ACK 0 was lost, and it takes an OACK only once
    assert out.read_bytes() == CONTENT


class TftpSocket:
    """A UDP socket of n1's that speaks TFTP packets."""

    def __init__(self, services) -> None:
        self._socket = services.chassis["n1"].socket(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(5)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._socket.close()

    def send(self, packet, to=("10.77.0.1", 69)):
        self._socket.sendto(packet if isinstance(packet, bytes) else tftp.encode(packet), to)

    def receive(self):
        octets, peer = self._socket.recvfrom(65536)
        return tftp.decode(octets), peer


@pytest.mark.parametrize(
    "packet",
    [
        *(Request(name) for name in ("../secret", "/etc/passwd", "..\\secret", "%2e%2e/secret", "n" * 480, "out", "")),
        *(Request("kernel", mode) for mode in ("mail", "netascii", "")),
        Request("kernel", write=True),
        *(b"", b"\0", b"\0\1", b"\0\1kernel", b"\0\1kernel\0octet", b"\0\x09\0\0", b"\0\1" + b"n" * 600 + b"\0octet\0"),
        *(Data(1, b"x"), Ack(1), Error(0, "x")),
    ],
)
def test_bad_requests_by_tftp_are_refused_and_harm_nobody(services, packet):
    with TftpSocket(services) as client, TftpSocket(services) as other:
        client.send(packet)
        answer, _ = client.receive()
        assert isinstance(answer, Error)
        other.send(Request("kernel"))
        assert other.receive()[0] == Data(1, CONTENT[:512])


def test_a_transfer_hears_only_its_own_client(services):
    with TftpSocket(services) as client, TftpSocket(services) as thief:
        client.send(Request("kernel", options={"blksize": "1024"}))
        answer, transfer = client.receive()
        assert answer == OptionAck({"blksize": "1024"})
        thief.send(Error(0, "stop"), transfer)
        thief.send(Ack(0), transfer)
        client.send(Request("kernel", options={"blksize": "1024"}))  # the same request once more: no second transfer
        client.send(Ack(0), transfer)
        assert client.receive() == (Data(1, CONTENT[:1024]), transfer)


def test_who_asks_and_vanishes_has_eight_transfers_at_most(services, caplog):
    caplog.set_level("INFO", "panloom.boot")
    clients = [TftpSocket(services) for _ in range(12)]
    try:
        for client in clients:
            client.send(Request("kernel"))
        assert all(client.receive()[0] == Data(1, CONTENT[:512]) for client in clients)
    finally:
        for client in clients:
            client.__exit__()
    pushed_out = [record for record in caplog.records if "asked for more" in record.getMessage()]
    assert len(pushed_out) >= 4
