"""Reads as UEFI firmware makes them: tens of thousands of blocks by one command, the answer in many bursts."""

import asyncio
import random
import subprocess

import pytest

from panloom.initiator import Session
from panloom.protocol.iscsi_initiator_keys import Wishes
from panloom.storage.exports import Access, ExportedLun
from panloom.values import Iqn
from panloom.wire import scsi_cdb
from support.storage_process import StorageProcess

TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
NODE = Iqn("iqn.2026-11.dev.panloom:node.n1")
BLOCK = 512
FIRMWARE_BLOCKS = 37632  # OVMF's FAT driver through iPXE's initiator, a loader of 19 MB
MOST_BLOCKS = 65535  # what READ(10) can say
OCTETS = 40 << 20
FIRMWARE = Wishes(initial_r2t=True, immediate_data=False, max_burst_length=262144, first_burst_length=65536)


@pytest.fixture(scope="module")
def content():
    """The disk: an image of which the volume has overwritten a run here and there."""
    made = bytearray(random.Random(3).randbytes(OCTETS))
    return made, [(offset, random.Random(offset).randbytes(300 * BLOCK)) for offset in range(BLOCK, OCTETS, 7 << 20)]


@pytest.fixture(scope="module")
def process(tmp_path_factory, content):
    directory = tmp_path_factory.mktemp("large")
    image, runs = content
    (directory / "golden").write_bytes(image)

    async def prepare(client):
        await client.import_image("web@1", directory / "golden")
        await client.create_volume("shop.web1", "web@1", OCTETS)
        await client.export(str(TARGET), [ExportedLun(0, volume="shop.web1")], 1, Access(str(NODE)))

    async def write():
        async with await Session.open(("127.0.0.1", process.port), initiator=NODE, target=TARGET) as session:
            for offset, octets in runs:
                await session.write(0, offset, octets)
                image[offset : offset + len(octets)] = octets

    with StorageProcess(directory) as process:
        process.run(prepare)
        asyncio.run(write())
        yield process


@pytest.mark.parametrize("blocks", [FIRMWARE_BLOCKS, MOST_BLOCKS])
def test_one_read_of_many_bursts(process, content, blocks):
    async def read():
        opening = Session.open(("127.0.0.1", process.port), initiator=NODE, target=TARGET, wishes=FIRMWARE)
        async with asyncio.timeout(60), await opening as session:
            assert session.agreed.max_burst_length == FIRMWARE.max_burst_length
            cdb = scsi_cdb.encode(scsi_cdb.BlockCommand(scsi_cdb.Operation.READ_10, 0, 4, blocks))
            return await session.execute(0, cdb, data_in_octets=blocks * BLOCK, insistent=True)

    outcome = asyncio.run(read())
    assert (outcome.status, outcome.residual) == (0, 0)
    assert outcome.data == content[0][4 * BLOCK : (4 + blocks) * BLOCK]


def test_libiscsi_reads_as_much(process, content, tmp_path):
    copy, octets = tmp_path / "copy", FIRMWARE_BLOCKS * BLOCK
    source = {
        "driver": "raw",
        "size": octets,
        "file.driver": "iscsi",
        "file.transport": "tcp",
        "file.portal": f"127.0.0.1:{process.port}",
        "file.target": TARGET,
        "file.initiator-name": NODE,
    }
    options = ",".join(f"{name}={value}" for name, value in source.items())
    command = ("qemu-img", "dd", "--image-opts", f"if={options}", f"of={copy}", f"bs={octets}", "count=1")
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert copy.read_bytes() == content[0][:octets]
