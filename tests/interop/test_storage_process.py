"""The storage process under real initiators (libiscsi, qemu-io, qemu-img), real kills, fences and full disks."""

import random
import re
import signal
import subprocess
import sys
import threading

import pytest

from panloom.errors import ConflictError, UnavailableError
from panloom.storage.exports import Access, ExportedLun
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import FINAL, OVERFLOW, UNDERFLOW
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.initiator import Initiator, connect
from support.storage_process import StorageProcess
from support.waiting import until

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
NODE = "iqn.2026-11.dev.panloom:node.n1"
SPARE = "iqn.2026-11.dev.panloom:node.n2"
SECRET = "0123456789ab"
MIB = 1 << 20
FAILURE = re.compile(r"(read|write|discard|flush) failed|verification failed|can't open")
DISK = [ExportedLun(0, volume="shop.web1")]


@pytest.fixture
def process(tmp_path):
    source = tmp_path / "golden"
    source.write_bytes(random.Random(7).randbytes(3 * MIB))
    with StorageProcess(tmp_path) as process:
        prepare(process, source)
        yield process


def prepare(process, source, octets=64 * MIB):
    async def calls(client):
        await client.import_image("web@1", source)
        await client.create_volume("shop.web1", "web@1", octets)
        await client.export(TARGET, DISK, 1, Access(NODE, user="web1", secret=SECRET))

    process.run(calls)


def options(process, initiator=NODE, user="web1", secret=SECRET):
    """QEMU's block options of the disk, as one initiator."""
    return (
        f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=127.0.0.1:{process.port},file.target={TARGET},"
        f"file.lun=0,file.initiator-name={initiator},file.user={user},file.password={secret}"
    )


def qemu_io(process, *commands, check=True, initiator=NODE):
    """Run qemu-io's commands one after the other; it flushes when it is told to."""
    each = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", "--image-opts", *each, options(process, initiator)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if check and (done.returncode or FAILURE.search(said)):
        raise AssertionError(said)
    return said


def on_volume(process, offset, length):
    """Return the volume's octets, read by a new store after the process has ended."""
    read = (
        "import sys, pathlib\n"
        "from panloom.storage.volume_store import VolumeStore\n"
        "volume = VolumeStore(pathlib.Path(sys.argv[1])).open('shop.web1')\n"
        "octets = bytearray(int(sys.argv[3]))\n"
        "volume.read(int(sys.argv[2]), memoryview(octets))\n"
        "sys.stdout.buffer.write(octets)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", read, process.directory, str(offset), str(length)], capture_output=True, check=True
    ).stdout


def read_all(process, directory, initiator):
    """Return the whole disk as an initiator reads it."""
    copy = directory / "copy"
    tool("qemu-img", "convert", "--image-opts", "-O", "raw", options(process, initiator), str(copy))
    return copy.read_bytes()


def tool(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)


def test_libiscsi_finds_the_disk(process):
    url = process.url(TARGET, user="web1", secret=SECRET)
    portal = f"iscsi://web1%{SECRET}@127.0.0.1:{process.port}"
    assert f"Target:{TARGET} " in tool("iscsi-ls", "-s", "-i", NODE, portal).stdout
    assert TARGET not in tool("iscsi-ls", "-s", "-i", SPARE, portal).stdout
    assert "PANLOOM" in tool("iscsi-inq", "-i", NODE, url).stdout
    assert "Total size:67108864" in tool("iscsi-readcapacity16", "-i", NODE, url).stdout


def test_patterns_over_the_image_and_beyond(process):
    qemu_io(
        process,
        "write -P 0xa1 0 4k", "write -P 0xa2 512 512", "write -P 0xa3 2M 5M", "write -z 1M 64k",
        "write -f -P 0xa4 40M 512",
        "flush", "read -P 0xa1 0 512", "read -P 0xa2 512 512", "read -P 0xa1 1k 3k", "read -P 0xa3 2M 5M",
        "read -P 0 1M 64k", "read -P 0 7M 1M", "discard 3M 1M", "read -P 0 3M 1M", "read -P 0xa3 4M 3M",
        "read -P 0xa4 40M 512",
    )  # fmt: skip


