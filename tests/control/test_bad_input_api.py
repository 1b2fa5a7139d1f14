"""Bad input of the API, item by item, against the real door and documents in a process of their own.

What is sent, what is answered; after each, the status is asked for as if nothing had been.
"""

import itertools
import json
import resource
import socket
from contextlib import ExitStack

import pytest

from support.http_wire import head, statuses, talk
from support.plain_control import CHASSIS
from support.served import served

CLOSE, JSON = b"Connection: close", b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    directory = tmp_path_factory.mktemp("api")
    with served(directory) as path:
        yield path
    assert "Traceback" not in (directory / "log").read_text()


def connected(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


@pytest.fixture(autouse=True)
def good(path):
    """Ask for the status after each item."""
    yield
    answer = talk(connected(path), get(b"/v1/status"), half=False)
    assert statuses(answer) == [200]
    assert json.loads(answer.rpartition(b"\r\n")[2])["state"] == "not redundant"


def get(target, *lines, **fields):
    return head(b"GET " + target + b" HTTP/1.1", *lines, CLOSE, **fields)


def post(target, body, *lines):
    length = b"Content-Length: %d" % len(body)
    return head(b"POST " + target + b" HTTP/1.1", JSON, length, *lines, CLOSE) + body


def plan(body):
    return post(b"/v1/plan", body)


def files(text):
    return plan(json.dumps({"files": [{"name": "a.yaml", "text": text}]}).encode())


FINE, BAD, ABSENT, METHOD, CONFIG = [200], [400], [404], [405], [422]
CUT_OFF = [None]  # 400 or 413, which may be lost: the door closes while the rest is still coming
LAUGHS = "a: &a [x]\n" + "".join(
    f"{to}: &{to} [{', '.join([f'*{of}'] * 9)}]\n" for of, to in itertools.pairwise("abcdefghi")
)
FILE = b'{"name": "a.yaml", "text": ""}'
MANY_HEADERS = [b"H%d: %s" % (number, b"v" * 90) for number in range(10_000)]
REQUESTS = {
    "a request line of 1 MB": (get(b"/v1/" + b"x" * 1_000_000), CUT_OFF),
    "10,000 headers of 100 octets": (
        get(b"/v1/status", *(b"H%d: %s" % (number, b"v" * 90) for number in range(10_000))),
        CUT_OFF,
    ),
    "both lengths": (head(b"POST /v1/plan HTTP/1.1", JSON, b"Content-Length: 2", CHUNKED, CLOSE) + b"0\r\n\r\n", BAD),
    "a negative length": (get(b"/v1/status", b"Content-Length: -1"), BAD),
    "a length of 20 digits": (head(b"POST /v1/plan HTTP/1.1", JSON, b"Content-Length: " + b"9" * 20, CLOSE), []),
    "a body of 9 MiB": (post(b"/v1/plan", b" " * (9 << 20)), CUT_OFF),
    "no host": (get(b"/v1/status", host=b""), BAD),
    "another's host": (get(b"/v1/status", host=b"Host: 192.0.2.1"), FINE),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), BAD),
    "half a request": (b"GET /v1/sta", []),
    "HEAD": (head(b"HEAD /v1/status HTTP/1.1", CLOSE), METHOD),
    "OPTIONS": (head(b"OPTIONS /v1/status HTTP/1.1", CLOSE), METHOD),
    "TRACE": (head(b"TRACE /v1/status HTTP/1.1", CLOSE), METHOD),
    "a request behind a request": (head(b"GET /v1/nothing HTTP/1.1") + get(b"/v1/status"), [404, 200]),
    "another version": (get(b"/v2/status"), ABSENT),
    "a way out": (get(b"/v1/resources/../../etc/passwd"), CONFIG),
    "a kind that is none": (get(b"/v1/resources/%00"), CONFIG),
    "a name that is none": (get(b"/v1/resources/node/%ff%fe%00"), ABSENT),
    "a name of 8,000 letters": (get(b"/v1/resources/node/" + b"n" * 8000), ABSENT),
    "events after -1": (get(b"/v1/events?after=-1"), BAD),
    "events after 2^70": (get(b"/v1/events?after=%d&wait=0" % 2**70), FINE),
    "events after NaN": (get(b"/v1/events?after=NaN"), BAD),
    "a wait of NaN": (get(b"/v1/events?wait=NaN"), BAD),
    "a wait of infinity": (get(b"/v1/events?wait=inf"), BAD),
    "a wait of 10^9": (get(b"/v1/events?wait=1e9"), BAD),
    "a volume without yes": (head(b"DELETE /v1/resources/volume/shop/web1 HTTP/1.1", CLOSE), CONFIG),
    "an act that is none": (post(b"/v1/nodes/n1/power", b'{"action": "explode"}'), BAD),
}

