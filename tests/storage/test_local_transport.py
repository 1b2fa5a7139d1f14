"""The Local Transport: what frames do to devices, counted, limited, atomic, and never in another's way."""

import errno
import os
import threading
import time

import pytest

from panloom.errors import UnavailableError
from panloom.storage.device import OVERDUE_NANOSECONDS
from panloom.storage.exports import ExportedLun
from panloom.storage.frame import Callback, Frame, MiscompareError, Operation, StaleEpochError
from panloom.storage.limits import NO_LIMITS, Limits
from panloom.storage.local_transport import LocalTransport
from panloom.storage.sending import COPIED_OCTETS
from panloom.storage.stand_alone import NoStore
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.standing import TARGET as STANDING
from support.standing import memory, standing
from support.waiting import until

TARGET = "iqn.2026-11.dev.panloom:t"
OCTETS = 1 << 20


class Sent:
    """A frame on its way, and whether and where it was called back."""

    def __init__(self, unit, operation, offset=0, octets=0, data=b""):
        self.data = bytearray(data or octets)
        self.frame = Frame(operation, offset, octets, memoryview(self.data), "mine")
        self.done, self.thread = threading.Event(), None
        self.frame.context = Callback(self._back, None)
        unit.send_handler(unit.context, self.frame)

    def _back(self, _, frame):
        self.thread = threading.current_thread()
        self.done.set()

    def wait(self):
        assert self.done.wait(30)
        return self.frame.error


def do(unit, *what):
    """Send a frame and return what it holds; raise its error."""
    sent = Sent(unit, *what)
    if sent.wait():
        raise sent.frame.error
    return bytes(sent.data)


@pytest.fixture
def lost():
    return []


@pytest.fixture
def transport(tmp_path, lost):
    store = VolumeStore(tmp_path / "store")
    for name in ("a", "b"):
        store.create(name, None, OCTETS)
        (tmp_path / name).write_bytes(bytes(OCTETS))
    transport = LocalTransport(store, lost.append)
    yield transport
    transport.shut_down()
    store.shut_down()


@pytest.fixture(params=["volume", "file"])
def luns(request, tmp_path):
    """LUN 1 and 2, of either kind."""
    if request.param == "volume":
        return [ExportedLun(1, volume="a"), ExportedLun(2, volume="b")]
    return [ExportedLun(1, device=str(tmp_path / "a")), ExportedLun(2, device=str(tmp_path / "b"))]


def test_cap_173_a_known_load_gives_exact_numbers(transport, luns):
    first, second = (transport.connect(TARGET, luns[0], 1) for _ in range(2))
    for number in range(10):
        do(first, Operation.WRITE, number * 4096, 4096, b"x" * 4096)
        do(second, Operation.READ, number * 4096, 512)
    do(first, Operation.FLUSH)
    do(second, Operation.UNMAP, 0, 8192)
    transport.disconnect(first)
    with pytest.raises(StaleEpochError):
        do(first, Operation.WRITE, 0, 512, bytes(512))
    (device,) = transport.statistics()
    totals = device.totals
    assert (totals.operations, totals.octets) == (22, 10 * 4096 + 10 * 512)
    assert (totals.reads, totals.writes, totals.flushes, totals.unmaps) == (10, 10, 1, 1)
    assert (totals.read_octets, totals.written_octets, totals.unmapped_octets) == (5120, 40960, 8192)
    assert 0 < totals.in_progress_seconds < 60
    assert sum(totals.read_latency) == sum(totals.write_latency) == 10


def test_statistics_do_not_wait_for_a_device_that_is_being_opened(transport, tmp_path):
    opening, go_on, opened = threading.Event(), threading.Event(), threading.Event()

    def open_slowly(path, flags, mode):
        if path == tmp_path / "b":
            opening.set()
            go_on.wait(20)
            opened.set()
        return os.open(path, flags, mode)

    do(transport.connect(TARGET, ExportedLun(1, volume="a"), 1), Operation.READ, 0, 512)
    with instead_of_the_kernel(SystemCalls(open=open_slowly)):
        thread = threading.Thread(target=transport.open_device, args=(str(tmp_path / "b"),), kwargs={"read_only": True})
        thread.start()
        try:
            assert opening.wait(30)
            assert [device.totals.reads for device in transport.statistics()] == [1]
            assert not opened.is_set()
        finally:
            go_on.set()
            thread.join()


def test_each_session_has_a_context_of_its_own_that_only_we_look_into(transport, luns):
    units = [transport.connect(TARGET, lun, 1) for lun in (*luns, *luns)]
    assert len({id(unit.context) for unit in units}) == 4
    assert len({id(unit.send_handler) for unit in units}) == 1