RESIDUALS = [  # blocks of the command, octets that the initiator says it sends, flags, residual, blocks written
    (1, 1024, UNDERFLOW, 512, 1),
    (2, 512, OVERFLOW, 512, 1),
    (1, 10000, UNDERFLOW, 9488, 1),
    (1, 0, OVERFLOW, 512, 0),
    (1, 200, OVERFLOW, 312, None),  # refused: a part of a block
    (2, 700, OVERFLOW, 324, None),
]


@pytest.mark.parametrize("operation", [Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16], ids=str)
def test_writes_of_less_or_more_than_the_initiator_sends(process, operation):
    with Initiator(connect(f"127.0.0.1:{process.port}"), {"InitiatorName": NODE, "TargetName": TARGET}) as node:
        assert node.log_in_with("web1", SECRET) == (0, 0)
        node.ready()
        for blocks, octets, flag, residual, written in RESIDUALS:
            assert node.write(0, b"a" * 8192).status == 0
            cdb = BlockCommand(operation, 0, 0, blocks)
            node.command(cdb, flags=FINAL | iscsi.WRITE, expected=octets, data=b"b" * octets)
            answer = node.receive()
            assert (answer.flags, answer.residual_count) == (FINAL | flag, residual), octets
            if written is None:
                assert scsi_sense.decode(answer.data[2:]) == scsi_sense.INVALID_FIELD_IN_COMMAND_IU
            else:
                assert answer.status == 0
            assert node.read(0, 16).data == (b"b" * 512 * (written or 0)).ljust(8192, b"a"), octets


def test_convert_both_ways_and_compare(process, tmp_path):
    source = tmp_path / "other"
    source.write_bytes(random.Random(8).randbytes(64 * MIB))
    target = ["--target-image-opts", options(process)]
    assert tool("qemu-img", "convert", "-n", "-f", "raw", *target[:1], str(source), target[1]).returncode == 0
    back = tmp_path / "back"
    assert tool("qemu-img", "convert", "--image-opts", "-O", "raw", options(process), str(back)).returncode == 0
    assert tool("cmp", str(source), str(back)).returncode == 0
    # The golden image knows nothing of it.
    (image,) = (process.directory / "images").iterdir()
    assert image.read_bytes() == random.Random(7).randbytes(3 * MIB)


