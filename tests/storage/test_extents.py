"""Extents of volumes: where one is named it holds what a read gives, and cold data is not waited for."""

import errno
import os
import random
import threading

import pytest

from panloom.storage.exports import ExportedLun
from panloom.storage.frame import Callback, Frame, Operation
from panloom.storage.local_transport import LocalTransport
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel

OCTETS = 1 << 20


@pytest.fixture
def store(tmp_path):
    """A volume over two frozen files and an image, each with clusters of its own."""
    (tmp_path / "source").write_bytes(random.Random(1).randbytes(OCTETS // 2))
    store = VolumeStore(tmp_path / "store")
    store.import_image("web@1", tmp_path / "source")
    store.create("v", "web@1", OCTETS)
    rng = random.Random(2)
    for label in ("v@a", "v@b", ""):
        volume = store.open("v")
        for _ in range(20):
            at = rng.randrange(OCTETS // 512 - 64) * 512
            volume.write(volume.grant(1), at, memoryview(rng.randbytes(rng.randrange(1, 64) * 512)))
        if label:
            store.snapshot(label)
    yield store
    store.shut_down()


def test_an_extent_holds_what_a_read_gives(store):
    volume, rng, files = store.open("v"), random.Random(3), set()
    for _ in range(2000):
        at = rng.randrange(OCTETS // 512) * 512
        octets = min(rng.choice((512, 4096, 8192, 65536)), OCTETS - at)
        found = volume.extent(at, octets)
        if found is None:
            continue
        file, start = found
        wanted = bytearray(octets)
        volume.read(at, memoryview(wanted))
        assert os.pread(file.fd, octets, start) == wanted
        files.add(file)
    assert len(files) == 4  # its own file, two frozen ones, the image
    assert volume.extent(OCTETS - 512, 1024) is None
    volume.close()
    assert volume.extent(0, 512) is None


def test_what_is_cold_is_read_on_another_thread(store):
    def cold(fd, views, offset):
        raise BlockingIOError(errno.EAGAIN, "not in memory")

    transport, done = LocalTransport(store), []
    unit = transport.connect("iqn.2026-11.dev.panloom:t", ExportedLun(0, volume="v"), 1)
    wanted, found = bytearray(65536), bytearray(65536)
    store.open("v").read(0, memoryview(wanted))
    frame = Frame(Operation.READ, 0, 65536, memoryview(found))
    answered = threading.Event()

    def back(_, frame):
        done.append(threading.current_thread())
        answered.set()

    frame.context = Callback(back, None)
    with instead_of_the_kernel(SystemCalls(preadv_now=cold)):
        unit.send_handler(unit.context, frame)
        assert answered.wait(30)
    assert done != [threading.current_thread()]
    assert found == wanted
    transport.disconnect(unit)