def test_a_small_write_that_waits_is_copied_and_a_large_one_is_not(transport, luns):
    unit = transport.connect(TARGET, luns[0], 1)
    transport.limit(luns[0], Limits(operations=20))
    held = [Sent(unit, Operation.READ, 0, 512) for _ in range(4)]
    small = Sent(unit, Operation.WRITE, 0, 4096, b"s" * 4096)
    large = Sent(unit, Operation.WRITE, COPIED_OCTETS, COPIED_OCTETS, b"l" * COPIED_OCTETS)
    small.data[:] = bytes(4096)  # its sender uses the buffer again
    assert large.frame.data.obj is large.data
    assert [sent.wait() for sent in (*held, small, large)] == [None] * 6
    transport.limit(luns[0], NO_LIMITS)
    assert do(unit, Operation.READ, 0, 4096) == b"s" * 4096
    assert do(unit, Operation.READ, COPIED_OCTETS, COPIED_OCTETS) == b"l" * COPIED_OCTETS


def test_a_limited_device_holds_back_its_own_frames_and_no_others(transport, luns):
    limited, free = (transport.connect(TARGET, lun, 1) for lun in luns)
    transport.limit(luns[0], Limits(operations=20))
    begun = time.monotonic()
    held = [Sent(limited, Operation.READ, 0, 512) for _ in range(8)]
    assert not held[-1].done.is_set()
    for _ in range(200):
        assert Sent(free, Operation.WRITE, 0, 512, bytes(512)).thread is threading.current_thread()
    assert [sent.wait() for sent in held] == [None] * 8
    assert time.monotonic() - begun >= (8 - 1 - 2 - 1) / 20  # less a burst of two, and the one that goes into debt
    transport.limit(luns[0], NO_LIMITS)
    assert Sent(limited, Operation.READ, 0, 512).thread is threading.current_thread()


def test_a_held_frame_brings_what_is_there_when_its_time_has_come(transport, luns):
    unit = transport.connect(TARGET, luns[0], 1)
    transport.limit(luns[0], Limits(octets=40_960))
    for number in range(3):
        do(unit, Operation.WRITE, number * 4096, 4096, bytes([number + 1]) * 4096)
    assert do(unit, Operation.READ, 0, 12288) == b"\1" * 4096 + b"\2" * 4096 + b"\3" * 4096


def test_what_is_held_back_ends_with_its_session(transport, luns):
    unit = transport.connect(TARGET, luns[0], 1)
    transport.limit(luns[0], Limits(operations=1))
    held = [Sent(unit, Operation.WRITE, 0, 512, b"x" * 512) for _ in range(40)]
    transport.disconnect(unit)
    assert {type(sent.wait()) for sent in held[2:]} == {StaleEpochError}
    transport.limit(luns[0], NO_LIMITS)


def test_compare_and_write_writes_whole_or_tells_where_it_differs(transport, luns):
    unit = transport.connect(TARGET, luns[0], 1)
    do(unit, Operation.WRITE, 512, 512, b"old" + bytes(509))
    do(unit, Operation.COMPARE_AND_WRITE, 512, 512, b"old" + bytes(509) + b"new" + bytes(509))
    with pytest.raises(MiscompareError) as failure:
        do(unit, Operation.COMPARE_AND_WRITE, 512, 512, b"nex" + bytes(509) + b"bad" + bytes(509))
    assert failure.value.at == 2
    do(unit, Operation.OR_WRITE, 512, 512, b"\x01\0\0" + bytes(509))
    assert do(unit, Operation.READ, 512, 3 * 512)[:3] == b"oew"


def test_compare_and_write_is_atomic_over_sessions(transport, luns):
    """Each thread takes the number that is there and puts the next one in its place; none is lost."""
    begun = threading.Barrier(4)

    def take():
        unit = transport.connect(TARGET, luns[0], 1)
        begun.wait()
        taken = 0
        while taken < 50:
            there = do(unit, Operation.READ, 0, 512)
            new = (int.from_bytes(there, "big") + 1).to_bytes(512, "big")
            try:
                do(unit, Operation.COMPARE_AND_WRITE, 0, 512, there + new)
                taken += 1
            except MiscompareError:
                continue

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    unit = transport.connect(TARGET, luns[0], 1)
    assert int.from_bytes(do(unit, Operation.READ, 0, 512), "big") == 200


def test_a_slow_device_goes_on_elsewhere(transport, luns, monkeypatch):
    """After a call that took long, what follows does not hold up the thread of the connection."""
    gate, slow = threading.Event(), transport.connect(TARGET, luns[0], 1)

    def late(fd):
        assert gate.wait(30)

    assert Sent(slow, Operation.WRITE, 0, 4096, bytes(4096)).thread is threading.current_thread()
    monkeypatch.setattr("panloom.storage.sending.SLOW_NANOSECONDS", 0)  # all that is done from here on
    assert Sent(slow, Operation.READ, 0, 512).thread is threading.current_thread()
    with instead_of_the_kernel(SystemCalls(fdatasync=late)):
        sent = Sent(slow, Operation.FLUSH)
        assert not sent.done.is_set()
        gate.set()
        assert sent.wait() is None
    assert sent.thread is not threading.current_thread()


