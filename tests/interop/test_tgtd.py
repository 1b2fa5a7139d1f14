"""Our initiator at tgtd 1.0.85: CHAP both ways, digests, every way of a write, many commands, and its death."""

import asyncio
import random

import pytest

from panloom.errors import RefusedError, UnavailableError
from panloom.initiator import CommandError, LoginRefusedError, Session, discover
from panloom.protocol.iscsi_initiator_keys import Wishes
from panloom.values import Iqn
from panloom.wire.iscsi_text import Portal
from support.tgtd import TARGET, Tgtd

INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
MIB = 1 << 20
SIZE = 32 * MIB
CRC32C = {"header_digest": ("CRC32C", "None"), "data_digest": ("CRC32C", "None")}


@pytest.fixture
def tgtd(tmp_path):
    with Tgtd(tmp_path, SIZE) as tgtd:
        yield tgtd


def run(tgtd, talk, **options):
    async def within():
        async with (
            asyncio.timeout(30),
            await Session.open(tgtd.portal, initiator=INITIATOR, target=TARGET, **options) as session,
        ):
            return await talk(session)

    return asyncio.run(within())


async def exercise(session):
    """Write and read pieces of all sizes at once and one after the other; the unit must hold what was written."""
    octets = random.Random(1).randbytes(12 * MIB)
    sizes = [512, 4096, 8192, 65536, 65536 + 512, 262144, 262144 + 512, 3 * MIB, 9 * MIB - 512]
    offset = 0
    for size in sizes:
        piece = octets[offset : offset + size]
        await session.write(1, offset, piece)
        assert await session.read(1, offset, len(piece)) == piece
        offset += len(piece)
    at = range(0, MIB, 4096)
    await asyncio.gather(*(session.write(1, offset, octets[offset : offset + 4096]) for offset in at))
    pieces = await asyncio.gather(*(session.read(1, offset, 4096) for offset in at))
    assert b"".join(pieces) == octets[:MIB]
    await session.flush(1)


def test_a_session_from_login_to_its_end(tgtd):
    async def talk(session):
        assert await session.luns() == (0, 1)
        assert await session.capacity(1) == (SIZE // 512, 512)
        await exercise(session)
        await session.write(1, 0, b"x" * 4096, fua=True)
        with pytest.raises(CommandError, match="sense 05/2100"):
            await session.read(1, SIZE - 512, 1024)
        assert session.logins == 1
        return session.agreed

    agreed = run(tgtd, talk)
    assert (agreed.initial_r2t, agreed.immediate_data, agreed.max_send_octets) == (True, True, 8192)
    assert not agreed.header_digest
    assert not agreed.data_digest
    assert tgtd.disk.read_bytes()[:4096] == b"x" * 4096


@pytest.mark.parametrize("initial_r2t", ["Yes", "No"])
@pytest.mark.parametrize("immediate_data", ["Yes", "No"])
def test_every_way_of_a_write(tmp_path, initial_r2t, immediate_data):
    keys = {"InitialR2T": initial_r2t, "ImmediateData": immediate_data, "MaxRecvDataSegmentLength": "16384"}
    with Tgtd(tmp_path, SIZE, **keys, FirstBurstLength="65536", MaxBurstLength="131072", MaxOutstandingR2T="4") as tgtd:

        async def talk(session):
            await exercise(session)
            return session.agreed

        agreed = run(tgtd, talk, wishes=Wishes(immediate_data=immediate_data == "Yes"))
    assert (agreed.initial_r2t, agreed.immediate_data) == (initial_r2t == "Yes", immediate_data == "Yes")
    assert (agreed.first_burst_length, agreed.max_burst_length, agreed.max_send_octets) == (65536, 131072, 16384)


@pytest.mark.parametrize(("header", "data"), [("CRC32C", "CRC32C"), ("CRC32C", "None"), ("None", "CRC32C")])
def test_digests(tmp_path, header, data):
    with Tgtd(tmp_path, SIZE, HeaderDigest=header, DataDigest=data) as tgtd:

        async def talk(session):
            await exercise(session)
            return session.agreed

        agreed = run(tgtd, talk, **CRC32C)
    assert (agreed.header_digest, agreed.data_digest) == (header == "CRC32C", data == "CRC32C")


def test_chap_both_ways(tgtd):
    tgtd.want("web1", "secret-of-web1", prove=("peer", "secret-of-peer"))
    proof = {"user": "web1", "secret": "secret-of-web1"}

    async def talk(session):
        return await session.read(1, 0, 512)

    assert run(tgtd, talk, **proof) == bytes(512)
    assert run(tgtd, talk, **proof, target_user="peer", target_secret="secret-of-peer") == bytes(512)
    with pytest.raises(RefusedError, match="the target's CHAP response is wrong"):
        run(tgtd, talk, **proof, target_secret="another secret")
    for wrong in ({"user": "web1", "secret": "guessed"}, {"user": "web2", "secret": "secret-of-web1"}, {}):
        with pytest.raises(LoginRefusedError, match="authentication failed"):
            run(tgtd, talk, **wrong)


def test_discovery(tgtd):
    async def find():
        return await discover(tgtd.portal, initiator=INITIATOR)

    (found,) = asyncio.run(find())
    assert found.name == TARGET
    assert found.portals == (Portal(*tgtd.portal, 1),)


def test_no_such_target(tgtd):
    async def talk():
        await Session.open(tgtd.portal, initiator=INITIATOR, target=Iqn("iqn.2026-11.dev.panloom:nobody"))

    with pytest.raises(LoginRefusedError, match="no such target"):
        asyncio.run(talk())


def test_a_cancelled_read_is_aborted_and_upsets_no_other(tgtd):
    async def talk(session):
        reads = [asyncio.create_task(session.read(1, number * 4096, 4096)) for number in range(32)]
        await session.luns()
        long = asyncio.create_task(session.read(1, 0, 8 * MIB))
        await asyncio.sleep(0)
        long.cancel()
        for read in reads[::2]:
            read.cancel()
        assert await asyncio.gather(*reads[1::2]) == [bytes(4096)] * 16
        assert await session.read(1, 0, 512) == bytes(512)
        await session.reset_unit(1)
        assert await session.read(1, 0, 512) == bytes(512)
        assert session.logins == 1

    run(tgtd, talk)


def test_it_comes_back_after_a_kill(tgtd):
    octets = random.Random(2).randbytes(16 * MIB)

    async def talk(session):
        await session.write(1, 0, octets[:MIB])
        writes = [
            asyncio.create_task(session.write(1, offset, octets[offset : offset + MIB]))
            for offset in range(MIB, 16 * MIB, MIB)
        ]
        await writes[0]
        await asyncio.to_thread(tgtd.kill)
        await asyncio.to_thread(tgtd.start)
        await asyncio.gather(*writes)
        assert await session.read(1, 0, 16 * MIB) == octets
        assert session.logins == 2

    run(tgtd, talk)


def test_it_gives_up_after_reconnect_seconds(tgtd):
    async def talk(session):
        await session.read(1, 0, 512)
        await asyncio.to_thread(tgtd.kill)
        with pytest.raises(UnavailableError, match=r"no way back in 0\.3 s"):
            await session.read(1, 0, 512)

    run(tgtd, talk, reconnect_seconds=0.3)
