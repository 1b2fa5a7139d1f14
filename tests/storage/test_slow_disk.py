"""A disk that does not answer, as one that fails: nobody who does not use it waits for it.

The disk is a file of a file system that answers when it is told to.  What is asserted is the order of events.
"""

import asyncio
import time

import pytest

from panloom.initiator import Session
from panloom.values import Iqn
from support import slow_file_system
from support.block_load import TIMING
from support.target_process import TargetProcess

OCTETS = 1 << 20
DELAY_SECONDS = 0.2
HELD_SECONDS = 2.5  # longer than a device counts as slow after it has answered
INITIATORS = [Iqn(f"iqn.2026-11.dev.panloom:node.n{number}") for number in (1, 2)]


@pytest.fixture
def directory(tmp_path):
    for name in ("disk", "quick"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(OCTETS)
    return tmp_path


@pytest.fixture
def target(directory):
    luns = ("--lun", f"1={directory}/quick", "--lun", f"2={directory}/slow/disk")
    with TargetProcess(directory, *luns, prefix=slow_file_system.command(directory)) as target:
        yield target


async def _open(target, initiator):
    portal = "127.0.0.1", target.ports[0]
    return await Session.open(portal, initiator=initiator, target=Iqn(target.iqn), timing=TIMING)


async def _write_and_read(session, number):
    await session.write(1, number * 4096, bytes([number]) * 4096)
    assert await session.read(1, number * 4096, 4096) == bytes([number]) * 4096


def test_other_sessions_are_answered_while_a_disk_is_slow(target, directory):
    async def talk():
        one, other = [await _open(target, name) for name in INITIATORS]
        async with one, other:
            await one.write(2, 0, bytes(4096))
            (directory / "hold").touch()
            slow = [asyncio.create_task(one.write(2, 0, bytes(4096), fua=True)), asyncio.create_task(one.flush(2))]
            for number in range(100):
                await _write_and_read(other, number)
            assert not any(task.done() for task in slow)
            (directory / "hold").unlink()
            await asyncio.gather(*slow)
            assert (one.logins, other.logins) == (1, 1)

    asyncio.run(asyncio.wait_for(talk(), 60))
    assert target.told == ""


def test_other_units_of_the_session_are_answered_while_a_disk_is_slow(target, directory):
    """However long it says nothing: what it is given meanwhile waits beside the connection, too."""

    async def talk():
        async with await _open(target, INITIATORS[0]) as session:
            await session.write(2, 0, bytes(4096))
            (directory / "delay").write_text(str(DELAY_SECONDS))
            await session.read(2, 0, 4096)  # here it is found to be slow
            (directory / "delay").unlink()
            (directory / "hold").touch()
            held, slow = time.monotonic(), []
            for seconds in (0, HELD_SECONDS / 4, HELD_SECONDS / 2, HELD_SECONDS):
                while time.monotonic() < held + seconds:
                    await _write_and_read(session, 0)
                    await asyncio.sleep(0.03)
                slow += [asyncio.create_task(session.write(2, len(slow) * 4096, bytes(4096), fua=True))]
                slow += [asyncio.create_task(session.read(2, 65536, 4096)), asyncio.create_task(session.flush(2))]
                for number in range(20):
                    await _write_and_read(session, number)
            assert not any(task.done() for task in slow)
            (directory / "hold").unlink()
            await asyncio.gather(*slow)
            await session.write(2, 0, b"q" * 4096)
            assert await session.read(2, 0, 4096) == b"q" * 4096
            assert session.logins == 1

    asyncio.run(asyncio.wait_for(talk(), 90))
    assert target.told == ""
