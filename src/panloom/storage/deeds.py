"""What frames ask for, done on a device, where it may take its time.

send handler ──▶ do                        what is neither READ nor WRITE, on the caller's thread
Workers      ──▶ do_elsewhere ──▶ answer   anything, on a thread of the device's own
"""

import errno
from time import monotonic_ns

from panloom.storage.access import Access
from panloom.storage.device import OVERDUE_NANOSECONDS, SLOW_FOR_NANOSECONDS
from panloom.storage.frame import Frame, MiscompareError, Operation, StaleEpochError, answer
from panloom.storage.statistics import Kind

KINDS = {
    Operation.READ: Kind.READ,
    Operation.WRITE: Kind.WRITE,
    Operation.FLUSH: Kind.FLUSH,
    Operation.UNMAP: Kind.UNMAP,
    Operation.COMPARE_AND_WRITE: Kind.WRITE,
    Operation.OR_WRITE: Kind.WRITE,
    Operation.LOOK_UP: Kind.READ,
}
"""What an operation counts as."""


def do_elsewhere(access: Access, frame: Frame, begun: int) -> None:
    """Do what a frame asks for on a thread where it may take its time."""
    started = monotonic_ns()
    frame.error = OSError(errno.EIO, "a fault of the storage process; see its log")  # unless it ends otherwise
    try:
        if access.ended:
            raise StaleEpochError("the session is over")
        if frame.operation is Operation.READ:
            access.read(frame.offset, frame.data)
        else:
            do(access, frame)
        frame.error = None
    except (OSError, StaleEpochError) as error:
        frame.error = error
        tell_failed(access, frame, error)
    finally:  # whoever waits for it must not wait for ever
        now = monotonic_ns()
        if now - started > OVERDUE_NANOSECONDS and not access.may_block:
            access.device.slow_until_ns = now + SLOW_FOR_NANOSECONDS
        access.device.count_elsewhere(KINDS[frame.operation], frame.octets, now - begun, frame.error)
        answer(frame)


def do(access: Access, frame: Frame) -> None:
    """Do what a frame asks for that is no READ; OSError, StaleEpochError."""
    match frame.operation:
        case Operation.WRITE:
            access.write(frame.offset, frame.data)
        case Operation.FLUSH:
            access.flush()
        case Operation.UNMAP:
            access.unmap(frame.offset, frame.octets)
        case Operation.COMPARE_AND_WRITE:
            access.modify(frame.offset, frame.octets, lambda found: _compared(found, frame.data))
        case Operation.OR_WRITE:
            access.modify(frame.offset, frame.octets, lambda found: _united(found, frame.data))
        case Operation.LOOK_UP:
            frame.octets, frame.mapped = access.look_up(frame.offset, frame.offset + frame.octets)
        case _:
            raise OSError(errno.EOPNOTSUPP, f"{frame.operation.name} is not to be had here")


def _compared(found: bytearray, data: memoryview) -> memoryview:
    wanted = data[: len(found)]
    if found != wanted:
        differs = (one != other for one, other in zip(found, wanted, strict=True))
        raise MiscompareError(next(at for at, here in enumerate(differs) if here))
    return data[len(found) :]


def _united(found: bytearray, data: memoryview) -> memoryview:
    both = int.from_bytes(found, "big") | int.from_bytes(data, "big")
    return memoryview(both.to_bytes(len(found), "big"))


def tell_failed(access: Access, frame: Frame, error: OSError | StaleEpochError) -> None:
    """Log what the initiator is told as sense data, where it is the device's fault."""
    if isinstance(error, OSError) and not isinstance(error, MiscompareError):
        access.device.tell(frame.operation.name.lower(), error, access.lost)
