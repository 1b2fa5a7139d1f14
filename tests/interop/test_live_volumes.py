"""Volumes that grow, are frozen, flattened and unmapped while initiators work on them, with kills in between."""

import asyncio
import random
import subprocess
import threading

import pytest

from panloom.errors import ConflictError, UnavailableError
from panloom.initiator import Session
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun
from panloom.values import Iqn
from panloom.wire import scsi_answers, scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, READ, WRITE, DataIn, NopIn
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.holes import data_octets
from support.initiator import Initiator, connect
from support.storage_process import StorageProcess
from support.waiting import until

NODE = "iqn.2026-11.dev.panloom:node.n1"
MIB = 1 << 20
IMAGE = random.Random(7).randbytes(3 * MIB)


def target(name):
    return f"iqn.2026-11.dev.panloom:shop.{name}"


@pytest.fixture
def process(tmp_path):
    source = tmp_path / "golden"
    source.write_bytes(IMAGE)
    with StorageProcess(tmp_path) as process:
        process.run(lambda client: client.import_image("web@1", source))
        process.run(lambda client: client.create_volume("shop.web1", "web@1", 64 * MIB))
        export(process, "web1")
        yield process


def export(process, name):
    luns = [ExportedLun(0, volume=f"shop.{name}")]
    process.run(lambda client: client.export(target(name), luns, 1, Access(NODE)))


class Node(Initiator):
    """An initiator that answers pings by the way."""

    def receive(self):
        while isinstance(answer := super().receive(), NopIn):
            self.answer(answer)
        return answer

    def content(self, lba, blocks):
        """Return what blocks hold."""
        octets = b""
        answer = self.read(lba, blocks)
        while len(octets) + len(answer.data) < blocks * 512:
            octets += answer.data
            answer = self.receive()
        return octets + answer.data


def node(process, name="web1"):
    """Return a session of an initiator that tells all that it is told."""
    names = {"InitiatorName": NODE, "TargetName": target(name)}
    return Node(connect(f"127.0.0.1:{process.port}"), names).log_in()


def facts(process, name):
    volumes = process.run(StorageClient.volumes)
    return next(volume for volume in volumes.volumes if volume.name == f"shop.{name}")


def tool(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def capacity(initiator):
    cdb = scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32)
    initiator.command(cdb, flags=FINAL | READ, expected=32)
    return initiator.receive().data