BODIES = {
    "nothing": (plan(b""), BAD),
    "no JSON": (plan(b"{"), BAD),
    "no UTF-8": (plan(b'"\xff\xfe"'), BAD),
    "10,000 lists in each other": (plan(b"[" * 10_000 + b"]" * 10_000), BAD),
    "a million lists that never end": (plan(b"[" * 1_000_000), BAD),
    "10,000 objects in each other": (plan(b'{"files":' * 10_000 + b"1" + b"}" * 10_000), BAD),
    "a key said twice": (plan(b'{"files": [], "files": [%s]}' % FILE), CONFIG),
    "a key too many": (plan(b'{"files": [], "prun": true}'), BAD),
    "a number of 5,000 digits": (plan(b'{"files": %s}' % (b"9" * 5000)), BAD),
    "NaN": (plan(b'{"files": [], "prune": NaN}'), BAD),
    "2^63 for a flag": (plan(b'{"files": [], "prune": %d}' % 2**63), BAD),
    "half a pair of surrogates": (plan(b'{"files": [{"name": "a", "text": "\\ud800"}]}'), CONFIG),
    "a NUL in a text": (files("a\0b"), CONFIG),
    "a NUL in a name": (plan(b'{"files": [{"name": "a\\u0000", "text": "x"}]}'), CONFIG),
    "YAML 10,000 deep": (files("[" * 10_000), CONFIG),
    "a billion laughs": (files(LAUGHS), CONFIG),
    "a set of 10^9 nodes": (files(CHASSIS.replace("n[1-3]", "n[1-1000000000]")), CONFIG),
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        pytest.param(*row, id=f"{family}: {name}")
        for family, rows in (("requests", REQUESTS), ("bodies", BODIES))
        for name, row in rows.items()
    ],
)
def test_bad_input(path, request_, answers):
    answer = talk(connected(path), request_, half=not answers)
    assert statuses(answer) == answers or (answers == CUT_OFF and statuses(answer) in ([], [400], [413]))
    for status in answers:
        if status in (*BAD, *CONFIG) and b"application/json" in answer:
            errors = json.loads(answer.rpartition(b"\r\n")[2])["errors"]
            assert errors
            assert all(error.keys() == {"kind", "where", "why"} for error in errors)


def test_a_change_that_is_sent_twice_is_made_once(path):
    body = json.dumps({"files": [{"name": "a.yaml", "text": CHASSIS, "origin": "/a.yaml"}]}).encode()
    first, second = (
        json.loads(talk(connected(path), post(b"/v1/apply", body), half=False).rpartition(b"\r\n")[2]) for _ in range(2)
    )
    assert (first["add"], second["add"], second["changes"]) == (5, 0, [])
    assert second["revision"] in (0, None)


def test_1000_connections_that_ask_nothing_keep_nobody_from_asking(path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(path)).sendall(b"GET /v1/sta")
        assert statuses(talk(connected(path), get(b"/v1/status"), half=False)) == [200]
