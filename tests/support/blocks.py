"""Units of tests as the Local Transport has them, and the Remote Transport's side of the direct call."""

import threading

from panloom.storage.frame import Frame, MiscompareError, Operation, StaleEpochError, answer
from panloom.storage.medium import call


def send(disk, frame):
    """A send handler over four plain methods: answer a frame by ``disk.read``, ``write``, ``flush`` or ``unmap``."""
    try:
        match frame.operation:
            case Operation.READ:
                disk.read(frame.offset, frame.data)
            case Operation.WRITE:
                disk.write(frame.offset, frame.data)
            case Operation.FLUSH:
                disk.flush()
            case Operation.UNMAP:
                disk.unmap(frame.offset, frame.octets)
            case Operation.COMPARE_AND_WRITE | Operation.OR_WRITE:
                found = bytearray(frame.octets)
                disk.read(frame.offset, memoryview(found))
                disk.write(frame.offset, _changed(frame, found))
    except (OSError, StaleEpochError) as error:
        frame.error = error
    answer(frame)


def send_late(disk, frame):
    """As ``send``, on a thread of its own: the frame is called back when the send handler has long returned."""
    if frame.operation is Operation.WRITE:
        frame.data = memoryview(bytes(frame.data))
    threading.Thread(target=send, args=(disk, frame)).start()


def _changed(frame, found):
    if frame.operation is Operation.OR_WRITE:
        return memoryview(bytes(one | other for one, other in zip(found, frame.data, strict=True)))
    if frame.data[: len(found)] != found:
        raise MiscompareError(next(at for at, octet in enumerate(found) if octet != frame.data[at]))
    return frame.data[len(found) :]


def read(unit, offset, into):
    """Fill ``into`` from a descriptor's unit; its error is raised."""
    _done(call(unit, Frame(Operation.READ, offset, len(into), memoryview(into))))


def write(unit, offset, data):
    """Write to a descriptor's unit; its error is raised."""
    _done(call(unit, Frame(Operation.WRITE, offset, len(data), memoryview(data))))


def flush(unit):
    """Have it all on the disk."""
    _done(call(unit, Frame(Operation.FLUSH)))


def unmap(unit, offset, octets):
    """Give a range back."""
    _done(call(unit, Frame(Operation.UNMAP, offset, octets)))


def _done(error):
    if error is not None:
        raise error
