"""What a command decided to do, done on a Descriptor by frames; what the medium answers, as sense data.

ENOSPC, EDQUOT                        07/2707  space allocation failed
EROFS                                 07/2700  write protected
a difference                          0E/1D00  miscompare, INFORMATION: at which octet of the command's data
any other error of a read             03/1100  unrecovered read error
any other error of a write or flush   03/0C00  write error
any error of a copy                   0A/0000  copy aborted
StaleEpochError                       goes on to the caller: nothing may be answered any more
"""

import errno
import threading
from collections.abc import Mapping
from typing import Any

from panloom.protocol.iscsi_task import Compare, Deed, OrWrite, Write, WriteAndVerify
from panloom.protocol.scsi_verdicts import (
    Check,
    CompareAndWrite,
    Copy,
    CopySegment,
    Deallocate,
    Erase,
    Fill,
    Flush,
    LookUp,
    Perform,
    Quiesce,
    Read,
    WriteAtomic,
)
from panloom.storage.descriptor import Descriptor
from panloom.storage.frame import Callback, Frame, MiscompareError, Operation, StaleEpochError
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

PIECE_OCTETS = 1 << 20  # of a fill, a check, a copy

Descriptors = Mapping[int, Descriptor]


def carry_out(descriptor: Descriptor, deed: Deed, others: Descriptors | None = None) -> Sense | None:
    """Do a deed; return why it failed, None when it is done.  ``others`` are the session's units, which it may name.

    ``Read`` and ``Write`` are the business of who owns the socket.
    """
    match deed:
        case OrWrite(offset, data, _):
            return _write(descriptor, Operation.OR_WRITE, offset, memoryview(data))
        case WriteAtomic(offset, data, intend):
            try:
                with intend(offset, data):
                    return write_durably(descriptor, offset, data)
            except OSError as error:
                return write_sense(error)
        case Flush():
            return _sense(call(descriptor, Frame(Operation.FLUSH)))
        case Compare(offset, data, before):
            return _compare(descriptor, offset, memoryview(data), before)
        case WriteAndVerify(offset, data, before):
            written = _write(descriptor, Operation.WRITE, offset, memoryview(data))
            return written or _compare(descriptor, offset, memoryview(data), before)
        case CompareAndWrite(offset, expected, data):
            both = memoryview(expected + data)
            return _sense(call(descriptor, Frame(Operation.COMPARE_AND_WRITE, offset, len(data), both)))
        case Perform(act):
            return act()
        case Quiesce(victims):
            for victim in victims:
                victim.abort()
            for victim in victims:
                victim.await_quiet()
            return None
        case _:
            return _carry_out_long(descriptor, deed, others or {})


def _carry_out_long(descriptor: Descriptor, deed: Deed, others: Descriptors) -> Sense | None:
    """Do what goes over many blocks, piece by piece."""
    match deed:
        case Deallocate(ranges):
            for offset, octets in ranges:
                if failed := _sense(call(descriptor, Frame(Operation.UNMAP, offset, octets))):
                    return failed
        case Fill(offset, octets, block):
            return _fill(descriptor, offset, octets, block)
        case Check(offset, octets, block):
            return _check(descriptor, offset, octets, block)
        case LookUp():
            return _look_up(descriptor, deed)
        case Copy(segments, copied):
            for segment in segments:
                if failed := _copy(others[segment.source_lun], others[segment.destination_lun], segment):
                    return failed
                copied(segment.octets)
        case Erase(begin):
            return begin(descriptor)
        case Read() | Write():
            raise TypeError(f"{type(deed).__name__} is not done here")
    return None


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
    if isinstance(error, MiscompareError):
        return scsi_sense.miscompare(error.at)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return scsi_sense.NO_SPACE
    return scsi_sense.WRITE_PROTECTED if error.errno == errno.EROFS else scsi_sense.WRITE_FAILED


def _sense(error: OSError | None) -> Sense | None:
    return None if error is None else write_sense(error)


def _write(descriptor: Descriptor, operation: Operation, offset: int, data: memoryview) -> Sense | None:
    return _sense(call(descriptor, Frame(operation, offset, len(data), data)))


def write_durably(descriptor: Descriptor, offset: int, data: bytes) -> Sense | None:
    """Write, and flush."""
    written = _write(descriptor, Operation.WRITE, offset, memoryview(data))
    return written or _sense(call(descriptor, Frame(Operation.FLUSH)))


def _read(descriptor: Descriptor, offset: int, octets: int) -> memoryview | None:
    """Return octets of the medium; None where they cannot be read."""
    found = memoryview(bytearray(octets))
    return found if call(descriptor, Frame(Operation.READ, offset, octets, found)) is None else None


def _fill(descriptor: Descriptor, offset: int, octets: int, block: bytes) -> Sense | None:
    piece = memoryview(block * (min(PIECE_OCTETS, octets) // len(block)))
    for done in range(0, octets, len(piece)):
        if failed := _write(descriptor, Operation.WRITE, offset + done, piece[: octets - done]):
            return failed
    return None


def _compare(descriptor: Descriptor, offset: int, data: memoryview, before: int) -> Sense | None:
    found = _read(descriptor, offset, len(data))
    if found is None:
        return scsi_sense.UNRECOVERED_READ
    return None if found == data else scsi_sense.miscompare(before + first_difference(found, data))


def first_difference(one: memoryview, other: memoryview) -> int:
    """Return at which octet two different views of the same length first differ."""
    start, end = 0, len(one)
    while end - start > 1:
        middle = (start + end) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        else:
            end = middle
    return start


def _check(descriptor: Descriptor, offset: int, octets: int, block: bytes | None) -> Sense | None:
    piece = memoryview(block * (min(PIECE_OCTETS, octets) // len(block))) if block else None
    for done in range(0, octets, PIECE_OCTETS):
        found = _read(descriptor, offset + done, min(PIECE_OCTETS, octets - done))
        if found is None:
            return scsi_sense.UNRECOVERED_READ
        if block and piece is not None and found != piece[: len(found)]:
            return scsi_sense.miscompare(first_difference(found, piece[: len(found)]) % len(block))
    return None


def _look_up(descriptor: Descriptor, deed: LookUp) -> Sense | None:
    """Tell of runs that are alike; neighbours of the same kind are one."""
    position, end, told = deed.offset, deed.offset + deed.octets, 0
    begun: tuple[int, bool] | None = None
    while position < end and told < deed.runs:
        frame = Frame(Operation.LOOK_UP, position, end - position)
        if call(descriptor, frame) is not None:
            return scsi_sense.UNRECOVERED_READ
        octets = min(frame.octets, end - position)
        position += octets
        if begun and begun[1] == frame.mapped:
            begun = begun[0] + octets, frame.mapped
            continue
        if begun:
            deed.found(*begun)
            told += 1
        begun = octets, frame.mapped
    if begun and told < deed.runs:
        deed.found(*begun)
    return None


def _copy(source: Descriptor, destination: Descriptor, segment: CopySegment) -> Sense | None:
    for done in range(0, segment.octets, PIECE_OCTETS):
        found = _read(source, segment.source_offset + done, min(PIECE_OCTETS, segment.octets - done))
        if found is None or _write(destination, Operation.WRITE, segment.destination_offset + done, found):
            return scsi_sense.COPY_ABORTED
    return None
