"""The direct call: the requester's context is saved, replaced and restored, and nothing stands between the calls."""

import errno
import sys
import threading

import pytest

from panloom.protocol.scsi_disk import Flush
from panloom.storage.frame import Callback, Frame, Operation, StaleEpochError, answer
from panloom.storage.hot import build
from panloom.storage.medium import call, carry_out
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi import ScsiCommand
from panloom.wire.scsi_cdb import BlockCommand
from panloom.wire.scsi_cdb import Operation as Code
from support.iscsi_peer import MemoryDisk, talk

# Where a call from the wire to the medium and back may be; a compiled function is on no Python stack.
NEIGHBOURS = {"panloom.storage.hot", "panloom.storage.reading", "panloom.storage.performer",
              "panloom.storage.medium", "panloom.storage.frame",
              "support.blocks", "test_frame", __name__}  # fmt: skip


class Recorder:
    """Stands in the place of a descriptor's send handler, and in that of each frame's callback."""

    def __init__(self, disk):
        self.sent, self.called_back = [], []
        self._handler = disk.descriptor.send_handler
        object.__setattr__(disk.descriptor, "send_handler", self.send)

    def send(self, context, frame):
        replaced = frame.context
        frame.context = Callback(self.back, replaced)
        self.sent.append((context, frame, threading.get_ident(), _callers()))
        self._handler(context, frame)

    def back(self, replaced, frame):
        self.called_back.append((frame, threading.get_ident(), _callers()))
        frame.context = replaced
        answer(frame)
        self.restored = frame.context


def _callers():
    frame, found = sys._getframe(2), []
    while frame is not None:
        found.append((frame.f_globals["__name__"], frame.f_code.co_qualname))
        frame = frame.f_back
    return found


@pytest.mark.parametrize("code", [Code.READ_16, Code.WRITE_16, Code.READ_6, Code.SYNCHRONIZE_CACHE_10])
def test_the_same_frame_on_the_same_thread_with_nothing_between(code):
    disk = MemoryDisk()
    recorder = Recorder(disk)
    blocks = 0 if code is Code.SYNCHRONIZE_CACHE_10 else 1
    writes = code is Code.WRITE_16
    flags = iscsi.FINAL | (iscsi.WRITE if writes else iscsi.READ if blocks else 0)
    talk(
        ScsiCommand(
            flags=flags, initiator_task_tag=0x1234, cmd_sn=1, expected_data_transfer_length=blocks * 512,
            cdb=scsi_cdb.encode(BlockCommand(code, 0, 0, blocks)), data=b"w" * 512 if writes else b"",
        ),
        disks={0: disk},
    )  # fmt: skip
    ((context, sent, thread, callers),) = recorder.sent
    ((back, back_thread, back_callers),) = recorder.called_back
    assert context is disk.descriptor.context
    assert sent is back
    assert thread == back_thread == threading.get_ident()
    for each in (callers, back_callers):
        between = each[: next(number for number, (module, _) in enumerate(each) if module == "support.iscsi_peer")]
        assert {module for module, _ in between} <= NEIGHBOURS
        assert build() == "compiled" or ("panloom.storage.hot", "HotLoop.run") in between
    assert not isinstance(recorder.restored, Callback)


def test_a_frame_has_its_context_again():
    disk, mine = MemoryDisk(), object()
    frame = Frame(Operation.READ, 512, 512, memoryview(bytearray(512)), mine)
    assert call(disk.descriptor, frame) is None
    assert frame.context is mine
    assert frame.data == b"\1" * 512


def test_an_answer_from_another_thread_is_waited_for():
    disk, threads = MemoryDisk(), []
    handler = disk.descriptor.send_handler

    def later(context, frame):
        threads.append(threading.Thread(target=handler, args=(context, frame)))
        threads[-1].start()

    object.__setattr__(disk.descriptor, "send_handler", later)
    disk.errors["flush"] = errno.EIO
    assert carry_out(disk.descriptor, Flush()) is not None
    frame = Frame(Operation.READ, 0, 512, memoryview(bytearray(b"x" * 512)), 7)
    assert call(disk.descriptor, frame) is None
    assert (frame.context, bytes(frame.data)) == (7, bytes(512))
    for thread in threads:
        thread.join()


def test_a_stale_epoch_is_raised_where_the_frame_came_from():
    disk = MemoryDisk()
    disk.fenced = True
    frame = Frame(Operation.WRITE, 0, 512, memoryview(bytes(512)), "mine")
    with pytest.raises(StaleEpochError):
        call(disk.descriptor, frame)
    assert frame.context == "mine"
