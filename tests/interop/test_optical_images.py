"""An optical image over iSCSI: libiscsi sees a disc, QEMU reads it to the octet, and nobody writes to it."""

import asyncio
import random
import struct
import subprocess

import pytest

from panloom.initiator import Session
from panloom.values import Iqn
from panloom.wire import scsi_cdb
from support.target_process import TargetProcess

OCTETS = 3_000 * 2048
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")
LEAD_OUT = 0xAA  # MMC-6 r02g 6.25.3


@pytest.fixture
def disc(tmp_path):
    (tmp_path / "disc.iso").write_bytes(random.Random(1).randbytes(OCTETS))
    with TargetProcess(tmp_path, "--lun", f"1={tmp_path / 'disc.iso'}") as target:
        yield target


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_cap_211_libiscsi_sees_a_disc(disc):
    code, told = run("iscsi-inq", disc.url(1))
    assert code == 0, told
    assert "Device Type:DIRECT_ACCESS" not in told.replace(" ", "")
    assert "MMC" in told
    code, told = run("iscsi-ls", "-s", f"iscsi://127.0.0.1:{disc.ports[0]}")
    assert "Lun:1" in told.replace(" ", "")


def test_cap_211_it_has_a_table_of_contents(disc):
    async def there():
        portal = ("127.0.0.1", disc.ports[0])
        async with await Session.open(portal, initiator=N1, target=Iqn(disc.iqn)) as session:
            assert await session.capacity(1) == (OCTETS // 2048, 2048)
            cdb = scsi_cdb.encode(scsi_cdb.ReadToc(0, 0, 0, 255))
            return await session.execute(1, cdb, data_in_octets=255, insistent=True)

    toc = asyncio.run(there()).data
    assert toc[:4] == bytes.fromhex("00120101")  # the first track is the last
    tracks = [struct.unpack(">xxBxI", toc[at : at + 8]) for at in (4, 12)]
    assert tracks == [(1, 0), (LEAD_OUT, OCTETS // 2048)]


def test_cap_211_qemu_reads_it_to_the_octet(disc, tmp_path):
    code, told = run("qemu-img", "convert", "-f", "raw", "-O", "raw", disc.url(1), str(tmp_path / "copy"))
    assert code == 0, told
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "disc.iso").read_bytes()


def test_cap_211_nobody_writes_to_it(disc, tmp_path):
    code, told = run("qemu-io", "-f", "raw", "-c", "write 0 2048", disc.url(1))
    assert code != 0 or "rror" in told, told
    assert (tmp_path / "disc.iso").read_bytes() == random.Random(1).randbytes(OCTETS)
