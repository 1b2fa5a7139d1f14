"""Who may enter, and whose socket it is."""

import asyncio
import grp
import http.client
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from panloom.control.door import Door, Peer, groups_of, peer_of
from panloom.errors import UnavailableError

NOBODY = pwd.getpwnam("nobody")
ASK = """
import contextlib, http.client, os, socket, sys
path, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups]); os.setgid(int(gid)); os.setuid(int(uid))
connection = http.client.HTTPConnection("x"); connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
with contextlib.suppress(BrokenPipeError):  # the refusal may be there before the request
    connection.request("GET", "/")
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


async def application(scope, receive, send) -> None:
    """Answer with the name of who asks."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope["client"]).encode()})


def with_directory(scenario: Callable[[Path], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        asyncio.run(scenario(Path(directory)))


def ask(path: Path) -> str:
    connection = http.client.HTTPConnection("x", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def ask_as(path: Path, uid: int, *groups: int) -> str:
    command = [sys.executable, "-c", ASK, str(path), *(str(number) for number in (uid, NOBODY.pw_gid, *groups))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout or done.stderr.splitlines()[-1]


def test_the_socket_is_for_owner_and_group_from_its_first_moment():
    async def scenario(directory: Path) -> None:
        path = directory / "run" / "deep" / "door.sock"
        door = Door(application, path)
        await door.open()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await asyncio.to_thread(ask, path) == "('root', 0)"
        await door.close()
        assert not path.exists()

    with_directory(scenario)


def test_only_root_and_the_group_may_enter_even_where_the_mode_lets_others():
    async def scenario(directory: Path) -> None:
        path = directory / "door.sock"
        door = Door(application, path, group="daemon")
        await door.open()
        daemon = path.stat().st_gid
        assert daemon == pwd.getpwnam("daemon").pw_gid
        assert "PermissionError" in await asyncio.to_thread(ask_as, path, NOBODY.pw_uid)
        assert await asyncio.to_thread(ask_as, path, NOBODY.pw_uid, daemon) == f"200 ('nobody', {NOBODY.pw_uid})\n"
        path.chmod(0o666)
        refusal = await asyncio.to_thread(ask_as, path, NOBODY.pw_uid)
        assert refusal.startswith("403 ")
        assert "neither root nor in the group" in refusal
        assert (await asyncio.to_thread(ask_as, path, 54321, daemon)).startswith("200 ('uid 54321'")
        await door.close()

    with_directory(scenario)


def test_a_stale_socket_is_replaced():
    async def scenario(directory: Path) -> None:
        path = directory / "door.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        door = Door(application, path)
        await door.open()
        assert "root" in await asyncio.to_thread(ask, path)
        await door.close()

    with_directory(scenario)


def test_a_socket_that_somebody_listens_on_is_left_alone():
    async def scenario(directory: Path) -> None:
        path = directory / "door.sock"
        first, second = Door(application, path), Door(application, path)
        await first.open()
        with pytest.raises(UnavailableError, match="another control process listens"):
            await second.open()
        await second.close()
        assert "root" in await asyncio.to_thread(ask, path)
        await first.close()

    with_directory(scenario)


def test_a_socket_that_another_has_put_in_our_place_is_not_removed():
    async def scenario(directory: Path) -> None:
        path = directory / "door.sock"
        first, second = Door(application, path), Door(application, path)
        await first.open()
        path.unlink()
        await second.open()
        await first.close()
        assert "root" in await asyncio.to_thread(ask, path)
        await second.close()

    with_directory(scenario)


def test_what_cannot_be_opened_says_why():
    async def scenario(directory: Path) -> None:
        (directory / "file").write_text("precious")
        with pytest.raises(UnavailableError, match="is no socket"):
            await Door(application, directory / "file").open()
        assert (directory / "file").read_text() == "precious"
        with pytest.raises(UnavailableError, match="groupadd"):
            await Door(application, directory / "a.sock", group="no-such-group").open()
        with pytest.raises(UnavailableError, match="too long"):
            await Door(application, directory / ("x" * 200)).open()

    with_directory(scenario)


def test_signals_stay_with_the_process():
    async def scenario(directory: Path) -> None:
        import signal

        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        door = Door(application, directory / "door.sock")
        await door.open()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        await door.close()

    with_directory(scenario)


def test_the_kernel_names_the_peer():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)
    assert peer.uid == os.geteuid()
    assert peer.groups >= {os.getegid()}
    assert peer.may_enter(12345)
    assert not Peer(54321, frozenset({1})).may_enter(2)
    assert Peer(54321, frozenset({1, 2})).may_enter(2)


def test_the_groups_of_a_user_by_name():
    assert "root" in groups_of("root")
    assert groups_of("nobody") == {grp.getgrgid(NOBODY.pw_gid).gr_name}
    assert groups_of("uid 4242") == groups_of("") == frozenset()
