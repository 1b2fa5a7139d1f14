"""Written, unmapped, flushed, reopened, killed and unplugged: the volume reads as a plain bytearray would."""

import errno
import os
import random
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from panloom.disk_io import SyncError
from panloom.durable_names import Directory
from panloom.errors import ConfigError, ConflictError
from panloom.storage import volume_file
from panloom.storage.descriptor import StaleEpochError
from panloom.storage.image import ImageStore
from panloom.storage.overlay import Volume
from panloom.storage.volume_file import create_volume
from panloom.storage.volume_header import HEADER_OCTETS
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.holes import data_octets
from support.waiting import until

IDENTITY = b"\x31234567"
IMAGE = random.Random(1).randbytes(21_700)  # five clusters, and a tail that is no whole block
SECTORS = 12 * 8 + 3
OCTETS = SECTORS * 512
RANGES = st.one_of(
    st.tuples(st.integers(0, OCTETS - 1), st.integers(1, 14_000)),
    st.tuples(st.integers(0, 12), st.integers(1, 4)).map(lambda run: (run[0] * 4096, run[1] * 4096)),
).map(lambda run: (run[0], min(run[1], OCTETS - run[0])))


def read(volume, offset=0, length=OCTETS):
    octets = bytearray(length)
    volume.read(offset, memoryview(octets))
    return bytes(octets)


