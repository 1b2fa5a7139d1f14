"""Bad input before full feature phase, CHAP's among it, item by item, against the real storage process.

Each row: the requests of one connection, and what the last of them is answered.  After each, the machine whose disk it
is logs in under CHAP as if nothing had been.
"""

import resource
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from panloom.protocol.chap import response
from panloom.storage import iscsi_connection, remote_transport
from panloom.storage.exports import Access, ExportedLun
from panloom.wire import iscsi
from panloom.wire.iscsi import CONTINUE, FINAL, LoginRequest
from panloom.wire.iscsi_text import decode_binary, decode_text, encode_text
from support.file_target import FileDisk, FileManager, serving
from support.initiator import FIRMWARE_ISID, LINUX_ISID, Initiator, connect
from support.iscsi_ear import in_words
from support.storage_process import StorageProcess
from support.waiting import until

IQN = "iqn.2026-11.dev.panloom:"
USER, SECRET = "shop.web1.1", "correct-horse-battery"
TARGET_SECRET = "horse-staple-correct"
OTHER_USER, OTHER_SECRET = "shop.db1.1", "staple-battery-horse"
NAMES = {"InitiatorName": f"{IQN}node.n1", "TargetName": f"{IQN}shop.web1", "SessionType": "Normal"}
OPEN = NAMES | {"TargetName": f"{IQN}shop.open"}
SECURITY, TO_OPERATIONAL, OPERATIONAL, TO_FULL = 0x00, FINAL | 0x01, 0x04, FINAL | 0x07
STRAIGHT_TO_FULL = FINAL | 0x03
OK, REFUSED, UNPROVED, NOT_ALLOWED, CLOSED = "login 0/00", "login 2/00", "login 2/01", "login 2/02", "closed"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    async def prepare(client):
        rights = {
            "shop.web1": Access(f"{IQN}node.n1", user=USER, secret=SECRET),
            "shop.db1": Access(f"{IQN}node.n2", user=OTHER_USER, secret=OTHER_SECRET),
            "shop.open": Access(f"{IQN}node.n1"),
            "shop.both": Access(
                f"{IQN}node.n1", user=USER, secret=SECRET, target_user="shop", target_secret=TARGET_SECRET
            ),
        }
        for name, access in rights.items():
            await client.create_volume(name, None, 1 << 20)
            await client.export(f"{IQN}{name}", [ExportedLun(0, volume=name)], 1, access)

    with StorageProcess(tmp_path_factory.mktemp("storage")) as process:
        process.run(prepare)
        yield process
        process.end()
        assert "Traceback" not in process.log.read_text()


@pytest.fixture
def bad(process):
    with Initiator(connect(f"127.0.0.1:{process.port}"), NAMES) as initiator:
        yield initiator


@pytest.fixture(autouse=True)
def good(request):
    """Log in under CHAP after each item."""
    yield
    if "process" in request.fixturenames:
        process = request.getfixturevalue("process")
        with Initiator(connect(f"127.0.0.1:{process.port}"), NAMES) as initiator:
            assert initiator.log_in_with(USER, SECRET) == (0, 0)


def text(*pairs, **keys):
    return encode_text([*pairs, *keys.items()])


def login(flags, data=b"", **fields):
    fields = {"isid": LINUX_ISID, "initiator_task_tag": 1, "cmd_sn": 1, **fields}
    return iscsi.encode(LoginRequest(flags=flags, data=data, **fields))


def header(opcode, *, flags=0x87, ahs=0, data=0):
    return struct.pack(">BBxxI", opcode, flags, ahs << 24 | data).ljust(48, b"\0")


def answers_to(initiator, *requests):
    """Send one request after the other; return the last answer in words, and its keys."""
    words, keys = "", {}
    for octets in requests:
        try:
            initiator.sock.sendall(octets)
        except OSError:
            return CLOSED, {}
        answer = initiator.receive()
        words, keys = in_words(answer), decode_text(answer.data) if answer else {}
    return words, keys


# ── headers and stages ───────────────────────────────────────────────────────────────────────────────────────────────

HELLO = text(**NAMES, AuthMethod="CHAP")
OPEN_HELLO = text(**OPEN)

