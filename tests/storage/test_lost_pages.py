"""The kernel loses pages and says so once for each opening of the file: whoever syncs meanwhile must not miss it."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel

DEADLINE = 20.0


class Kernel:
    """Syncs ask it what was lost since the same descriptor asked last; the next one of a kind can be held up before."""

    def __init__(self):
        self.lost = 0
        self._told = {}
        self._lock = threading.Lock()
        self._held = {}

    def calls(self):
        return SystemCalls(open=self._open, fdatasync=self._fdatasync, pwritev=self._pwritev)

    def hold(self, name):
        """Hold up the next call of this name; return what is set when it is there, and what lets it go on."""
        self._held[name] = threading.Event(), threading.Event()
        return self._held[name]

    def _open(self, path, flags, mode):
        fd = os.open(path, flags, mode)
        self._told[fd] = self.lost
        return fd

    def _fdatasync(self, fd):
        os.fdatasync(fd)
        self._ask("fdatasync", fd)

    def _pwritev(self, fd, views, offset, flags):
        count = os.pwritev(fd, views, offset, flags)
        if flags & os.RWF_DSYNC:
            self._ask("write through", fd)
        return count

    def _ask(self, name, fd):
        there, go_on = self._held.pop(name, (None, None))
        if there:
            there.set()
            assert go_on.wait(DEADLINE)
        with self._lock:
            told, self._told[fd] = self._told[fd], self.lost
        if told != self.lost:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def kernel():
    kernel = Kernel()
    with instead_of_the_kernel(kernel.calls()):
        yield kernel


@pytest.fixture
def volume(kernel, tmp_path):
    store = VolumeStore(tmp_path)
    store.create("v", None, 1 << 20)
    volume = store.open("v")
    volume.write(volume.grant(1), 0, memoryview(b"A" * 4096))
    volume.flush()
    volume.write(volume.grant(1), 0, memoryview(b"B" * 4096))  # its bit is durable: one sync is all that a flush makes
    yield volume
    store.shut_down()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as threads:
        yield threads


CHANGES = {
    "fence": lambda volume: volume.raise_epoch(3),
    "grow": lambda volume: volume.grow(2 << 20),
    "flatten": lambda volume: volume.begin_flattening(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_flush_is_refused_though_another_was_told_first(kernel, volume, threads, change):
    there, go_on = kernel.hold("fdatasync")
    flush = threads.submit(volume.flush)
    assert there.wait(DEADLINE)
    kernel.lost += 1
    with pytest.raises(OSError, match="Input/output error"):
        CHANGES[change](volume)
    go_on.set()
    assert flush.exception(DEADLINE).errno == errno.EIO


@pytest.mark.parametrize(("change", "name"), [("fence", "write through"), ("grow", "fdatasync")])
def test_so_is_a_header_whose_page_a_flush_has_lost(kernel, volume, threads, change, name):
    there, flush_on = kernel.hold("fdatasync")
    flush = threads.submit(volume.flush)
    assert there.wait(DEADLINE)
    there, change_on = kernel.hold(name)
    changed = threads.submit(CHANGES[change], volume)
    assert there.wait(DEADLINE)
    kernel.lost += 1
    flush_on.set()
    assert flush.exception(DEADLINE).errno == errno.EIO
    change_on.set()
    assert changed.exception(DEADLINE).errno == errno.EIO


def test_a_fence_does_not_wait_for_a_flush(kernel, volume, threads):
    there, go_on = kernel.hold("fdatasync")
    flush = threads.submit(volume.flush)
    assert there.wait(DEADLINE)
    volume.raise_epoch(3)
    assert volume.header.epoch == 3
    assert not flush.done()
    go_on.set()
    assert flush.exception(DEADLINE) is None