@pytest.fixture
def image(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(IMAGE)
    return ImageStore(tmp_path / "images").import_file("web@1", source)


@pytest.fixture
def path(tmp_path, image):
    create_volume(Directory(tmp_path), "v.volume", octets=OCTETS, image=image, identity=IDENTITY)
    return tmp_path / "v.volume"


class PowerCutError(Exception):
    """The machine stops here."""


@contextmanager
def stopping_after(steps):
    """Let the process die after so many changes of the file."""
    left = [steps]
    real = {name: getattr(volume_file, name) for name in ("write_fully", "zero_range")}

    def counted(name):
        def change(*arguments, **options):
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            real[name](*arguments, **options)

        return change

    for name in real:
        setattr(volume_file, name, counted(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(volume_file, name, function)


class Twin(RuleBasedStateMachine):
    """A volume beside a bytearray.

    ``may_be`` says for each sector what a power cut may leave: what it was at the last flush that was acknowledged, or
    anything that it has been since.
    """

    def __init__(self):
        super().__init__()
        self.directory = Path(os.environ["PANLOOM_TEST_DIRECTORY"])
        for file in self.directory.rglob("*.volume"):
            file.unlink()
        images = ImageStore(self.directory / "images")
        (self.directory / "source").write_bytes(IMAGE)
        self.image = images.import_file("web@1", self.directory / "source")
        self.path = self.directory / "v.volume"
        self.boot = 1
        self.epoch = 1
        self.syncs_left = None

    @initialize(with_image=st.booleans())
    def begin(self, with_image):
        self.image = self.image if with_image else None
        create_volume(Directory(self.directory), self.path.name, octets=OCTETS, image=self.image, identity=IDENTITY)
        self.twin = bytearray((IMAGE if with_image else b"").ljust(OCTETS, b"\0"))
        self.on_disk = self.path.read_bytes()
        self.open()
        self.settle()

    def open(self):
        self.volume = Volume.open(self.path, self.image, boot_id=bytes([self.boot]) * 16)
        self.volume._sync = self.sync
        self.grant = self.volume.grant(self.epoch)

    def sync(self, _):
        """What the disk has for certain from here on."""
        if self.syncs_left == 0:
            raise PowerCutError
        if self.syncs_left:
            self.syncs_left -= 1
        self.on_disk = self.path.read_bytes()

    def settle(self):
        self.may_be = [{self.sector(number)} for number in range(SECTORS)]

    def sector(self, number):
        return bytes(self.twin[number * 512 : (number + 1) * 512])

    def note(self, offset, length):
        for number in range(offset // 512, -(-(offset + length) // 512)):
            self.may_be[number].add(self.sector(number))

    @rule(where=RANGES, fill=st.integers(1, 255))
    def write(self, where, fill):
        offset, length = where
        data = bytes([fill]) * length
        self.volume.write(self.grant, offset, memoryview(data))
        self.twin[offset : offset + length] = data
        self.note(offset, length)

    @rule(where=RANGES)
    def unmap(self, where):
        offset, length = where
        self.volume.unmap(self.grant, offset, length)
        self.twin[offset : offset + length] = bytes(length)
        self.note(offset, length)

    @rule()
    def flush(self):
        self.volume.flush()
        self.settle()

    @rule()
    def close_and_open(self):
        self.volume.close()
        self.open()
        self.settle()

    @rule()
    def kill(self):
        self.open()

    @rule(where=RANGES, fill=st.integers(1, 255), steps=st.integers(0, 3), unmap=st.booleans())
    def kill_in_the_midst(self, where, fill, steps, unmap):
        """After so many writes to the file; what the call was to change may be old or new in each sector."""
        offset, length = where
        data = bytes(length) if unmap else bytes([fill]) * length
        before = bytes(self.twin)
        with stopping_after(steps):
            try:
                if unmap:
                    self.volume.unmap(self.grant, offset, length)
                else:
                    self.volume.write(self.grant, offset, memoryview(data))
            except PowerCutError:
                pass
        self.twin[offset : offset + length] = data
        self.note(offset, length)
        self.open()
        found = read(self.volume)
        for start in range(0, OCTETS, 512):
            there = found[start : start + 512]
            assert there in (before[start : start + 512], self.twin[start : start + 512]), f"sector {start // 512}"
        self.twin[:] = found

    @rule()
    def raise_epoch(self):
        self.epoch += 1
        self.volume.raise_epoch(self.epoch)
        self.grant = self.volume.grant(self.epoch)

    @rule(seed=st.integers(0, 2**32), syncs=st.sampled_from([None, 0, 1]))
    def cut_the_power(self, seed, syncs):
        """Between two calls, or in the midst of a flush; of what was not synced, each sector is there or not."""
        if syncs is not None:
            self.syncs_left = syncs
            try:
                self.volume.flush()
                self.settle()
            except PowerCutError:
                pass
            self.syncs_left = None
        there, chance = self.path.read_bytes(), random.Random(seed)
        left = bytearray(there)
        for start in range(2 * HEADER_OCTETS, len(there), 512):  # headers are written through
            if chance.random() < 0.5:
                left[start : start + 512] = self.on_disk[start : start + 512]
        with self.path.open("wb") as file:  # holes stay holes
            file.truncate(len(left))
            for start in range(0, len(left), 4096):
                if any(left[start : start + 4096]):
                    file.seek(start)
                    file.write(left[start : start + 4096])
        self.on_disk = bytes(left)
        self.boot += 1
        self.open()
        found = read(self.volume)
        for number in range(SECTORS):
            assert found[number * 512 : (number + 1) * 512] in self.may_be[number], f"sector {number}"
        self.twin[:] = found
        self.settle()

    @invariant()
    def reads_as_the_twin(self):
        assert read(self.volume) == self.twin
        assert self.volume.epoch in (self.epoch, 0)


Twin.TestCase.settings = settings(max_examples=250, stateful_step_count=30, deadline=None)


class TestTwin(Twin.TestCase):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PANLOOM_TEST_DIRECTORY", str(tmp_path))


def test_unaligned_reads_cross_runs(path, image):
    volume = Volume.open(path, image)
    grant = volume.grant(1)
    twin = bytearray(IMAGE.ljust(OCTETS, b"\0"))
    for cluster in (0, 2, 3, 7):
        volume.write(grant, cluster * 4096 + 100, memoryview(b"x" * 1000))
        twin[cluster * 4096 + 100 : cluster * 4096 + 1100] = b"x" * 1000
    for offset in range(0, OCTETS - 9000, 1777):
        assert read(volume, offset, 9000) == twin[offset : offset + 9000]


def test_a_torn_header_leaves_the_other_copy(path, image):
    volume = Volume.open(path, image)  # sequence 1, in the second copy
    volume.raise_epoch(3)  # sequence 2, in the first
    with path.open("r+b") as file:
        file.write(b"torn" * 128)
    assert Volume.open(path, image).epoch == 0
    with path.open("r+b") as file:
        file.write(b"torn" * 2048)
    with pytest.raises(ConfigError, match="no valid header"):
        Volume.open(path, image)


def test_the_epoch_is_durable_and_never_goes_down(path, image):
    Volume.open(path, image).raise_epoch(5)
    volume = Volume.open(path, image)
    assert volume.epoch == 5
    with pytest.raises(ConflictError):
        volume.raise_epoch(4)
    with pytest.raises(StaleEpochError):
        volume.grant(4)


def test_an_older_grant_writes_nothing(path, image):
    volume = Volume.open(path, image)
    old = volume.grant(1)
    volume.raise_epoch(2)
    with pytest.raises(StaleEpochError):
        volume.write(old, 0, memoryview(b"late"))
    with pytest.raises(StaleEpochError):
        volume.unmap(old, 0, 4096)
    ended = volume.grant(2)
    volume.end(ended)
    with pytest.raises(StaleEpochError):
        volume.write(ended, 0, memoryview(b"late"))
    assert read(volume) == IMAGE.ljust(OCTETS, b"\0")


def test_ending_a_grant_waits_for_the_write_under_way(path, image):
    """A writer tags a sector without pause; once ``end`` has returned the tag never changes again."""
    volume = Volume.open(path, image)
    grant = volume.grant(1)
    acknowledged = []

    def write():
        try:
            for count in range(10**9):
                volume.write(grant, 0, memoryview(count.to_bytes(512, "big")))
                acknowledged.append(count)
        except StaleEpochError:
            return

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: len(acknowledged) > 50, "some writes")
    volume.end(grant)
    after_fence = read(volume, 0, 512)
    writer.join()
    assert read(volume, 0, 512) == after_fence == acknowledged[-1].to_bytes(512, "big")


def test_after_a_failed_sync_nothing_works_and_nothing_is_believed(path, image):
    volume = Volume.open(path, image)
    grant = volume.grant(1)
    volume.write(grant, 0, memoryview(b"x" * 4096))
    fd = volume._stack[0].fd
    real = os.dup(fd)
    read_end, write_end = os.pipe()
    os.dup2(write_end, fd)  # a pipe cannot be synced: EINVAL, as real as EIO
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            volume.flush()
    finally:
        os.dup2(real, fd)
        for each in (real, read_end, write_end):
            os.close(each)
    for call in (volume.flush, lambda: read(volume), lambda: volume.write(grant, 0, memoryview(b"x"))):
        with pytest.raises(OSError, match="offline") as failure:
            call()
        assert failure.value.errno == errno.EIO


def test_what_a_flush_had_no_memory_for_is_written_by_the_next(path, image):
    volume = Volume.open(path, image, boot_id=b"1" * 16)
    volume.write(volume.grant(0), 0, memoryview(b"x" * 4096))

    def none_left(fd, views, offset, flags):
        raise MemoryError

    with instead_of_the_kernel(SystemCalls(pwritev=none_left)), pytest.raises(MemoryError):
        volume.flush()
    volume.flush()
    assert read(Volume.open(path, image, boot_id=b"2" * 16), 0, 4096) == b"x" * 4096  # by the durable map


def test_a_full_disk_cannot_refuse_a_header(path, image):
    """Both copies have their space from the start."""
    assert path.stat().st_blocks * 512 >= 2 * HEADER_OCTETS
    Volume.open(path, image).raise_epoch(2)


def test_a_file_without_space_for_its_other_header_opens_once_there_is_some(path, image):
    with path.open("r+b") as file:
        page = file.read(HEADER_OCTETS)
        file.truncate(0)
        file.seek(0)
        file.write(page)
        file.truncate(HEADER_OCTETS * 4 + OCTETS)

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    with instead_of_the_kernel(SystemCalls(posix_fallocate=full)), pytest.raises(OSError, match="No space") as refused:
        Volume.open(path, image)
    assert not isinstance(refused.value, SyncError)
    Volume.open(path, image).raise_epoch(2)


def test_a_thick_volume_that_finds_no_space_to_grow_gives_back_what_it_took(tmp_path):
    create_volume(Directory(tmp_path), "v.volume", octets=OCTETS, identity=IDENTITY, thick=True)
    path = tmp_path / "v.volume"
    volume = Volume.open(path, None)
    volume.write(volume.grant(0), OCTETS - 512, memoryview(b"x" * 512))
    before = path.stat()

    def fill_up(fd, offset, length):
        os.posix_fallocate(fd, offset, length // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    with instead_of_the_kernel(SystemCalls(posix_fallocate=fill_up)), pytest.raises(OSError, match="No space left"):
        volume.grow(64 << 20)
    after = path.stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)
    assert read(volume, OCTETS - 512, 512) == b"x" * 512
    volume.grow(1 << 20)
    assert read(volume, OCTETS, 512) == bytes(512)


def test_a_volume_that_was_closed_fences_and_writes_no_header(path, image):
    """It may have been opened anew: a header of the old one would take back what the new one was told."""
    old = Volume.open(path, image)
    old.raise_epoch(3)
    grant = old.grant(3)
    old.close()
    new = Volume.open(path, image)
    new.grow(2 * OCTETS)
    new.raise_epoch(9)
    before = path.read_bytes()
    for epoch in (3, 5, 10):
        with pytest.raises(OSError, match="offline") as failure:
            old.raise_epoch(epoch)
        assert failure.value.errno == errno.EIO
    assert path.read_bytes() == before
    with pytest.raises(StaleEpochError):
        old.write(grant, 0, memoryview(b"late"))


def test_a_volume_that_is_lost_writes_no_header_into_the_file_that_was_frozen(tmp_path):
    """Nobody knows whether the new file took its name: the old one is perhaps a snapshot."""
    store = VolumeStore(tmp_path)
    store.create("v", None, 1 << 20)
    volume = store.open("v")
    volume.raise_epoch(3)
    renamed = []

    def rename(path, other):
        path.rename(other)
        renamed.append(other)

    def fsync(fd):
        if renamed and not renamed[1:]:
            renamed.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    with instead_of_the_kernel(SystemCalls(rename=rename, fsync=fsync)), pytest.raises(OSError, match="Input/output"):
        store.snapshot("v@a")
    frozen = tmp_path / "volumes" / "v@a.snapshot"
    before = frozen.read_bytes()
    with pytest.raises(OSError, match="offline"):
        volume.raise_epoch(9)
    assert volume.epoch == 9
    assert frozen.read_bytes() == before
    store.shut_down()


def test_several_threads_share_a_volume(path, image):
    volume = Volume.open(path, image)
    grant = volume.grant(1)
    twin = bytearray(IMAGE.ljust(OCTETS, b"\0"))

    def work(sector_of_cluster):
        for cluster in range(12):
            offset = cluster * 4096 + sector_of_cluster * 512
            volume.write(grant, offset, memoryview(bytes([sector_of_cluster + 1]) * 512))
            assert read(volume, offset, 512) == bytes([sector_of_cluster + 1]) * 512
            volume.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for cluster in range(12):
        for number in range(4):
            offset = cluster * 4096 + number * 512
            twin[offset : offset + 512] = bytes([number + 1]) * 512
    assert read(volume) == twin


def test_unmap_gives_the_blocks_back(path, image):
    volume = Volume.open(path, image)
    grant = volume.grant(1)
    volume.write(grant, 0, memoryview(b"x" * OCTETS))
    volume.flush()
    full = data_octets(path)
    volume.unmap(grant, 4096, 10 * 4096)
    volume.flush()
    assert data_octets(path) <= full - 10 * 4096


def test_a_file_that_was_cut_short_is_refused(path, image):
    os.truncate(path, path.stat().st_size - 512)
    with pytest.raises(ConfigError, match="shorter"):
        Volume.open(path, image)


def test_another_image_is_refused(path, tmp_path):
    source = tmp_path / "other"
    source.write_bytes(b"other")
    other = ImageStore(tmp_path / "others").import_file("web@1", source)
    for wrong in (other, None):
        with pytest.raises(ConfigError, match="needs the image web@1"):
            Volume.open(path, wrong)


def test_a_closed_volume_is_offline(path, image):
    volume = Volume.open(path, image)
    volume.close()
    with pytest.raises(OSError, match="offline"):
        read(volume)