HEADERS = {
    "a data segment of 16 MiB": ([header(0x43, data=0xFFFFFF)], CLOSED),
    "a data segment beyond 8,192 octets": ([header(0x43, data=8196) + bytes(8196)], CLOSED),
    "an additional header": ([header(0x43, ahs=1) + bytes(4)], CLOSED),
    "the longest additional header": ([header(0x43, ahs=255) + bytes(1020)], CLOSED),
    "a SCSI command": ([header(0x01)], CLOSED),
    "a login that is not immediate": ([bytes((0x03,)) + login(TO_FULL, OPEN_HELLO)[1:]], OK),
    **{f"opcode {opcode:#04x}": ([header(opcode)], CLOSED) for opcode in (0, 2, *range(4, 0x10), *range(0x1C, 0x40))},
    "current stage 2": ([login(0x08, HELLO)], REFUSED),
    "current stage 3": ([login(0x0C, HELLO)], REFUSED),
    "next stage 2": ([login(FINAL | 0x02, HELLO)], REFUSED),
    "a stage back": ([login(FINAL | 0x04, OPEN_HELLO)], REFUSED),
    "the same stage again": ([login(FINAL | 0x05, OPEN_HELLO)], REFUSED),
    "from operational to security": (
        [login(TO_OPERATIONAL, OPEN_HELLO), login(SECURITY)], REFUSED
    ),
    "transit and more to come": ([login(FINAL | CONTINUE | 0x01, HELLO)], REFUSED),
    "version 1 at least": ([login(TO_FULL, OPEN_HELLO, version_min=1, version_max=1)], "login 2/05"),
    "version 255 at least": ([login(TO_FULL, OPEN_HELLO, version_min=255, version_max=255)], "login 2/05"),
    "version 255 at most": ([login(TO_FULL, OPEN_HELLO, version_max=255)], OK),
    "a session that is not there": ([login(TO_FULL, OPEN_HELLO, tsih=7)], "login 2/0A"),
    "another ISID half way": ([login(SECURITY, HELLO), login(SECURITY, isid=FIRMWARE_ISID)], "login 2/0B"),
    "another task tag half way": ([login(SECURITY, HELLO), login(SECURITY, initiator_task_tag=2)], "login 2/0B"),
    "another connection half way": ([login(SECURITY, HELLO), login(SECURITY, cid=2)], "login 2/0B"),
    "a login without end": ([login(OPERATIONAL, OPEN_HELLO), *[login(OPERATIONAL)] * 24], REFUSED),
}  # fmt: skip

# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LONGEST = "iqn.2026-11.dev.panloom:" + "n" * (223 - 24)
PIECES = [login(CONTINUE, b"X" * 8192) for _ in range(8)]
BAD_TEXT = {
    "64 KiB without NUL": ([*PIECES[:3]], REFUSED),
    "a key of 8 KiB without NUL": ([login(TO_FULL, b"K" * 8192)], REFUSED),
    "a key said twice": ([login(TO_FULL, OPEN_HELLO + b"InitiatorName=iqn.2026-11.x:b\0")], REFUSED),
    "a key said twice, over two requests": (
        [login(OPERATIONAL, OPEN_HELLO), login(OPERATIONAL, text(InitiatorName=f"{IQN}node.n2"))], REFUSED
    ),
    "no =": ([login(TO_FULL, b"InitiatorName\0")], REFUSED),
    "no key": ([login(TO_FULL, b"=x\0")], REFUSED),
    "a key of 64 characters": ([login(TO_FULL, OPEN_HELLO + b"K" * 64 + b"=x\0")], REFUSED),
    "no UTF-8": ([login(TO_FULL, OPEN_HELLO + b"X-a=\xff\xfe\0")], REFUSED),
    "a NUL in a name": ([login(TO_FULL, text(**OPEN | {"InitiatorName": f"{IQN}node.n1\0x"}))], REFUSED),
    "a name of 224 octets": ([login(TO_FULL, text(**OPEN | {"InitiatorName": LONGEST + "n"}))], REFUSED),
    "a name of 223 octets that nobody has": ([login(TO_FULL, text(**OPEN | {"InitiatorName": LONGEST}))], NOT_ALLOWED),
    "a name beyond ASCII": ([login(TO_FULL, text(**OPEN | {"InitiatorName": f"{IQN}nöde"}))], REFUSED),
    "a name of no form": ([login(TO_FULL, text(**OPEN | {"InitiatorName": "node.n1"}))], REFUSED),
    "no names": ([login(TO_FULL)], "login 2/07"),
    "no target": ([login(TO_FULL, text(InitiatorName=f"{IQN}node.n1"))], "login 2/07"),
    "a session of an unknown type": ([login(TO_FULL, text(**OPEN | {"SessionType": "Holiday"}))], "login 2/09"),
    **{
        f"MaxRecvDataSegmentLength={octets}": (
            [login(TO_FULL, text(**OPEN, MaxRecvDataSegmentLength=str(octets)))], REFUSED
        )
        for octets in (0, 511, 0x1000000, -1, "")
    },
}  # fmt: skip


