"""SANITIZE on the medium: a thread for each unit that is being erased.

    SANITIZE ──▶ Eraser.begin(descriptor) ──▶ thread: passes of frames, at most OCTETS_A_SECOND ──▶ flushed ──▶ end
    a login  ──▶ Eraser.resume(descriptor)    where it was under way when its last session, or the process, ended

It writes with the right of the session that it was given.  When that is taken away, by a fence or because the session
has ended, it stops, and goes on from its begin with that of the next session: a server that is shut out of its disk
erases nothing.
"""

import logging
import threading
import time

from panloom.protocol import scsi_sanitize
from panloom.protocol.scsi_unit import Erasing, LogicalUnit, Nexus
from panloom.storage.descriptor import Descriptor
from panloom.storage.frame import Frame, Operation, StaleEpochError
from panloom.storage.medium import call
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

PIECE_OCTETS = 1 << 20
OCTETS_A_SECOND = 32 << 20  # so that other units do not suffer
LOOK_SECONDS = 0.1  # how soon it is seen that nobody waits any more

log = logging.getLogger(__name__)


class Eraser:
    """Erases one unit."""

    def __init__(self, name: str, unit: LogicalUnit) -> None:
        self._name = name
        self._unit = unit
        self._lock = threading.Lock()  # of the two below
        self._thread: threading.Thread | None = None
        self._next: Descriptor | None = None  # whose right to use once that of the first is gone
        self._stopping = threading.Event()

    def begin(self, descriptor: Descriptor, *, waiting: Nexus) -> Sense | None:
        """Begin to erase; return how it went, at its end as long as the nexus waits for that."""
        thread = self.resume(descriptor)
        if not waiting.waits or thread is None:
            return None
        while thread.is_alive() and waiting.waits:
            thread.join(LOOK_SECONDS)
        with self._unit.lock:
            erasing = self._unit.erasing
        if erasing is None:
            return None
        return scsi_sense.SANITIZE_FAILED if erasing.failed else scsi_sense.SANITIZE_UNDER_WAY

    def resume(self, descriptor: Descriptor) -> threading.Thread | None:
        """Erase, if that is under way; return the thread that does it."""
        with self._lock, self._unit.lock:
            erasing = self._unit.erasing
            if erasing is None or erasing.failed or descriptor.read_only or self._stopping.is_set():
                return None
            self._next = descriptor
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"erase-{self._name}", daemon=True)
                self._thread.start()
            return self._thread

    def stop(self) -> None:
        """Stop where it is, and wait for that; what is under way goes on after the next start."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                descriptor, self._next = self._next, None
                if descriptor is None:
                    self._thread = None
                    return
            with self._unit.lock:
                erasing = self._unit.erasing
            if erasing is None or erasing.failed:
                continue
            try:
                self._erase(descriptor, erasing)
            except StaleEpochError:
                log.info("unit=%s sanitize=paused why=%r", self._name, "the session that it wrote for has ended")
            except InterruptedError:
                continue
            except OSError as error:
                log.warning("unit=%s sanitize=failed why=%r", self._name, error.strerror or str(error))
                self._end(failed=True)
            else:
                log.info("unit=%s sanitize=done", self._name)
                self._end(failed=False)

    def _end(self, *, failed: bool) -> None:
        try:
            scsi_sanitize.end(self._unit, failed=failed)
        except OSError as error:
            log.warning("unit=%s sanitize=failed why=%r", self._name, error.strerror or str(error))

    def _erase(self, descriptor: Descriptor, erasing: Erasing) -> None:
        octets = descriptor.blocks * descriptor.block_octets
        begun, done = time.monotonic(), 0
        for number in range(erasing.passes):
            block = erasing.block_of(number)
            piece = memoryview(block * (PIECE_OCTETS // len(block))) if block else memoryview(b"")
            for offset in range(0, octets, PIECE_OCTETS):
                length = min(PIECE_OCTETS, octets - offset)
                if block:
                    self._send(descriptor, Frame(Operation.WRITE, offset, length, piece[:length]))
                    done += length
                else:
                    self._send(descriptor, Frame(Operation.UNMAP, offset, length))
                if self._stopping.wait(max(0.0, begun + done / OCTETS_A_SECOND - time.monotonic())):
                    raise InterruptedError
            self._send(descriptor, Frame(Operation.FLUSH))

    def _send(self, descriptor: Descriptor, frame: Frame) -> None:
        error = call(descriptor, frame)
        if error is not None:
            raise error
