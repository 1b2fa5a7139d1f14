"""A disk that fails: what was promised holds, nothing false is answered, and all others go on.

``make campaign`` lets every call of a long story fail; these are what it found, and a few of its calls.
"""

import errno
import logging
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from panloom.disk_io import SyncError
from panloom.errors import UnavailableError
from panloom.storage.exports import ExportedLun
from panloom.storage.local_transport import LocalTransport
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support import blocks


def refuse(*_):
    raise OSError(errno.EIO, "Input/output error")


@contextmanager
def failing(**calls):
    with instead_of_the_kernel(SystemCalls(**calls)):
        yield


def write_through_fails(fd, views, offset, flags):
    return refuse() if flags & os.RWF_DSYNC else os.pwritev(fd, views, offset, flags)


@pytest.fixture
def store(tmp_path):
    store = VolumeStore(tmp_path)
    for name in ("a", "b"):
        store.create(name, None, 1 << 20)
    yield store
    store.shut_down()


def test_a_volume_that_a_sync_failed_of_stays_offline_until_the_next_start(store, tmp_path, caplog):
    """Opened anew it would be flushed without an error, though the kernel has dropped what was written."""
    volume = store.open("a")
    volume.write(volume.grant(1), 0, memoryview(b"x" * 512))
    with failing(fdatasync=refuse):
        store.close("a")
    with pytest.raises(OSError, match="offline"):
        store.open("a").flush()
    store.open("b").flush()
    (line,) = [record.getMessage() for record in caplog.records if "online=no" in record.getMessage()]
    assert "volume=a" in line
    assert "restart the storage process" in line
    store.shut_down()
    assert VolumeStore(tmp_path).open("a").read(0, memoryview(bytearray(512))) is None


def test_so_does_one_that_could_not_be_opened_for_a_failed_sync(store, caplog):
    with failing(pwritev=write_through_fails), pytest.raises(SyncError):
        store.open("a")
    with pytest.raises(UnavailableError, match="volume a is offline"):
        store.open("a")
    assert [record.getMessage() for record in caplog.records if "volume=a online=no" in record.getMessage()]
    store.open("b")
    store.delete("a")
    store.create("a", None, 1 << 20)
    store.open("a")


def test_a_volume_that_cannot_be_read_costs_the_others_nothing(store, caplog):
    def unreadable(fd, views, offset):
        return refuse() if Path(f"/proc/self/fd/{fd}").readlink().name == "a.volume" else os.preadv(fd, views, offset)

    with failing(preadv=unreadable):
        assert [volume.name for volume in store.facts().volumes] == ["b"]
    assert "volume=a.volume damaged=" in caplog.text
    assert [volume.name for volume in store.facts().volumes] == ["a", "b"]


def test_a_start_that_was_refused_holds_nothing(tmp_path):
    with failing(listdir=refuse), pytest.raises(UnavailableError, match="cannot be used: Input/output error"):
        VolumeStore(tmp_path)
    VolumeStore(tmp_path).shut_down()


def test_a_disk_that_goes_on_failing_is_one_line(store, caplog):
    caplog.set_level(logging.WARNING)
    unit = LocalTransport(store).connect("iqn.2026-11.dev.panloom:t", ExportedLun(0, volume="a"), 1)
    with failing(pwritev=refuse, posix_fallocate=refuse):
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                blocks.write(unit, 0, bytes(512))
    assert [record.getMessage() for record in caplog.records] == ["volume=a write=failed why='Input/output error'"]
    blocks.write(unit, 0, bytes(512))