def offered(key, value):
    """Return the row of a key whose value has an answer and ends nothing."""
    return [login(TO_FULL, text(**OPEN, **{key: value}))], key


ANSWERS = {
    "an unknown key": (*offered("X-com.example.colour", "blue"), "NotUnderstood"),
    "-1": (*offered("MaxBurstLength", "-1"), "Reject"),
    "2^64": (*offered("MaxBurstLength", str(2**64)), "Reject"),
    "2^64 in hex": (*offered("MaxBurstLength", "0x10000000000000000"), "Reject"),
    "hex": (*offered("MaxBurstLength", "0x40000"), "262144"),
    "0x and nothing": (*offered("MaxBurstLength", "0x"), "Reject"),
    "base64 for a number": (*offered("MaxBurstLength", "0bAAQA"), "Reject"),
    "a number with a point": (*offered("FirstBurstLength", "65536.0"), "Reject"),
    "a number below the least": (*offered("FirstBurstLength", "511"), "Reject"),
    "neither yes nor no": (*offered("ImmediateData", "maybe"), "Reject"),
    "a thousand digests": (*offered("HeaderDigest", ",".join([f"d{n}" for n in range(1000)] + ["None"])), "None"),
    "digests in order": (*offered("DataDigest", "CRC32C,None"), "CRC32C"),
    "a digest that nobody does": (*offered("HeaderDigest", "CRC64"), "Reject"),
    "an empty list": (*offered("DataDigest", ""), "Reject"),
}


@pytest.mark.parametrize(
    ("requests", "answer"),
    [
        pytest.param(*row, id=f"{family}: {name}")
        for family, rows in (("headers", HEADERS), ("text", BAD_TEXT))
        for name, row in rows.items()
    ],
)
def test_bad_input_of_a_login(bad, requests, answer):
    assert answers_to(bad, *requests)[0] == answer
    if answer != OK:
        assert bad.receive() is None


@pytest.mark.parametrize(("requests", "key", "value"), ANSWERS.values(), ids=ANSWERS.keys())
def test_bad_values_are_answered(bad, requests, key, value):
    words, keys = answers_to(bad, *requests)
    assert (words, keys[key]) == (OK, value)


# ── CHAP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def challenged(bad, algorithms="5", hello=HELLO):
    """Go as far as the challenge; return its identifier and octets."""
    words, asked = answers_to(bad, login(TO_OPERATIONAL, hello), login(TO_OPERATIONAL, text(CHAP_A=algorithms)))
    assert (words, asked["CHAP_A"]) == (OK, "5")
    return int(asked["CHAP_I"]), decode_binary(asked["CHAP_C"], longest_octets=1024)


def proof(identifier, challenge, secret=SECRET):
    return "0x" + response(identifier, secret.encode(), challenge).hex()


