"""The send handler of every Descriptor: a frame from the Remote Transport, done, or had done, and called back.

    a frame ──▶ send ──┬─▶ the device, at once on the caller's thread ──▶ answer
                       └─▶ on one of the device's own (``deeds``): a slow medium, or a limit that holds it back

A device that had taken long lately, or has not yet done what it was given long ago, counts as slow: its frames go
elsewhere until it is quick again, so that one device delays neither others nor the pings of its own connection for
long.  What the kernel does not have in memory is read elsewhere, too.
"""

from functools import partial

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython

from panloom.storage.access import Access
from panloom.storage.deeds import KINDS, do, do_elsewhere, tell_failed
from panloom.storage.device import OVERDUE_NANOSECONDS, SLOW_FOR_NANOSECONDS, SLOW_NANOSECONDS
from panloom.storage.frame import Frame, Operation, StaleEpochError, answer
from panloom.storage.statistics import Kind

if cython.compiled:
    from cython.cimports.panloom.storage.linux import monotonic_ns
else:
    from time import monotonic_ns

COPIED_OCTETS = 1 << 16  # of a write that waits; beyond, it is the requester's buffer that waits with it
_READ, _WRITE = Operation.READ, Operation.WRITE
_READS, _WRITES = int(Kind.READ), int(Kind.WRITE)


def send(access: Access, frame: Frame) -> None:
    """Do what a frame asks for, or have it done, and call it back."""
    device, begun = access.device, monotonic_ns()
    if device.limiter is not None and not access.ended and (wait := device.wait_seconds(frame.octets)):
        _keep(frame)
        access.delays.add(wait, access, device.workers, partial(do_elsewhere, access, frame, begun))
        if access.ended:  # just now: whoever ended it may not have seen this frame
            access.delays.hasten(access)
        return
    if access.may_block or begun < device.slow_until_ns or begun - device.workers.busy_since_ns > OVERDUE_NANOSECONDS:
        _keep(frame)
        device.workers.put(partial(do_elsewhere, access, frame, begun))
        return
    error: OSError | StaleEpochError | None = None
    kind = _READS
    try:
        if frame.operation is _READ:
            if frame.takes_extent:
                access.name_extent(frame)
            if frame.file is None and not access.read_now(frame.offset, frame.data):
                device.workers.put(partial(do_elsewhere, access, frame, begun))
                return
        elif frame.operation is _WRITE:
            kind = _WRITES
            access.write(frame.offset, frame.data)
        else:
            kind = KINDS[frame.operation]
            do(access, frame)
    except (OSError, StaleEpochError) as failed:
        frame.error = error = failed
    took = monotonic_ns() - begun
    if took > SLOW_NANOSECONDS and frame.file is None:  # to name an extent waits for nothing but the processor
        device.slow_until_ns = begun + took + SLOW_FOR_NANOSECONDS
    if error is None:
        counters = access.counters
        counters.count(kind, frame.octets, took)
    else:
        tell_failed(access, frame, error)
        access.counters.count_failed(took)
    answer(frame)


def _keep(frame: Frame) -> None:
    """Let a small write wait without the buffer that it came in, which is much larger and wanted for the next."""
    if frame.operation is _WRITE and len(frame.data) < COPIED_OCTETS:
        frame.data = memoryview(bytes(frame.data))
