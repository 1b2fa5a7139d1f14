"""Every kind of store that needs no other program, held to the same contract beside plain octets."""

import contextlib
import errno
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panloom.errors import ConfigError, UnavailableError
from panloom.storage.stores.names import open_store
from panloom.storage.stores.store import DeviceType
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.loop_device import loop_device

OCTETS = 1 << 20
PLACES = st.tuples(st.integers(0, OCTETS // 512 - 1), st.integers(1, 300)).map(
    lambda place: (place[0] * 512, min(place[1] * 512, OCTETS - place[0] * 512))
)
ACTS = st.lists(st.tuples(st.sampled_from(["write", "unmap", "flush", "read"]), PLACES, st.integers(1, 255)))


@contextlib.contextmanager
def opened(kind, directory, **options):
    """Open a store of zeros of a kind."""
    path = directory / f"{kind}.img"
    path.touch()
    os.truncate(path, OCTETS)
    with contextlib.ExitStack() as stack:
        name = {"memory": "mem:1M", "block device": ""}.get(kind, str(path))
        store = open_store(name or str(stack.enter_context(loop_device(path))), thick=kind == "thick file", **options)
        stack.callback(store.close)
        yield store


KINDS = ["file", "thick file", "memory", "block device"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_holds_what_was_written(kind, tmp_path):
    with opened(kind, tmp_path) as store:
        twin = bytearray(OCTETS)

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(ACTS)
        def holds(acts):
            for act, (offset, octets), fill in acts:
                match act:
                    case "write":
                        store.write(offset, memoryview(bytes([fill]) * octets))
                        twin[offset : offset + octets] = bytes([fill]) * octets
                    case "unmap":
                        store.unmap(offset, octets)
                        twin[offset : offset + octets] = bytes(octets)
                    case "flush":
                        store.flush()
                    case _:
                        found = bytearray(octets)
                        if not store.read_now(offset, memoryview(found)):
                            store.read(offset, memoryview(found))
                        assert found == twin[offset : offset + octets]
            found = bytearray(OCTETS)
            store.read(0, memoryview(found))
            assert found == twin

        holds()
        assert (store.octets, store.block_octets, store.device_type) == (OCTETS, 512, DeviceType.DISK)
        assert store.identity[0] >> 4 == 3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_beyond_the_end(kind, tmp_path):
    with opened(kind, tmp_path) as store:
        for call in (
            lambda: store.read(OCTETS, memoryview(bytearray(512))),
            lambda: store.read_now(OCTETS - 512, memoryview(bytearray(1024))),
            lambda: store.write(OCTETS - 512, memoryview(bytes(1024))),
            lambda: store.unmap(0, OCTETS + 512),
        ):
            with pytest.raises(OSError, match="beyond the end"):
                call()


def test_a_thin_file_gives_space_back_and_a_thick_one_keeps_it(tmp_path):
    for kind, kept in (("file", 0), ("thick file", OCTETS)):
        with opened(kind, tmp_path) as store:
            store.write(0, memoryview(b"x" * OCTETS))
            store.flush()
            store.unmap(0, OCTETS)
            assert (tmp_path / f"{kind}.img").stat().st_blocks * 512 >= kept
            assert (tmp_path / f"{kind}.img").stat().st_blocks * 512 <= kept + 65536
            assert store.thin == (kept == 0)


def test_a_discard_reaches_the_file_below_a_block_device(tmp_path):
    with opened("block device", tmp_path) as store:
        store.write(0, memoryview(b"x" * OCTETS))
        store.flush()
        taken = (tmp_path / "block device.img").stat().st_blocks
        store.unmap(0, OCTETS)
        store.flush()
        assert taken * 512 >= OCTETS > (tmp_path / "block device.img").stat().st_blocks * 512


@pytest.mark.parametrize("kind", ["file", "block device"])
def test_a_read_only_store_is_not_written(kind, tmp_path):
    with opened(kind, tmp_path, read_only=True) as store:
        store.read(0, memoryview(bytearray(OCTETS)))
        store.flush()
        for call in (lambda: store.write(0, memoryview(bytes(512))), lambda: store.unmap(0, 512)):
            with pytest.raises(OSError, match="read-only") as failure:
                call()
            assert failure.value.errno == errno.EROFS


def test_one_process_at_a_time_writes_to_a_file(tmp_path):
    with opened("file", tmp_path) as store:
        with pytest.raises(UnavailableError, match="in use by another process"):
            open_store(store.name)
        with pytest.raises(UnavailableError, match="in use by another process"):
            open_store(store.name, read_only=True)
    with opened("file", tmp_path, read_only=True) as store:
        open_store(store.name, read_only=True).close()


def test_a_file_grows_and_a_block_device_is_told(tmp_path):
    with opened("file", tmp_path) as store:
        store.resize(2 * OCTETS)
        store.write(OCTETS, memoryview(b"x" * 512))
        assert (tmp_path / "file.img").stat().st_size == 2 * OCTETS
        with pytest.raises(OSError, match="no larger size"):
            store.resize(OCTETS)
    with opened("block device", tmp_path) as store, pytest.raises(OSError, match="the block device is smaller"):
        store.resize(2 * OCTETS)


def test_after_a_failed_sync_a_store_answers_nothing_any_more(tmp_path):
    def refuse(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="a flush of"), opened("file", tmp_path) as store:
        store.write(0, memoryview(b"x" * 512))
        with instead_of_the_kernel(SystemCalls(fdatasync=refuse)), pytest.raises(OSError, match="Input/output"):
            store.flush()
        assert "a flush of" in store.lost
        for call in (store.flush, lambda: store.read(0, memoryview(bytearray(512)))):
            with pytest.raises(OSError, match="a flush of") as failure:
                call()
            assert failure.value.errno == errno.EIO


def test_a_full_disk_refuses_a_write_and_nothing_else(tmp_path):
    def full(fd, views, offset, flags):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened("file", tmp_path) as store:
        with instead_of_the_kernel(SystemCalls(pwritev=full)), pytest.raises(OSError, match="No space") as failure:
            store.write(0, memoryview(bytes(512)))
        assert failure.value.errno == errno.ENOSPC
        store.write(0, memoryview(bytes(512)))
        store.flush()


def test_an_optical_image_is_only_read(tmp_path):
    content = random.Random(1).randbytes(40 * 2048)
    (tmp_path / "disc.iso").write_bytes(content)
    for name in (str(tmp_path / "disc.iso"), f"cd:{tmp_path / 'disc.iso'}"):
        store = open_store(name)
        assert (store.device_type, store.block_octets, store.octets) == (DeviceType.OPTICAL, 2048, len(content))
        found = bytearray(4096)
        store.read(2048, memoryview(found))
        assert found == content[2048 : 2048 + 4096]
        with pytest.raises(OSError, match="read-only"):
            store.write(0, memoryview(bytes(2048)))
        store.close()


def test_what_the_kernel_does_not_have_is_not_waited_for(tmp_path):
    def cold(fd, views, offset):
        raise BlockingIOError(errno.EAGAIN, "not in memory")

    with opened("file", tmp_path) as store, instead_of_the_kernel(SystemCalls(preadv_now=cold)):
        assert not store.read_now(0, memoryview(bytearray(512)))


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("nothing.img", ConfigError, "there is no such file; make one: truncate -s 1G"),
        (".", ConfigError, "cannot be opened: Is a directory; name a file"),
        ("/dev/null", ConfigError, "neither a file nor a block device"),
        ("empty.img", ConfigError, "is empty; give it a size"),
        ("odd.img", ConfigError, "fill the last one up: truncate -s 1024"),
        ("odd.iso", ConfigError, "fill the last one up: truncate -s 2048"),
        ("mem:", ConfigError, "is no size"),
        ("mem:1000", ConfigError, "write a multiple of 512 octets"),
        ("rbd:", ConfigError, "write rbd:pool/image"),
        ("rbd:pool", ConfigError, "which image of the pool"),
        ("rbd:pool/image:cache=no", ConfigError, "'cache' is no option of rbd"),
        ("rbd:pool/image:conf=/nothing/ceph.conf", UnavailableError, "rbd:pool/image"),
        ("iscsi://host", ConfigError, "write iscsi://host/iqn"),
        ("iscsi://127.0.0.1/iqn.2026-11.dev.panloom:t", ConfigError, "which unit of the target"),
        ("iscsi://127.0.0.1/nonsense/1", ConfigError, "no iSCSI name"),
        ("iscsi://127.0.0.1/iqn.2026-11.dev.panloom:t/x", ConfigError, "is no LUN"),
        ("iscsi://u@127.0.0.1/iqn.2026-11.dev.panloom:t/1", ConfigError, "come together"),
        ("iscsi://127.0.0.1:1/iqn.2026-11.dev.panloom:t/1", UnavailableError, "127.0.0.1"),
    ],
)
def test_a_name_that_leads_nowhere_says_how_to_mend_it(name, error, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.img").touch()
    for odd in ("odd.img", "odd.iso"):
        (tmp_path / odd).write_bytes(bytes(513))
    with pytest.raises(error, match=why):
        open_store(name)
