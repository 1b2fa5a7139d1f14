"""A node's serial line in the control process: who hears what of it, and who may type."""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from panloom.control import api
from panloom.control import consoles as module
from panloom.control.console_log import ConsoleLog
from panloom.control.consoles import Console, Consoles
from panloom.decide.console_access import Access
from panloom.errors import ConflictError, UnavailableError
from panloom.model.resources import ConsoleUsers, SocketPower
from support.dict_store import DictStore
from support.waiting_async import eventually
from support.world import PLATFORM, put


class Line:
    """A serial line behind a power socket; it answers in capitals."""

    def __init__(self, directory):
        self.path = directory / "power.sock"
        self.ends = []
        self.typed = b""
        self.heard = []

    def hear(self, node, text, at):
        self.heard.append((node, text))

    async def serve(self, reader, writer):
        call = msgspec.json.decode(await reader.readline())
        if (call["call"], call["node"]) != ("console", "n1"):
            writer.write(b'{"id": 1, "error": "there is no such machine"}\n')
            writer.close()
            return
        writer.write(b'{"id": 1, "ok": {}}\n')
        self.ends.append(writer)
        while octets := await reader.read(4096):
            self.typed += octets
            writer.write(octets.upper())

    def say(self, octets):
        self.ends[-1].write(octets)

    def hang_up(self):
        self.ends[-1].close()


def hear_nothing(node, text, at):
    raise AssertionError(text)


@asynccontextmanager
async def a_console(directory):
    line = Line(directory)
    server = await asyncio.start_unix_server(line.serve, line.path)
    console = Console("n1", SocketPower(path=str(line.path), name="n1"), directory / "n1.log", line.hear)
    task = asyncio.create_task(console.run())
    try:
        await eventually(lambda: line.ends, "the console listens")
        yield line, console
    finally:
        task.cancel()
        server.close()
        for end in line.ends:
            end.close()
        await asyncio.gather(task, return_exceptions=True)


def scenario(directory):
    """Run ``work(line, console)``."""

    def run(work):
        async def inside():
            async with a_console(directory) as (line, console):
                await work(line, console)

        asyncio.run(inside())

    return run


async def hears(viewer, octets):
    heard = b""
    async with asyncio.timeout(5):
        async for piece in viewer.octets():
            heard += piece
            if octets in heard:
                return heard
    return heard


def test_what_is_said_and_typed_reaches_every_viewer_whoever_came_when(tmp_path):
    async def work(line, console):
        with console.viewer() as first:
            line.say(b"iPXE> ")
            await hears(first, b"iPXE> ")
            with console.viewer() as second:
                assert (second.keyboard, second.reads) == ("", "somebody else types")
                await console.type(first.keyboard, b"exit")
                assert await hears(second, b"EXIT") == b"iPXE> EXIT"
            await hears(first, b"EXIT")
            with pytest.raises(ConflictError):
                await console.type(second.keyboard, b"intruded")
        assert line.typed == b"exit"

    scenario(tmp_path)(work)


def test_a_line_that_breaks_is_heard_again_by_those_who_look_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)

    async def work(line, console):
        with console.viewer() as viewer:
            line.hang_up()
            await eventually(lambda: len(line.ends) == 2, "it listens again")
            line.say(b"SeaBIOS")
            await hears(viewer, b"SeaBIOS")
            await console.type(viewer.keyboard, b"ok")
            await hears(viewer, b"OK")

    scenario(tmp_path)(work)


def test_who_does_not_read_misses_what_was_said_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNSEEN_OCTETS", 8)

    async def work(line, console):
        with console.viewer("you asked for that") as slow, console.viewer("you asked for that") as quick:
            line.say(b"0123456789")
            await hears(quick, b"9")
            line.say(b"ab")
            await hears(quick, b"b")
            assert await hears(slow, b"b") == b"456789ab"

    scenario(tmp_path)(work)


def test_lines_and_prompts_are_told_as_they_come_and_the_last_ones_kept(tmp_path):
    async def work(line, console):
        with console.viewer("you asked for that") as viewer:
            line.say(b"SeaBIOS\r\nweb1 lo")
            await hears(viewer, b"lo")
            line.say(b"gin: ")
            await hears(viewer, b"gin: ")
        assert line.heard == [("n1", "SeaBIOS"), ("n1", "web1 lo"), ("n1", "web1 login:")]
        assert [said.text for said in console.said()] == ["SeaBIOS", "web1 login:"]

    scenario(tmp_path)(work)


def test_a_new_process_knows_what_was_said_last(tmp_path):
    with ConsoleLog(tmp_path / "log") as log:
        log.write(b"SeaBIOS\n\x1b]0;title\x07No bootable device.\n", time.time() - 5.0)
    console = Console("n1", SocketPower(path="/none", name="n1"), tmp_path / "log", hear_nothing)
    assert [line.text for line in console.said()] == ["SeaBIOS", "No bootable device."]
    assert all(4.0 < time.monotonic() - line.at < 60.0 for line in console.said())


@pytest.mark.parametrize(
    ("users", "root", "nobody"),
    [
        (ConsoleUsers(), Access.TYPE, Access.TYPE),
        (ConsoleUsers(type=("group:root",)), Access.TYPE, Access.READ),
        (ConsoleUsers(type=("nobody",), read=("group:root",)), Access.READ, Access.TYPE),
    ],
)
def test_the_platform_says_who_may_do_what(tmp_path, users, root, nobody):
    async def work():
        store = DictStore()
        consoles = Consoles(store, tmp_path, hear_nothing)
        assert await consoles.access("eve") is Access.TYPE
        await put(store, PLATFORM.model_copy(update={"consoles": users}))
        return await consoles.access("root"), await consoles.access("nobody")

    assert asyncio.run(work()) == (root, nobody)


def test_nobody_listens_nobody_types(tmp_path):
    console = Console("n1", SocketPower(path=str(tmp_path / "none.sock"), name="n1"), tmp_path / "log", hear_nothing)
    with console.viewer() as viewer, pytest.raises(UnavailableError, match="its supervisor is away"):
        asyncio.run(console.type(viewer.keyboard, b"x"))


def test_who_leaves_before_the_stream_begins_leaves_the_keyboard(tmp_path):
    console = Console("n1", SocketPower(path=str(tmp_path / "none.sock"), name="n1"), tmp_path / "log", hear_nothing)

    class Control:
        async def console(self, node, *, types, who):
            return console.viewer()

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/v1/nodes/n1/console", "raw_path": b"/v1/nodes/n1/console", "root_path": "",
        "query_string": b"types=true", "headers": [], "client": ("root", 0), "server": None,
    }  # fmt: skip
    came = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        return next(came, {"type": "http.disconnect"})

    async def send(message):
        raise asyncio.CancelledError  # as the server's task ends when its connection does

    async def leave():
        await asyncio.gather(api.create(Control())(scope, receive, send), return_exceptions=True)

    asyncio.run(leave())
    with console.viewer() as next_one:
        assert next_one.keyboard