PROOFS = {
    "the right one": (lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i, c)}, OK),
    "in the other order": (lambda i, c: {"CHAP_R": proof(i, c), "CHAP_N": USER}, OK),
    "in upper case": (lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i, c).upper()}, OK),
    "an empty response": (lambda i, c: {"CHAP_N": USER, "CHAP_R": ""}, UNPROVED),
    "0x and nothing": (lambda i, c: {"CHAP_N": USER, "CHAP_R": "0x"}, UNPROVED),
    "no response": (lambda i, c: {"CHAP_N": USER}, UNPROVED),
    "no name": (lambda i, c: {"CHAP_R": proof(i, c)}, UNPROVED),
    "an empty name": (lambda i, c: {"CHAP_N": "", "CHAP_R": proof(i, c)}, UNPROVED),
    "our challenge for a response": (lambda i, c: {"CHAP_N": USER, "CHAP_R": "0x" + c.hex()}, UNPROVED),
    "our challenge back to us": (
        lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i, c), "CHAP_I": str(i), "CHAP_C": "0x" + c.hex()}, UNPROVED
    ),
    "odd digits": (lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i, c)[:-1]}, UNPROVED),
    "an octet more": (lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i, c) + "00"}, UNPROVED),
    "base64 of 4 KiB": (lambda i, c: {"CHAP_N": USER, "CHAP_R": "0b" + "A" * 4096}, UNPROVED),
    "broken base64": (lambda i, c: {"CHAP_N": USER, "CHAP_R": "0b=A="}, UNPROVED),
    "no digits": (lambda i, c: {"CHAP_N": USER, "CHAP_R": "0xzz"}, UNPROVED),
    "another machine's name": (lambda i, c: {"CHAP_N": OTHER_USER, "CHAP_R": proof(i, c)}, UNPROVED),
    "another machine's name and secret": (
        lambda i, c: {"CHAP_N": OTHER_USER, "CHAP_R": proof(i, c, OTHER_SECRET)}, UNPROVED
    ),
    "another identifier": (lambda i, c: {"CHAP_N": USER, "CHAP_R": proof(i ^ 1, c)}, UNPROVED),
    "the secret itself": (lambda i, c: {"CHAP_N": USER, "CHAP_R": SECRET}, UNPROVED),
}  # fmt: skip


@pytest.mark.parametrize(("proved", "answer"), PROOFS.values(), ids=PROOFS.keys())
def test_bad_input_of_chap(bad, proved, answer):
    identifier, challenge = challenged(bad)
    assert answers_to(bad, login(TO_OPERATIONAL, text(**proved(identifier, challenge))))[0] == answer
    if answer != OK:
        assert bad.receive() is None


OWN = "0x" + "5a" * 16
ASKED_IN_RETURN = {
    "a challenge": (lambda _: {"CHAP_I": "7", "CHAP_C": OWN}, OK),
    "a challenge in base64": (lambda _: {"CHAP_I": "7", "CHAP_C": "0bWlpaWlpaWlpaWlpaWlpaWg=="}, OK),
    "a challenge before an identifier": (lambda _: {"CHAP_C": OWN, "CHAP_I": "7"}, OK),
    "no identifier": (lambda _: {"CHAP_C": OWN}, UNPROVED),
    "no challenge": (lambda _: {"CHAP_I": "7"}, UNPROVED),
    "an empty challenge": (lambda _: {"CHAP_I": "7", "CHAP_C": "0x"}, UNPROVED),
    "a challenge of odd digits": (lambda _: {"CHAP_I": "7", "CHAP_C": OWN[:-1]}, UNPROVED),
    "a challenge of 1,025 octets": (lambda _: {"CHAP_I": "7", "CHAP_C": "0x" + "5a" * 1025}, UNPROVED),
    "our own challenge": (lambda challenge: {"CHAP_I": "7", "CHAP_C": "0x" + challenge.hex()}, UNPROVED),
    "identifier 256": (lambda _: {"CHAP_I": "256", "CHAP_C": OWN}, UNPROVED),
    "identifier -1": (lambda _: {"CHAP_I": "-1", "CHAP_C": OWN}, UNPROVED),
}


@pytest.mark.parametrize(("asked", "answer"), ASKED_IN_RETURN.values(), ids=ASKED_IN_RETURN.keys())
def test_bad_input_of_mutual_chap(bad, asked, answer):
    hello = text(**NAMES | {"TargetName": f"{IQN}shop.both"}, AuthMethod="CHAP")
    identifier, challenge = challenged(bad, hello=hello)
    proved = text(CHAP_N=USER, CHAP_R=proof(identifier, challenge), **asked(challenge))
    words, keys = answers_to(bad, login(TO_OPERATIONAL, proved))
    assert words == answer
    if answer == OK:
        own = "0x" + response(7, TARGET_SECRET.encode(), bytes.fromhex(OWN[2:])).hex()
        assert (keys["CHAP_N"], keys["CHAP_R"]) == ("shop", own)
    else:
        assert "CHAP_R" not in keys


