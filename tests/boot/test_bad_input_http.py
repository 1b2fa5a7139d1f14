"""Bad input of HTTP boot, item by item, against the real services: what is sent, which statuses are answered.

After each, a good client fetches a file whole.
"""

import hashlib
import socket

import pytest

from support.boot_chassis import boot_services, server, table
from support.http_wire import head, statuses, talk

CONTENT = hashlib.sha256(b"kernel").digest() * 4000  # 128,000 octets
LAST = len(CONTENT) - 1
CLOSE = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    directory = tmp_path_factory.mktemp("http")
    files = directory / "files"
    files.mkdir()
    (files / "kernel").write_bytes(CONTENT)
    (directory / "secret").write_bytes(b"outside")
    with boot_services(directory, table(n1=server()), files=files) as running:
        for name, host in (("n1", 51), ("n2", 52)):
            running.chassis[name].ip(f"address add 10.77.0.{host}/24 dev eth0")
        yield running


def ask(services, request, machine="n1", **options):
    connection = services.chassis[machine].socket(lambda: socket.create_connection(("10.77.0.1", 8080), 5))
    return talk(connection, request, **options)


@pytest.fixture(autouse=True)
def good(services):
    """Fetch a file after each item, from another machine."""
    yield
    answer = ask(services, head(b"GET /files/kernel HTTP/1.1", CLOSE), "n2", half=False)
    assert statuses(answer[:20]) == [200]
    assert answer.endswith(b"\r\n\r\n" + CONTENT)


def get(*lines, path=b"/files/kernel", **fields):
    return head(b"GET " + path + b" HTTP/1.1", *lines, CLOSE, **fields)


FINE, BAD, ABSENT, METHOD, RANGE = [200], [400], [404], [405], [416]
CUT_OFF = [None]  # 400, which may be lost: the server closes while the rest is still coming
REQUESTS = {
    "a request line of 1 MB": (get(path=b"/files/" + b"x" * 1_000_000), CUT_OFF),
    "a header of 1 MB": (get(b"X: " + b"x" * 1_000_000), CUT_OFF),
    "10,000 headers of 100 octets": (get(*(b"H%d: %s" % (number, b"v" * 90) for number in range(10_000))), CUT_OFF),
    "a header without a name": (get(b": x"), BAD),
    "a header with a space in its name": (get(b"Content Length: 5"), BAD),
    "a header that is folded": (get(b"X: a\r\n b"), FINE),
    "a NUL in a header": (get(b"X: a\0b"), BAD),
    "a bare carriage return": (b"GET /files/kernel HTTP/1.1\rHost: x\r\n\r\n", BAD),
    "both lengths": (head(b"POST /files/kernel HTTP/1.1", b"Content-Length: 5", CHUNKED, CLOSE) + b"0\r\n\r\n", METHOD),
    "two lengths": (get(b"Content-Length: 5", b"Content-Length: 6"), BAD),
    "a negative length": (get(b"Content-Length: -1"), BAD),
    "a length that is no number": (get(b"Content-Length: 0x10"), BAD),
    "a length of 20 digits": (get(b"Content-Length: 99999999999999999999"), FINE),
    "a coding that nobody has": (get(b"Transfer-Encoding: gzip, chunked"), BAD),
    "a chunk of no size": (head(b"POST /files/kernel HTTP/1.1", CHUNKED, CLOSE) + b"zz\r\n", BAD),
    "no host": (get(host=b""), BAD),
    "two hosts": (get(b"Host: y"), BAD),
    "another's host": (get(host=b"Host: 192.0.2.1"), FINE),
    "HTTP/9.9": (head(b"GET /files/kernel HTTP/9.9", CLOSE), FINE),
    "HTTP/0.9": (b"GET /files/kernel\r\n\r\n", BAD),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [404, 400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), BAD),
    "nothing": (b"", []),
    "half a request": (b"GET /files/kernel HT", []),
    "an upgrade": (get(b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Key: x"), FINE),
    "an expectation": (get(b"Expect: 100-continue", b"Content-Length: 5"), FINE),  # the body is of no use
    "HEAD": (head(b"HEAD /files/kernel HTTP/1.1", CLOSE), FINE),
    **{
        f"{method.decode()}": (head(method + b" /files/kernel HTTP/1.1", CLOSE), METHOD)
        for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"G")
    },
    "a method of 100 letters": (head(b"G" * 100 + b" /files/kernel HTTP/1.1", CLOSE), METHOD),
    "OPTIONS *": (head(b"OPTIONS * HTTP/1.1", CLOSE), ABSENT),
    "a whole address": (head(b"GET http://192.0.2.1/files/kernel HTTP/1.1", CLOSE), ABSENT),
    "a request behind a request": (head(b"GET /x HTTP/1.1") * 2 + get(), [404, 404, 200]),
    "a request in the body of another": (
        head(b"POST /files/kernel HTTP/1.1", b"Content-Length: 30") + b"GET /boot/x HTTP/1.1\r\n\r\n".ljust(30) + get(),
        [405, 200],
    ),
}