def test_a_session_learns_that_its_disk_has_grown(process):
    with node(process) as initiator:
        assert scsi_answers.decode_capacity(capacity(initiator), long=True)[0] == 64 * 2048
        assert initiator.write(64 * 2048, b"x" * 512).status != 0
        process.run(lambda client: client.grow_volume("shop.web1", 200 * MIB))
        initiator.command(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
        answer = initiator.receive()
        assert scsi_sense.decode(answer.data[2:]) == scsi_sense.CAPACITY_CHANGED
        initiator.command(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
        assert initiator.receive().status == 0  # told once
        assert scsi_answers.decode_capacity(capacity(initiator), long=True)[0] == 200 * 2048
        assert initiator.write(200 * 2048 - 8, b"x" * 4096, scsi_cdb.FUA).status == 0
        process.kill()
    process.start()
    with node(process) as initiator:
        assert scsi_answers.decode_capacity(capacity(initiator), long=True)[0] == 200 * 2048
        assert initiator.content(200 * 2048 - 8, 8) == b"x" * 4096
        assert initiator.content(64 * 2048, 8) == bytes(4096)
    assert "Total size:209715200" in tool("iscsi-readcapacity16", "-i", NODE, process.url(target("web1")))
    with pytest.raises(ConflictError, match="cannot become smaller"):
        process.run(lambda client: client.grow_volume("shop.web1", 64 * MIB))


def test_a_session_gets_and_loses_disks_while_it_goes_on(process):
    def have(*luns):
        disks = [ExportedLun(lun, volume=name) for lun, name in luns]
        process.run(lambda client: client.export(target("web1"), disks, 1, Access(NODE)))

    ready, first, more = scsi_cdb.Plain(Operation.TEST_UNIT_READY), (0, "shop.web1"), (3, "shop.more")
    write = {"flags": FINAL | WRITE, "expected": 4096, "data": b"m" * 4096, "lun": 3}
    process.run(lambda client: client.create_volume("shop.more", None, 16 * MIB))
    with node(process) as initiator:
        have(first, more)
        assert scsi_sense.decode(initiator.ask(ready).data[2:]) == scsi_sense.REPORTED_LUNS_CHANGED
        listed = initiator.ask(scsi_cdb.ReportLuns(0, 64), flags=FINAL | READ, expected=64).data
        assert listed[:4] + listed[9:10] + listed[17:18] == bytes((0, 0, 0, 16, 0, 3))
        assert scsi_sense.decode(initiator.ask(ready, lun=3).data[2:]) == scsi_sense.POWER_ON
        assert initiator.ask(BlockCommand(Operation.WRITE_10, scsi_cdb.FUA, 0, 8), **write).status == 0
        process.run(lambda client: client.grow_volume("shop.more", 32 * MIB))
        assert scsi_sense.decode(initiator.ask(ready, lun=3).data[2:]) == scsi_sense.CAPACITY_CHANGED
        have(first)
        refused = initiator.ask(BlockCommand(Operation.WRITE_10, scsi_cdb.FUA, 0, 8), **write)
        assert scsi_sense.decode(refused.data[2:]) == scsi_sense.NO_SUCH_UNIT
        assert initiator.ask(ready).status != 0  # told that the list has changed
        assert initiator.write(0, b"x" * 512).status == 0
        have(first, more)  # what was LUN 3 could be another disk by now: the session does not see it again
        assert initiator.receive() is None
    with node(process) as initiator:
        assert scsi_sense.decode(initiator.ask(ready, lun=3).data[2:]) == scsi_sense.POWER_ON
        content = initiator.ask(BlockCommand(Operation.READ_10, 0, 0, 8), flags=FINAL | READ, expected=4096, lun=3)
        assert content.data == b"m" * 4096
        have(first)
        process.run(lambda client: client.delete_volume("shop.more"))
        assert scsi_sense.decode(initiator.ask(ready).data[2:]) == scsi_sense.REPORTED_LUNS_CHANGED
        process.kill()
        assert initiator.receive() is None
    process.start()
    with node(process) as initiator:
        assert initiator.ask(scsi_cdb.ReportLuns(0, 64), flags=FINAL | READ, expected=64).data[:4] == bytes(
            (0, 0, 0, 8)
        )


def test_a_command_in_flight_and_a_grow_meet(process):
    """Commands without pause while the disk grows step by step: each is told of it, none is lost or refused."""

    async def talk():
        portal = "127.0.0.1", process.port
        async with (
            asyncio.timeout(60),
            await Session.open(portal, initiator=Iqn(NODE), target=Iqn(target("web1"))) as disk,
        ):
            writing = asyncio.create_task(write_for_ever(disk))
            client = StorageClient(process.socket)
            for step in range(1, 9):
                await client.grow_volume("shop.web1", (64 + step) * MIB)
                assert (await disk.capacity(0)).octets == (64 + step) * MIB
                await disk.write(0, (63 + step) * MIB, bytes([step]) * 4096)
            await client.close()
            writing.cancel()
            return await disk.read(0, 71 * MIB, 4096)

    async def write_for_ever(disk):
        while True:
            await disk.write(0, 0, b"y" * 4096)

    assert asyncio.run(talk()) == b"\x08" * 4096


class Writer:
    """Writes a counter to one block after the other, FUA, in a session of its own; knows what was answered."""

    BLOCKS = 64

    def __init__(self, process):
        self._process = process
        self.begun = self.answered = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        with node(self._process) as initiator:
            while not self._stop.is_set():
                self.begun += 1
                lba = 8 * (self.begun % self.BLOCKS)
                assert initiator.write(lba, self.begun.to_bytes(8, "big") * 512, scsi_cdb.FUA).status == 0
                self.answered = self.begun

    @staticmethod
    def last_in(octets):
        """Return the last number in a disk that must hold all before it, whole or, the last one, in part."""
        numbers = [int.from_bytes(octets[at : at + 8], "big") for at in range(0, 8 * 512 * Writer.BLOCKS, 512)]
        blocks = [set(numbers[at : at + 8]) for at in range(0, len(numbers), 8)]
        last = max(map(max, blocks))
        for number in range(max(1, last - Writer.BLOCKS + 1), last):
            assert blocks[number % Writer.BLOCKS] == {number}
        return last


def read_all(process, name):
    with node(process, name) as initiator:
        return b"".join(initiator.content(lba, 256) for lba in range(0, 8 * Writer.BLOCKS, 256))


def test_a_snapshot_holds_what_was_answered_and_nothing_that_came_after(process):
    with Writer(process) as writer:
        bounds = []
        for number in range(6):
            goal = writer.answered + 100
            until(lambda goal=goal: writer.answered > goal, "writes")
            before = writer.answered
            assert process.run(lambda client, number=number: client.take_snapshot(f"shop.web1@s{number}"))
            bounds.append((before, writer.begun))
    for number, (before, after) in enumerate(bounds):
        origin = f"shop.web1@s{number}"
        process.run(lambda client, n=number, o=origin: client.create_volume(f"shop.c{n}", None, 0, snapshot=o))
        export(process, f"c{number}")
        assert before <= Writer.last_in(read_all(process, f"c{number}")) <= after
    last = Writer.last_in(read_all(process, "web1"))
    process.kill()
    process.start()
    assert Writer.last_in(read_all(process, "web1")) == last
    assert bounds[2][0] <= Writer.last_in(read_all(process, "c2")) <= bounds[2][1]
    with pytest.raises(ConflictError, match="clone of snapshot"):
        process.run(lambda client: client.delete_snapshot("shop.web1@s2"))


def test_flattening_goes_on_after_a_kill_and_lets_go_of_the_snapshot(process):
    with node(process) as initiator:
        assert initiator.write(2048, b"m" * 4096).status == 0
    process.run(lambda client: client.take_snapshot("shop.web1@s"))
    process.run(lambda client: client.create_volume("shop.web2", None, 0, snapshot="shop.web1@s"))
    export(process, "web2")
    with node(process, "web2") as initiator:
        assert initiator.write(16, b"w" * 4096).status == 0
        process.run(lambda client: client.flatten_volume("shop.web2"))
        assert initiator.write(4096, b"x" * 4096, scsi_cdb.FUA).status == 0
    process.kill()
    process.start()
    until(lambda: not facts(process, "web2").flattening, "it is flat")
    process.run(lambda client: client.delete_snapshot("shop.web1@s"))
    assert facts(process, "web2").shared_octets == 0
    twin = bytearray(IMAGE)
    for lba, fill in ((2048, b"m"), (16, b"w"), (4096, b"x")):
        twin[lba * 512 : lba * 512 + 4096] = fill * 4096
    with node(process, "web2") as initiator:
        found = b"".join(initiator.content(lba, 256) for lba in range(0, 6144, 256))
        assert found == twin
        assert initiator.content(6144, 256) == bytes(256 * 512)


def test_unmapped_blocks_come_back_and_read_as_zeros_over_the_image(process, tmp_path):
    blocks = tmp_path / "store" / "volumes" / "shop.web1.volume"
    with node(process) as initiator:
        octets = capacity(initiator)
        assert octets[14] >> 6 == 3  # LBPME, LBPRZ: SBC-4 r22 5.21.2
        for lba in range(0, 16384, 128):
            assert initiator.write(lba, b"z" * 65536).status == 0
        initiator.command(BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0))
        assert initiator.receive().status == 0
        full = data_octets(blocks)
        ranges = scsi_cdb.encode_unmap_list(((0, 8192), (8192, 4096)))
        initiator.command(scsi_cdb.Unmap(0, len(ranges)), flags=FINAL | WRITE, expected=len(ranges), data=ranges)
        assert initiator.receive().status == 0
        same = BlockCommand(Operation.WRITE_SAME_16, scsi_cdb.SAME_UNMAP | scsi_cdb.SAME_NO_DATA, 12288, 2048)
        initiator.command(same)
        assert initiator.receive().status == 0
        assert data_octets(blocks) <= full - 14336 * 512
    process.kill()
    process.start()
    with node(process) as initiator:
        assert initiator.content(0, 256) == bytes(512 * 256)  # the image has other octets there
        assert initiator.content(14336 - 8, 16) == bytes(4096) + b"z" * 4096
    account = facts(process, "web1")
    assert account.unique_octets == account.allocated_octets < 2 * MIB
    assert account.shared_octets >= 3 * MIB  # the image


def test_a_thick_disk_never_runs_out_of_space(tmp_path):
    """On a tmpfs of 24 MiB: what is reserved can be written when nothing else can."""
    (tmp_path / "store").mkdir()
    (tmp_path / "noise").write_bytes(b"n" * 24 * MIB)
    mount = f'mount -t tmpfs -o size=24M none {tmp_path / "store"} && exec "$@"'
    with StorageProcess(tmp_path, prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as process:
        process.run(lambda client: client.create_volume("shop.web1", None, 8 * MIB, thick=True))
        process.run(lambda client: client.create_volume("shop.thin", None, 32 * MIB))
        with pytest.raises(UnavailableError, match="no space for a thick volume"):
            process.run(lambda client: client.create_volume("shop.web2", None, 20 * MIB, thick=True))
        for _ in range(2):
            with pytest.raises(UnavailableError, match="No space left"):
                process.run(lambda client: client.grow_volume("shop.web1", 30 * MIB))
        for name in ("web1", "thin"):
            export(process, name)
        assert facts(process, "web1").allocated_octets >= 8 * MIB
        with node(process, "thin") as initiator:
            lba = 0
            while initiator.write(lba, b"n" * 65536).status == 0:
                lba += 128
            assert lba < 32 * 2048
        with node(process) as initiator:
            assert capacity(initiator)[14] >> 6 == 0  # it gives nothing back
            for lba in range(0, 8 * 2048, 128):
                assert initiator.write(lba, b"%08d" % lba * 8192, scsi_cdb.FUA).status == 0
            assert initiator.content(256, 1) == b"00000256" * 64
            ranges = scsi_cdb.encode_unmap_list(((0, 8),))
            initiator.command(scsi_cdb.Unmap(0, len(ranges)), flags=FINAL | WRITE, expected=len(ranges), data=ranges)
            assert scsi_sense.decode(initiator.receive().data[2:]) == scsi_sense.INVALID_OPERATION
        with pytest.raises(UnavailableError, match="No space left"):
            process.run(lambda client: client.take_snapshot("shop.web1@s"))
        with node(process) as initiator:
            assert isinstance(initiator.read(0, 1), DataIn)
            assert initiator.write(0, b"a" * 512, scsi_cdb.FUA).status == 0
