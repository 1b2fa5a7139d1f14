"""Sessions with the Remote Transport over real sockets: what callers see."""

import asyncio

import pytest

from panloom.initiator import LoginRefusedError, Session
from panloom.protocol.chap import Credentials
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving

BLOCKS = 65536
WEB1 = Credentials("web1", "secret-of-web1")


@pytest.fixture
def manager(tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", BLOCKS), 3: FileDisk(tmp_path / "facts", 8, read_only=True)})


@pytest.fixture
def portal(manager):
    with serving(manager) as portal:
        address, port = portal.rsplit(":", 1)
        yield address, int(port)


def session_at(portal, **options):
    return Session.open(portal, initiator=INITIATOR, target=TARGET, **options)


def run(portal, talk, **options):
    """Run a coroutine function of a session with the portal, within a deadline."""

    async def within():
        async with asyncio.timeout(30), await session_at(portal, **options) as session:
            return await talk(session)

    return asyncio.run(within())


def test_a_session_from_login_to_its_end(manager, portal):
    async def talk(session):
        assert await session.luns() == (0, 3)
        assert await session.capacity(0) == (BLOCKS, 512)
        await session.write(0, 5 * 512, b"x" * 1024)
        assert await session.read(0, 4 * 512, 2048) == bytes(512) + b"x" * 1024 + bytes(512)
        await session.flush(0)
        await session.unmap(0, 5 * 512, 512)
        assert await session.read(0, 5 * 512, 1024) == bytes(512) + b"x" * 512
        assert session.logins == 1

    run(portal, talk)
    assert manager.ended == [("s1", "logout")]
    assert [call for call, _, _ in manager.disks[0].calls] == ["write", "read", "flush", "unmap", "read"]


def test_chap(manager, portal):
    manager.wanted = WEB1

    async def talk(session):
        return await session.read(0, 0, 512)

    assert run(portal, talk, user="web1", secret="secret-of-web1") == bytes(512)
    for user, secret in (("web1", "guessed"), (None, None)):
        with pytest.raises(LoginRefusedError, match="authentication failed") as caught:
            run(portal, talk, user=user, secret=secret)
        assert caught.value.status == (2, 1)