PATHS = {
    f"{path[:40]!r}": (get(path=path), answers)
    for paths, answers in (
        ((b"/files/../secret", b"/files/%2e%2e/secret", b"/files/..%2fsecret", b"/files/..%5csecret"), ABSENT),
        ((b"/files/kernel%00", b"/files/%00", b"/files//kernel", b"/files/%ff%fe", b"/files/kernel#x"), ABSENT),
        ((b"/files/%252e%252e/secret", b"/files/", b"/files", b"//etc/passwd", b"/../../etc/passwd", b"/"), ABSENT),
        ((b"/boot/", b"/boot/../files/kernel", b"/boot/%00", b"/boot/" + b"A" * 8000, b"/boot/%ff"), ABSENT),
        ((b"/boot/x/y", b"/BOOT/x"), ABSENT),
        ((b"/files/kernel?x=" + b"y" * 8000, b"/files/ke%72nel"), FINE),
    )
    for path in paths
}


PARTIAL = [206]
RANGES = {
    wanted[:30]: (get(b"Range: " + wanted.encode()), answers)
    for wanted, answers in (
        ("bytes=0-", PARTIAL),
        ("bytes=-1", PARTIAL),
        (f"bytes={LAST}-{LAST}", PARTIAL),
        (f"bytes={LAST + 1}-", RANGE),
        (f"bytes={2**70}-", RANGE),
        ("bytes=5-1", BAD),
        ("bytes=--1", RANGE),
        ("bytes=x-y", BAD),
        ("lines=1-2", BAD),
        ("bytes=", BAD),
        ("bytes=0-99,50-149,100-199", PARTIAL),
        ("bytes=" + ",".join(f"{at}-{at + 1}" for at in range(0, 9000, 9)), FINE),
        ("bytes=" + ",".join(["0-"] * 1000), FINE),
    )
}


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        pytest.param(*row, id=f"{family}: {name}")
        for family, rows in (("requests", REQUESTS), ("paths", PATHS), ("ranges", RANGES))
        for name, row in rows.items()
    ],
)
def test_bad_input(services, request_, answers):
    answer = ask(services, request_, half=not answers)
    assert statuses(answer) == answers or (answers == CUT_OFF and statuses(answer) in ([], BAD))
    assert b"outside" not in answer
    assert len(answer) < 2 * len(CONTENT)


def test_nonsense_in_a_body_while_the_answer_is_made_leaves_no_traceback(services, caplog):
    for _ in range(20):
        begun = head(b"POST /files/kernel HTTP/1.1", CHUNKED)
        assert statuses(ask(services, begun + b"zz\r\n", half=False)) in (BAD, METHOD)
    assert [record for record in caplog.records if record.exc_info] == []


def test_1000_connections_that_ask_nothing_are_bounded_and_keep_nobody_from_booting(services):
    held = services.chassis["n1"].socket(lambda: _hold(1000))
    try:
        answer = ask(services, get(), "n2", half=False)
        assert answer.endswith(CONTENT)
        assert ask(services, get(), half=False).endswith(CONTENT)  # not even themselves
    finally:
        for connection in held:
            connection.close()


def _hold(count):
    return [socket.create_connection(("10.77.0.1", 8080), 5) for _ in range(count)]