def test_a_device_that_says_nothing_goes_on_elsewhere(transport, luns, monkeypatch):
    """Nobody waits for it because it was quick before, however long ago it was found to be slow."""
    gate, stuck = threading.Event(), transport.connect(TARGET, luns[0], 1)

    def cold(fd, views, offset):
        raise BlockingIOError(errno.EAGAIN, "it would have to be waited for")

    def late(fd, views, offset):
        assert gate.wait(30)
        return len(views[0])

    do(stuck, Operation.WRITE, 0, 512, b"x" * 512)
    monkeypatch.setattr("panloom.storage.sending.SLOW_FOR_NANOSECONDS", 0)
    with instead_of_the_kernel(SystemCalls(preadv_now=cold, preadv=late)):
        held = Sent(stuck, Operation.READ, 0, 512)
        until(
            lambda: time.monotonic_ns() - stuck.context.device.workers.busy_since_ns > OVERDUE_NANOSECONDS, "it is late"
        )
        sent = Sent(stuck, Operation.WRITE, 0, 4096, bytes(4096))
        assert sent.wait() is None
        assert sent.thread is not threading.current_thread()
        assert not held.done.is_set()
        gate.set()
        assert held.wait() is None
    until(lambda: Sent(stuck, Operation.WRITE, 0, 512, bytes(512)).thread is threading.current_thread(), "it is quick")


def test_a_failed_sync_takes_the_device_offline_and_says_so_once(transport, luns, lost):
    def refuse(fd):
        raise OSError(errno.EIO, "Input/output error")

    broken, other = (transport.connect(TARGET, lun, 1) for lun in luns)
    do(broken, Operation.WRITE, 0, 512, b"x" * 512)
    with instead_of_the_kernel(SystemCalls(fdatasync=refuse)), pytest.raises(OSError, match="Input/output"):
        do(broken, Operation.FLUSH)
    for _ in range(3):
        with pytest.raises(OSError, match=r"sync|offline"):
            do(broken, Operation.READ, 0, 512)
    do(other, Operation.FLUSH)
    until(lambda: lost, "it is said")
    (line,) = lost
    assert "is offline" in line


def test_a_full_disk_pauses_nothing_else(transport, luns):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = (transport.connect(TARGET, lun, 1) for lun in luns)
    with instead_of_the_kernel(SystemCalls(pwritev=full, posix_fallocate=full)):
        with pytest.raises(OSError, match="No space") as failure:
            do(first, Operation.WRITE, 0, 512, bytes(512))
        assert failure.value.errno == errno.ENOSPC
        do(first, Operation.READ, 0, 512)
        do(second, Operation.READ, 0, 512)
    do(first, Operation.WRITE, 0, 512, bytes(512))


def test_a_volume_that_is_lost_comes_back_when_it_is_reopened(tmp_path):
    store = VolumeStore(tmp_path / "lost")
    store.create("a", None, OCTETS)
    volume = store.open("a")
    volume.write(volume.grant(1), 0, memoryview(b"kept" * 1024))
    volume.flush()
    volume.write(volume.grant(1), 65536, memoryview(b"lost" * 1024))

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with instead_of_the_kernel(SystemCalls(fdatasync=refuse)), pytest.raises(OSError, match="Input/output"):
        volume.flush()
    with instead_of_the_kernel(SystemCalls(pwritev=refuse)), pytest.raises(OSError, match="Input/output"):
        store.reopen("a")
    with pytest.raises(UnavailableError, match="volume a is offline"):
        store.open("a")
    store.reopen("a")
    store.reopen("a")
    again, octets = store.open("a"), bytearray(OCTETS)
    again.read(0, memoryview(octets))
    assert octets == b"kept" * 1024 + bytes(OCTETS - 4096)  # as a power cut would have left it
    again.write(again.grant(1), 0, memoryview(b"new!" * 1024))
    again.flush()
    assert volume.lost  # who has the old one gets EIO
    store.shut_down()


def test_a_unit_that_is_opened_for_writing_later_leaves_no_session_behind():
    with standing(*memory(1)) as there:
        address, port = there.portal
        name = f"iscsi://{address}:{port}/{STANDING}/1"
        transport = LocalTransport(NoStore())
        reader = transport.open_device(name, read_only=True)
        writer = transport.open_device(name, read_only=False)
        assert (reader.read_only, writer.read_only) == (True, False)
        reader.read(0, memoryview(bytearray(512)))  # whoever has it goes on
        assert len(there.status().sessions) == 2
        transport.shut_down()
        until(lambda: not there.status().sessions, "both have logged out")


def test_the_frames_of_a_session_that_is_over_wait_for_no_limit(transport, luns):
    unit = transport.connect(TARGET, luns[0], 1)
    transport.limit(luns[0], Limits(operations=1))
    transport.disconnect(unit)
    for sent in [Sent(unit, Operation.WRITE, 0, 512, bytes(512)) for _ in range(60)]:
        assert isinstance(sent.wait(), StaleEpochError)
