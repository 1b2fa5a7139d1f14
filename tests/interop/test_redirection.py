"""A target that has moved from one process to another, and libiscsi's tools that go after it."""

import asyncio
import re
import subprocess

import pytest

from panloom.errors import ConfigError
from panloom.initiator import Session
from panloom.storage.exports import Access, ExportedLun, Moved
from panloom.values import Iqn
from support.initiator import Initiator, connect
from support.storage_process import StorageProcess
from support.target_process import TargetProcess

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
INITIATOR = Iqn("iqn.2026-11.dev.panloom:node.n1")
NAMES = {"InitiatorName": str(INITIATOR), "TargetName": TARGET, "SessionType": "Normal"}
DISK = [ExportedLun(0, volume="shop.web1")]
ACCESS = Access(None, user="web1", secret="secret-of-web1")
PROOF = ("web1", "secret-of-web1")
MIB = 1 << 20


def run(*command):
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def export(process, octets, access=ACCESS):
    async def calls(client):
        await client.create_volume("shop.web1", None, octets)
        await client.export(TARGET, DISK, 1, access)

    process.run(calls)


def move(process, portal, *, permanent=False):
    moved = Moved(portal, permanent)
    process.run(lambda client: client.export(TARGET, [], 1, ACCESS, moved=moved))


def octets_found(process):
    """Return how large the disk is to which an initiator gets that asks a process for the target."""
    told = run("iscsi-readcapacity16", process.url(TARGET, user=PROOF[0], secret=PROOF[1]))
    return 512 * (int(re.search(r"RETURNED LOGICAL BLOCK ADDRESS:([0-9]+)", told)[1]) + 1)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "here").mkdir()
    with StorageProcess(tmp_path / "here") as process:
        export(process, 1 * MIB)
        yield process


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there").mkdir()
    with StorageProcess(tmp_path / "there") as process:
        export(process, 8 * MIB)
        yield process


@pytest.fixture
def session(here):
    """A session with the target while it is here."""
    with Initiator(connect(f"127.0.0.1:{here.port}"), NAMES) as session:
        assert session.log_in_with(*PROOF) == (0, 0)
        session.ready()
        yield session


def test_a_target_moves_to_another_process_and_back(here, there, session):
    portal = f"127.0.0.1:{there.port}"
    assert octets_found(here) == 1 * MIB
    move(here, portal)
    assert session.receive() is None
    assert here.run(lambda client: client.status()).sessions == ()
    for _ in range(2):
        assert octets_found(here) == 8 * MIB
        listed = run("iscsi-ls", "-s", f"iscsi://{PROOF[0]}%{PROOF[1]}@127.0.0.1:{here.port}")
        assert f"Target:{TARGET} " in listed
        assert "(Size:7M)" in listed  # it takes the address of the last block for the size, and cuts it off
        assert "Vendor:PANLOOM" in run("iscsi-inq", here.url(TARGET, user=PROOF[0], secret=PROOF[1]))
        here.kill()
        here.start()
        (told,) = here.run(lambda client: client.status()).exports
        assert told.moved == Moved(portal)
    export(here, 1 * MIB)
    assert octets_found(here) == 1 * MIB


def test_a_target_moves_for_good(here, there):
    """libiscsi 1.19 says so and goes no further; our own initiator follows."""
    move(here, f"127.0.0.1:{there.port}", permanent=True)
    url = here.url(TARGET, user=PROOF[0], secret=PROOF[1])
    refused = subprocess.run(["iscsi-inq", url], capture_output=True, text=True, timeout=60, check=False)
    assert "Target moved permanently" in refused.stderr

    async def find():
        session = await Session.open(
            ("127.0.0.1", here.port), initiator=INITIATOR, target=Iqn(TARGET), user=PROOF[0], secret=PROOF[1]
        )
        async with session:
            return (await session.capacity(0)).octets

    assert asyncio.run(find()) == 8 * MIB


def test_a_target_does_not_move_to_where_it_is(here, session):
    with pytest.raises(ConfigError, match="is this process itself, and initiators would go in a circle"):
        move(here, f"127.0.0.1:{here.port}")
    assert session.read(0, 1).status == 0
    assert [told.moved for told in here.run(lambda client: client.status()).exports] == [None]


def test_a_target_that_stands_alone_sends_initiators_elsewhere(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with TargetProcess(tmp_path / "there", "--lun", "1=mem:8M") as there:
        elsewhere = f"127.0.0.1:{there.ports[0]}"
        with TargetProcess(tmp_path / "here", "--moved", elsewhere) as here:
            assert "(Size:7M)" in run("iscsi-ls", "-s", f"iscsi://127.0.0.1:{here.ports[0]}")
            assert "Vendor:PANLOOM" in run("iscsi-inq", here.url(1))
            assert here.end() == 0