OFFERS = {
    "no CHAP_A": ([login(SECURITY, HELLO), login(SECURITY)], UNPROVED),
    "an unknown CHAP_A": ([login(SECURITY, HELLO), login(SECURITY, text(CHAP_A="9"))], UNPROVED),
    "CHAP_A without digits": ([login(SECURITY, HELLO), login(SECURITY, text(CHAP_A="MD5"))], UNPROVED),
    "a thousand of CHAP_A": ([login(SECURITY, HELLO), login(SECURITY, text(CHAP_A="9," * 1000))], UNPROVED),
    "a response before the challenge": (
        [login(SECURITY, HELLO), login(SECURITY, text(CHAP_N=USER, CHAP_R="0x" + "00" * 16))], UNPROVED
    ),
    "None where CHAP is wanted": ([login(TO_OPERATIONAL, text(**NAMES, AuthMethod="None"))], UNPROVED),
    "nothing where CHAP is wanted": ([login(TO_OPERATIONAL, text(**NAMES))], UNPROVED),
    "KRB5 where CHAP is wanted": ([login(TO_OPERATIONAL, text(**NAMES, AuthMethod="KRB5,SRP"))], UNPROVED),
    "the security stage left out": ([login(TO_FULL, text(**NAMES))], UNPROVED),
    "straight to full feature phase": ([login(STRAIGHT_TO_FULL, text(**NAMES))], UNPROVED),
    "on to full feature phase before the proof": (
        [login(STRAIGHT_TO_FULL, HELLO), login(STRAIGHT_TO_FULL, text(CHAP_A="5")), login(STRAIGHT_TO_FULL)], UNPROVED
    ),
    "to the next stage before the proof": ([login(TO_OPERATIONAL, HELLO), login(TO_FULL)], REFUSED),
    **{
        f"the target {name}, another's or nobody's": (
            [login(TO_OPERATIONAL, text(**NAMES | {"TargetName": f"{IQN}{name}"}))], NOT_ALLOWED
        )
        for name in ("shop.db1", "shop.nobody")
    },
}  # fmt: skip


@pytest.mark.parametrize(("requests", "answer"), OFFERS.values(), ids=OFFERS.keys())
def test_bad_offers_of_chap(bad, requests, answer):
    assert answers_to(bad, *requests)[0] == answer
    assert bad.receive() is None


@pytest.mark.parametrize("algorithms", ["5,7", "9,8,6,5,7"])
def test_md5_is_found_among_others(bad, algorithms):
    assert answers_to(bad, login(TO_OPERATIONAL, text(
        CHAP_N=USER, CHAP_R=proof(*challenged(bad, algorithms))
    )))[0] == OK  # fmt: skip


def test_a_response_that_was_heard_proves_nothing_twice(process, bad):
    heard = text(CHAP_N=USER, CHAP_R=proof(*challenged(bad)))
    assert answers_to(bad, login(TO_OPERATIONAL, heard))[0] == OK
    with Initiator(connect(f"127.0.0.1:{process.port}"), NAMES) as again:
        challenged(again)
        assert answers_to(again, login(TO_OPERATIONAL, heard))[0] == UNPROVED


def test_one_challenge_is_one_attempt(bad):
    identifier, challenge = challenged(bad)
    assert answers_to(bad, login(TO_OPERATIONAL, text(CHAP_N=USER, CHAP_R="0x00")))[0] == UNPROVED
    right = login(TO_OPERATIONAL, text(CHAP_N=USER, CHAP_R=proof(identifier, challenge)))
    assert answers_to(bad, right)[0] == CLOSED


