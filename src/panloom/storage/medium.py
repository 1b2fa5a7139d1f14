"""What a command decided to do, done on a Descriptor by frames; what the medium answers, as sense data.

ENOSPC, EDQUOT                        07/2707  space allocation failed
EROFS                                 07/2700  write protected
any other error of a read             03/1100  unrecovered read error
any other error of a write or flush   03/0C00  write error
StaleEpochError                       goes on to the caller: nothing may be answered any more
"""

import errno
import threading
from typing import Any

from panloom.protocol.iscsi_task import Compare, Deed, Write
from panloom.protocol.scsi_disk import Deallocate, Fill, Flush, Read
from panloom.storage.descriptor import Descriptor
from panloom.storage.frame import Callback, Frame, Operation, StaleEpochError
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

PIECE_OCTETS = 1 << 20  # of a fill


def carry_out(descriptor: Descriptor, deed: Deed) -> Sense | None:
    """Do a deed; return why it failed, None when it is done.  ``Read`` is the business of who owns the socket."""
    error: OSError | None = None
    match deed:
        case Write(offset, data):
            error = call(descriptor, Frame(Operation.WRITE, offset, len(data), memoryview(data)))
        case Flush():
            error = call(descriptor, Frame(Operation.FLUSH))
        case Deallocate(ranges):
            for offset, octets in ranges:
                error = error or call(descriptor, Frame(Operation.UNMAP, offset, octets))
        case Fill(offset, octets, block):
            error = _fill(descriptor, offset, octets, block)
        case Compare(offset, data):
            return _compare(descriptor, offset, memoryview(data))
        case Read():
            raise TypeError("a read needs somewhere to go")
    return None if error is None else write_sense(error)


def call(descriptor: Descriptor, frame: Frame) -> OSError | None:
    """Send a frame, wait until it is called back, and return its error; the frame has its context again.

    StaleEpochError: nothing may be answered any more.
    """
    answered = threading.Lock()
    answered.acquire()
    frame.context = Callback(_called_back, (frame.context, answered))
    descriptor.send_handler(descriptor.context, frame)
    answered.acquire()  # held only where the answer comes later, from another thread
    if isinstance(frame.error, StaleEpochError):
        raise frame.error
    return frame.error


def _called_back(saved: tuple[Any, threading.Lock], frame: Frame) -> None:
    frame.context, answered = saved
    answered.release()


def write_sense(error: OSError | StaleEpochError) -> Sense:
    """Return the sense data for an error of a write, a flush or an unmap; StaleEpochError is raised, not answered."""
    if isinstance(error, StaleEpochError):
        raise error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return scsi_sense.NO_SPACE
    return scsi_sense.WRITE_PROTECTED if error.errno == errno.EROFS else scsi_sense.WRITE_FAILED


def _fill(descriptor: Descriptor, offset: int, octets: int, block: bytes) -> OSError | None:
    piece = memoryview(block * (min(PIECE_OCTETS, octets) // len(block)))
    for done in range(0, octets, len(piece)):
        part = piece[: octets - done]
        error = call(descriptor, Frame(Operation.WRITE, offset + done, len(part), part))
        if error is not None:
            return error
    return None


def _compare(descriptor: Descriptor, offset: int, data: memoryview) -> Sense | None:
    found = bytearray(len(data))
    if call(descriptor, Frame(Operation.READ, offset, len(found), memoryview(found))) is not None:
        return scsi_sense.UNRECOVERED_READ
    return None if found == data else scsi_sense.MISCOMPARE