class Writer(threading.Thread):
    """An initiator that writes its numbered tag without pause, each with FUA, and knows which were acknowledged."""

    def __init__(self, process, first_block=0):
        super().__init__()
        self.acknowledged = 0
        self.first_block = first_block
        self._end = threading.Event()
        self._process = subprocess.Popen(
            ["qemu-io", "-t", "writeback", "--image-opts", options(process)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.start()

    def run(self):
        """Tag block after block; block n holds the octet n % 251 + 1."""
        with self._process as qemu:
            while not self._end.is_set():
                number = self.acknowledged
                try:
                    qemu.stdin.write(f"write -f -P {number % 251 + 1} {(self.first_block + number) * 4096} 4096\n")
                    qemu.stdin.flush()
                except BrokenPipeError:
                    break
                if not self._told(qemu):
                    break
                self.acknowledged += 1
            qemu.kill()

    def _told(self, qemu):
        for line in qemu.stdout:
            if "ops" in line:
                return True
            if "failed" in line or "Input/output" in line:
                return False
        return False

    def signal(self, number):
        self._process.send_signal(number)

    def finish(self):
        self._end.set()
        self._process.kill()
        self.join()


def blocks_are_right(octets, acknowledged):
    for number in range(acknowledged):
        assert octets[number * 4096 : (number + 1) * 4096] == bytes([number % 251 + 1]) * 4096, f"block {number}"


def test_what_was_acknowledged_survives_kill_9_under_load(process):
    golden = random.Random(7).randbytes(3 * MIB)
    blocks = 0
    for _ in range(4):
        writer = Writer(process, first_block=blocks)
        until(lambda writer=writer: writer.acknowledged >= 30, "writes are acknowledged")
        process.kill()
        writer.finish()
        octets = on_volume(process, blocks * 4096, 64 * MIB - blocks * 4096)
        blocks_are_right(octets, writer.acknowledged)
        blocks += writer.acknowledged + 1  # one more may have been under way
        untouched = golden[blocks * 4096 :]
        assert octets[(writer.acknowledged + 1) * 4096 :].startswith(untouched)
        process.start()  # no control process there: it serves from its own file
    qemu_io(process, "read 0 64M")


@pytest.mark.parametrize("stopped", [False, True], ids=["writing", "stopped"])
def test_a_fence_on_the_living(process, tmp_path, stopped):
    """The victim writes without pause, or is stopped and continued: nothing of it lands once it is fenced off."""
    writer = Writer(process)
    until(lambda: writer.acknowledged >= 30, "writes are acknowledged")
    if stopped:
        writer.signal(signal.SIGSTOP)

    async def fence(client):
        await client.revoke(TARGET, 2)
        await client.drop(TARGET)
        await client.drain(TARGET)
        await client.export(TARGET, DISK, 2, Access(SPARE, user="web1", secret=SECRET))

    process.run(fence)
    acknowledged = writer.acknowledged
    after_fence = read_all(process, tmp_path, SPARE)
    writer.signal(signal.SIGCONT)
    until(lambda: process.log.read_text().count(f"initiator={NODE} target={TARGET} why=") > 2, "the victim is refused")
    assert read_all(process, tmp_path, SPARE) == after_fence
    blocks_are_right(after_fence, acknowledged)
    assert "Authorization failure" in qemu_io(process, "read 0 512", check=False)
    with pytest.raises(ConflictError):
        process.run(lambda client: client.export(TARGET, DISK, 1, Access(NODE, user="web1", secret=SECRET)))
    writer.finish()


def test_a_login_takes_over_the_session_that_never_logged_out(process):
    first = Writer(process)
    until(lambda: first.acknowledged >= 5, "writes are acknowledged")
    first.signal(signal.SIGSTOP)  # as firmware falls silent; it would come back and take over in its turn
    second = Writer(process, first_block=8192)
    until(lambda: second.acknowledged >= 5, "the second session writes")
    (session,) = process.run(lambda client: client.status()).sessions
    assert session.writes >= 5
    first.finish()
    second.finish()


def test_a_full_disk_is_a_clean_error_and_loses_nothing(tmp_path):
    """A tmpfs of 8 MiB in a mount namespace of its own: no room for the volume, but for a fence."""
    (tmp_path / "store").mkdir()
    source = tmp_path / "golden"
    source.write_bytes(b"golden!!" * 8192)
    mount = f'mount -t tmpfs -o size=8M none {tmp_path / "store"} && exec "$@"'
    with StorageProcess(tmp_path, prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as process:
        prepare(process, source)
        large = tmp_path / "large"
        large.write_bytes(b"large!!!" * (2 << 20))
        with pytest.raises(UnavailableError, match="16 MiB are needed"):  # before it fills the disk
            process.run(lambda client: client.import_image("large@1", large))
        writer = Writer(process)
        writer.join(60)
        assert writer.acknowledged > 1000
        said = qemu_io(process, f"write -P 9 {(writer.acknowledged + 64) * 4096} 64k", check=False)
        assert "No space left on device" in said
        reads = [f"read -P {number % 251 + 1} {number * 4096} 4096" for number in range(0, writer.acknowledged, 17)]
        qemu_io(process, *reads, "write -f -P 77 0 4096", "read -P 77 0 4096")

        async def fence(client):
            await client.revoke(TARGET, 2)
            await client.drop(TARGET)
            await client.drain(TARGET)
            await client.export(TARGET, DISK, 2, Access(SPARE, user="web1", secret=SECRET))
            return await client.status()

        assert process.run(fence).exports[0].epoch == 2
        qemu_io(process, "read -P 77 0 4096", "discard 4096 1M", "write -P 9 32M 512k", "flush", initiator=SPARE)