LISTED = {
    "a command before the login": ["a SCSI command"],
    "stages": ["current stage 2", "next stage 2", "a stage back", "transit and more to come"],
    "versions": ["version 1 at least", "version 255 at least", "version 255 at most"],
    "an unknown session": ["a session that is not there"],
    "keys without an end": ["64 KiB without NUL", "a key of 8 KiB without NUL"],
    "keys": ["a key said twice", "no =", "no key", "a key of 64 characters", "an unknown key"],
    "names": ["a name of 224 octets", "a name beyond ASCII", "a NUL in a name"],
    "numbers": ["-1", "2^64", "0x and nothing", "base64 for a number"],
    "lists": ["a thousand digests", "digests in order", "a digest that nobody does", "an empty list"],
    "segment lengths": [f"MaxRecvDataSegmentLength={octets}" for octets in (0, 511)],
    "dawdling": "test_a_login_has_a_deadline_however_it_dawdles",
    "half-open connections": "test_a_thousand_half_open_logins_are_bounded_and_lock_nobody_out",
    "failed logins": "test_a_thousand_failed_logins_leave_nothing_behind",
    "CHAP_A": ["no CHAP_A", "an unknown CHAP_A", "a thousand of CHAP_A"],
    "the order of CHAP_A": "test_md5_is_found_among_others",
    "responses": ["an empty response", "odd digits", "base64 of 4 KiB", "in the other order"],
    "reflection": ["our challenge for a response", "our challenge back to us", "our own challenge"],
    "replay": "test_a_response_that_was_heard_proves_nothing_twice",
    "another's name": ["another machine's name", "another machine's name and secret"],
    "no proof": ["None where CHAP is wanted", "nothing where CHAP is wanted", "the security stage left out"],
}


def test_every_kind_of_bad_input_has_its_rows():
    rows = HEADERS.keys() | BAD_TEXT.keys() | ANSWERS.keys() | PROOFS.keys() | OFFERS.keys() | ASKED_IN_RETURN.keys()
    for kind, tests in LISTED.items():
        known = callable(globals().get(tests)) if isinstance(tests, str) else rows >= set(tests)
        assert known, kind


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def kept(process):
    """Return how many threads and open files the process has."""
    return [len(list(Path(f"/proc/{process.process.pid}/{what}").iterdir())) for what in ("task", "fd")]


def test_a_thousand_failed_logins_leave_nothing_behind(process):
    """Counted, not timed: a good login exchanges as many PDUs as before, and no thread or file of theirs is left."""
    before = kept(process)
    for number in range(1000):
        with Initiator(connect(f"127.0.0.1:{process.port}"), NAMES) as guesser:
            assert guesser.log_in_with(USER, f"guess {number}") == (2, 1)
    until(lambda: kept(process) <= before, f"threads and files are {before} again")


def test_a_thousand_half_open_logins_are_bounded_and_lock_nobody_out(process):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    threads, files = kept(process)
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(Initiator(connect(f"127.0.0.1:{process.port}"), NAMES))
        bound = threads + remote_transport.MAX_WITHOUT_DISK
        until(lambda: kept(process)[0] <= bound, "the older of them are gone")
        for source in ("127.0.0.2", "127.0.0.1"):
            with Initiator(connect(f"127.0.0.1:{process.port}", source=source), NAMES) as initiator:
                assert initiator.log_in_with(USER, SECRET) == (0, 0)
    until(lambda: kept(process) <= [threads, files], "what those had who went is free")


@pytest.mark.parametrize("octets", [b"", login(TO_FULL, OPEN_HELLO)], ids=["idle", "an octet at a time"])
def test_a_login_has_a_deadline_however_it_dawdles(tmp_path, monkeypatch, octets):
    monkeypatch.setattr(iscsi_connection, "LOGIN_SECONDS", 0.3)
    manager = FileManager({0: FileDisk(tmp_path / "disk", 64)})
    with serving(manager) as portal:
        with Initiator(connect(portal), NAMES) as slow, dripping(slow.sock, octets):
            assert slow.receive() is None
        until(lambda: manager.refusals, "the refusal is told")
        assert manager.refusals == ["the login took too long"]
        with Initiator(connect(portal), NAMES) as initiator:
            initiator.log_in()


@contextmanager
def dripping(sock, octets):
    """Send octets one by one, so slowly that the login would take seconds, until the block ends."""
    ended = threading.Event()

    def drip():
        with suppress(OSError):  # the target has closed
            for octet in octets:
                if ended.wait(0.02):
                    return
                sock.sendall(bytes((octet,)))

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
