"""Our initiator at our storage process: a disk's life with kills and restarts in the middle, fences and pauses."""

import asyncio
import random
import signal

import pytest

from panloom.errors import RefusedError
from panloom.initiator import LoginRefusedError, Session, Timing, discover
from panloom.storage.exports import Access, ExportedLun
from panloom.values import Iqn
from support.storage_process import StorageProcess
from support.waiting_async import eventually

TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
NODE = Iqn("iqn.2026-11.dev.panloom:node.n1")
PROOF = {"user": "web1", "secret": "0123456789ab"}
MIB = 1 << 20


@pytest.fixture
def process(tmp_path):
    source = tmp_path / "golden"
    source.write_bytes(random.Random(7).randbytes(3 * MIB))

    async def prepare(client):
        await client.import_image("web@1", source)
        await client.create_volume("shop.web1", "web@1", 64 * MIB)
        await client.export(str(TARGET), [ExportedLun(0, volume="shop.web1")], 1, Access(str(NODE), **PROOF))

    with StorageProcess(tmp_path) as process:
        process.run(prepare)
        yield process


def run(process, talk, **options):
    async def within():
        portal = "127.0.0.1", process.port
        opening = Session.open(portal, initiator=NODE, target=TARGET, **PROOF, **options)
        async with asyncio.timeout(60), await opening as session:
            return await talk(session)

    return asyncio.run(within())


def test_a_clone_has_its_image_and_its_own_blocks(process):
    image = random.Random(7).randbytes(3 * MIB)

    async def talk(session):
        assert (await session.capacity(0)).octets == 64 * MIB
        assert await session.read(0, 0, 3 * MIB) == image
        await session.write(0, MIB, b"x" * MIB, fua=True)
        await session.unmap(0, 2 * MIB, 4096)
        assert await session.read(0, 0, 3 * MIB) == image[:MIB] + b"x" * MIB + bytes(4096) + image[2 * MIB + 4096 :]

    run(process, talk)


def test_discovery(process):
    async def find():
        return await discover(("127.0.0.1", process.port), initiator=NODE, **PROOF)

    assert [found.name for found in asyncio.run(find())] == [TARGET]


def test_kills_in_the_middle_lose_nothing_that_was_answered(process):
    """Three kills under a load of writes; what was answered is there, and the calls never notice."""
    octets = random.Random(8).randbytes(16 * MIB)
    size = 65536

    async def load(session):
        limit = asyncio.Semaphore(16)

        async def write(offset):
            async with limit:
                await session.write(0, offset, octets[offset : offset + size])

        await asyncio.gather(*(write(offset) for offset in range(0, len(octets), size)))

    async def talk(session):
        for number in range(2, 5):
            loading = asyncio.create_task(load(session))
            await asyncio.sleep(0)
            await asyncio.to_thread(process.kill)
            await asyncio.to_thread(process.start)
            await loading
            await session.flush(0)
            assert session.logins == number
            assert await session.read(0, 0, len(octets)) == octets

    run(process, talk)


def test_a_paused_process_is_waited_for_and_left_when_it_takes_too_long(process):
    timing = Timing(ping_seconds=0.2, answer_seconds=0.2, login_seconds=0.5, reconnect_seconds=20)

    async def talk(session):
        await session.read(0, 0, 512)
        process.stop(signal.SIGSTOP)
        reads = [asyncio.create_task(session.read(0, offset, 4096)) for offset in range(0, MIB, 4096)]
        await eventually(lambda: session.agreed is None, "the connection is given up: no ping was answered")
        process.stop(signal.SIGCONT)
        assert b"".join(await asyncio.gather(*reads)) == random.Random(7).randbytes(3 * MIB)[:MIB]
        assert session.logins == 2

    run(process, talk, timing=timing)


def test_a_fence_ends_the_session_with_a_refusal(process):
    async def fence(client):
        await client.revoke(str(TARGET), 2)
        await client.drop(str(TARGET))

    async def talk(session):
        await session.write(0, 0, b"x" * 512)
        await asyncio.to_thread(process.run, fence)
        with pytest.raises((LoginRefusedError, RefusedError)):
            await session.write(0, 0, b"y" * 512)
        with pytest.raises(LoginRefusedError):
            await session.read(0, 0, 512)

    run(process, talk)
