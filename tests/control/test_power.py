"""The socket driver and the watch, against supervisors that answer well, badly, late or not at all."""

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from panloom.control import power
from panloom.control.power import SocketDriver, call, watch_power
from panloom.errors import UnavailableError

BAD_ANSWERS = {
    "nothing": b"",
    "a line without its end": b'{"id":1,"ok":{"power":"on"}',
    "no JSON": b"yes\n",
    "no UTF-8": b'{"id":1,"ok":{"power":"\xff"}}\n',
    "no object": b"[1]\n",
    "no state": b'{"id":1,"ok":{}}\n',
    "another state": b'{"id":1,"ok":{"power":"maybe"}}\n',
    "a list for a state": b'{"id":1,"ok":{"power":[]}}\n',
    "neither ok nor error": b'{"id":1}\n',
    "an endless line": b"x" * (1 << 20) + b"\n",
}


class Supervisor:
    """Says to each request what ``answers`` says of it, and remembers it; ``once``: it hangs up after the first."""

    def __init__(self, answers, *, once):
        self.answers = answers
        self.once = once
        self.asked = []

    async def converse(self, reader, writer):
        try:
            while line := await reader.readline():
                self.asked.append(json.loads(line))
                writer.write(self.answers(self.asked[-1]))
                await writer.drain()
                if self.once:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()


def ok(state):
    return json.dumps({"id": 1, "ok": {"power": state}}).encode() + b"\n"


@asynccontextmanager
async def supervisor(answers, *, once=False):
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "power.sock")
        peer = Supervisor(answers, once=once)
        server = await asyncio.start_unix_server(peer.converse, path)
        try:
            yield path, peer
        finally:
            server.close()


def test_the_four_verbs():
    async def scenario():
        states = {"on": "on", "off": "off", "reset": "on", "status": "off"}
        async with supervisor(lambda request: ok(states[request["action"]])) as (path, peer):
            driver = SocketDriver(path, "slot 1")
            await driver.on()
            await driver.off()
            await driver.reset()
            assert await driver.status() is False
            assert peer.asked == [{"id": 1, "call": "power", "node": "slot 1", "action": action} for action in states]

    asyncio.run(scenario())


def test_a_machine_that_is_still_on_was_not_switched_off():
    async def scenario():
        async with supervisor(lambda request: ok("on")) as (path, _):
            with pytest.raises(UnavailableError, match="n1 is still on after its power was cut"):
                await SocketDriver(path, "n1").off()

    asyncio.run(scenario())


def test_a_refusal_is_told_in_the_supervisor_s_words():
    async def scenario():
        async with supervisor(lambda request: b'{"id":1,"error":"the fuse is blown"}\n') as (path, _):
            with pytest.raises(UnavailableError, match="n1: reset failed: the fuse is blown"):
                await SocketDriver(path, "n1").reset()

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_bad_answer_is_no_answer(answer):
    async def scenario():
        async with supervisor(lambda request: answer, once=True) as (path, _):
            with pytest.raises(UnavailableError):
                await SocketDriver(path, "n1").status()

    asyncio.run(scenario())


def test_a_late_answer_is_none_and_so_is_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(power, "CALL_SECONDS", 0.1)

    async def scenario():
        async with supervisor(lambda request: b"") as (path, peer):
            with pytest.raises(UnavailableError, match="does not answer"):
                await SocketDriver(path, "n1").status()
            assert len(peer.asked) == 1
        for path in (tmp_path / "nobody.sock", tmp_path):
            with pytest.raises(UnavailableError, match="does not answer"):
                await call(str(path), {"call": "power", "node": "n1", "action": "on"})

    asyncio.run(scenario())


def test_the_watch_tells_of_every_change_until_the_supervisor_goes():
    async def scenario():
        told = []
        lines = (
            b'{"id":1,"ok":{"n1":"off"}}\n'
            b'{"event":"power","node":"n1","power":"on","at":4.5}\n'
            b'{"event":"weather"}\n[]\n'
            b'{"event":"power","node":"n2","power":"off","at":5}\n'
        )
        async with supervisor(lambda request: lines, once=True) as (path, _):
            with pytest.raises(UnavailableError, match="went away"):
                await watch_power(path, lambda *change: told.append(change))
        assert told == [("n1", True, 4.5), ("n2", False, 5.0)]
        with pytest.raises(UnavailableError, match="cannot be watched"):
            await watch_power(path, lambda *change: None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "line",
    [b"yes\n", b'{"event":"power"}\n', b'{"event":"power","node":"n1","power":"on","at":"now"}\n', b'"\xff"\n',
     b'{"event":"power","node":"n1","power":"on","at":null}\n', b"x" * (1 << 20)],
)  # fmt: skip
def test_a_watch_that_cannot_be_read_ends(line):
    async def scenario():
        async with supervisor(lambda request: line, once=True) as (path, _):
            with pytest.raises(UnavailableError, match="cannot be watched"):
                await watch_power(path, lambda *change: None)

    asyncio.run(scenario())
