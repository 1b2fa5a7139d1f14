"""What a session wants done on the medium: done in the loop's own thread, or beside it; and the answers.

    session.actions ──▶ READ, WRITE ──▶ frame ──┬─▶ called back at once ─────────────────▶ session.performed
                    │                           └─▶ called back later, from any thread ──▶    under the lock
                    └─▶ all that may take long ──▶ Aside ──▶ a thread of its own ────────▶    under the lock

The lock is held by whoever uses session and output: the loop but while it waits for input, and the threads that answer.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from panloom.disk_io import read_fully
from panloom.protocol.iscsi_session import IscsiSession
from panloom.protocol.iscsi_task import Action, Compare, Deed, OrWrite, Write, WriteAndVerify
from panloom.protocol.scsi_disk import Flush, Read
from panloom.storage.aside import Aside
from panloom.storage.descriptor import Descriptor, ReceiveHandler
from panloom.storage.frame import Frame, Operation, StaleEpochError
from panloom.storage.medium import call, carry_out, write_sense
from panloom.storage.output import Output, Stream
from panloom.storage.reading import Reader, Reading, Stop
from panloom.storage.session_lock import SessionLock
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

LOOK_SECONDS = 0.05  # how soon a fact is seen that nobody tells


class Count(Protocol):
    """Counts the octets of a READ or a WRITE that is done."""

    def __call__(self, *, read: int = 0, written: int = 0) -> None: ...


class Performer:
    """See above.  ``call`` is the receive handler; ``leave_input`` gives the loop's input away to a late frame.

    ``threads`` False does all in the thread that asks.
    """

    def __init__(
        self,
        stream: Stream,
        session: IscsiSession,
        output: Output,
        descriptors: Mapping[int, Descriptor],
        *,
        call: ReceiveHandler,
        count: Count,
        leave_input: Callable[[], None],
        threads: bool,
    ) -> None:
        self._stream = stream
        self._session = session
        self._output = output
        self._descriptors = descriptors
        self._call = call
        self._count = count
        self._leave_input = leave_input
        self.reader = Reader(session, output, call)
        self.lock = SessionLock()  # of all that follows, of session and output
        self.thread = 0  # the loop's
        self.broken: Exception | None = None  # what befell an answer from another thread
        self._late: dict[int, Callable[[], None]] = {}  # id of a frame that is not called back yet → what then
        self._aside: Aside | None = Aside() if threads else None
        self._over = False  # nothing of the session is under way any more, or ever will be

    def finish(self) -> None:
        """Return when nothing of the session is under way any more: no call of it is executing."""
        with self.lock:
            self._session.abandon()
        if self._aside is not None:
            self._aside.finish()
        with self.lock:
            while self._late:
                self.lock.wait()
            self._over = True
            self.lock.notify_all()

    def tell(self, what: Callable[[IscsiSession], None], *, seconds: float) -> bool:
        """Have something done with the session, from another thread; what it has to say goes out at once.

        False: its initiator takes no answers, so that the loop has not come to it within so many seconds.
        """
        if not self.lock.acquire(seconds):
            return False
        try:
            if not self._over:
                what(self._session)
                self._speak()
        except (OSError, StaleEpochError) as error:  # this connection's trouble, and not that of who speaks for it
            self._break(error)
        finally:
            self.lock.release()
        return True

    def await_fact(self, fact: Callable[[IscsiSession], bool], *, seconds: float | None = None) -> None:
        """Return, in another thread, when something holds of the session, or it is over, or so long has passed."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self.lock:
            while not (self._over or fact(self._session)) and (deadline is None or time.monotonic() < deadline):
                self.lock.wait(LOOK_SECONDS)

    def perform(self) -> None:
        """Do what the session wants done, or have it done."""
        session = self._session
        while session.actions:
            self.take_answers()
            action = session.actions.popleft()
            unit, deed, task = self._descriptors[action.lun], action.deed, action.task
            if isinstance(deed, Read):
                residual = {"residual_flags": task.residual_flags, "residual_count": task.residual_count}
                reading = Reading(task.initiator_task_tag, deed.offset, deed.octets, **residual)
                if deed.flush:
                    self.set_aside(action, reading)
                else:
                    self.read(action, unit, reading)
            elif isinstance(deed, Write):
                data = memoryview(deed.data)
                frame = Frame(Operation.WRITE, deed.offset, len(data), data, task.initiator_task_tag)
                if self._call(unit.context, unit.send_handler, frame):
                    self._end_write(action, frame)
                else:
                    self.await_write(action, frame, data)
            else:
                self.set_aside(action, None)

    def read(self, action: Action, unit: Descriptor, reading: Reading) -> None:
        """Send what a READ asks for, as far as it is to be had at once."""
        frame = self.reader.send(unit, reading)
        if frame is Stop.ENDED:
            self._performed(action, reading, reading.sense)
        elif frame is Stop.COLD:
            self.set_aside(action, reading)
        else:
            self.await_read(action, unit, reading, frame)

    def await_read(self, action: Action, unit: Descriptor, reading: Reading, frame: Frame) -> None:
        """Leave the output to a frame that is not called back yet, and go on with the READ when it is."""
        self._output.leave()
        self._late[id(frame)] = partial(self._read_on, action, unit, reading, frame)

    def _read_on(self, action: Action, unit: Descriptor, reading: Reading, frame: Frame) -> None:
        """Go on with a READ whose next piece came late, or was named late."""
        error = frame.error
        if error is None and frame.file is not None:
            try:
                read_fully(frame.file.fd, frame.data, frame.at)
            except OSError as failed:
                error = failed
        if error is not None:
            reading.sense = scsi_sense.UNRECOVERED_READ
        else:
            self.reader.send_octets(reading, frame.data)
        self.read(action, unit, reading)

    def await_write(self, action: Action, frame: Frame, data: memoryview) -> None:
        """Go on with a WRITE when its frame, made with this data, is called back."""
        # What others than the loop write is not from the input, into which the loop receives meanwhile.
        if frame.data is data and threading.get_ident() == self.thread:
            self._leave_input()
        self._late[id(frame)] = partial(self._end_write, action, frame)

    def _end_write(self, action: Action, frame: Frame) -> None:
        self._performed(action, None, None if frame.error is None else write_sense(frame.error))

    def _performed(self, action: Action, reading: Reading | None, result: "Sense | memoryview | None") -> None:
        """Tell the session of an action that is done; ``result`` is why it failed, or what was read."""
        sense = None if isinstance(result, memoryview) else result
        if reading is not None:
            if isinstance(result, memoryview):
                self.reader.send_octets(reading, result)
            action.task.data_in_pdus = reading.data_sn
            if sense is None and reading.octets:
                self._count(read=reading.octets)
        elif isinstance(action.deed, Write) and sense is None:
            self._count(written=len(action.deed.data))
        self._session.performed(action, sense)

    def take_answers(self) -> None:
        """Move the session's answers into the output."""
        session = self._session
        if session.output:
            answers, session.output = session.output, []
            for answer in answers:
                self._output.append(answer)

    # -- what may take long --------------------------------------------------------------------------------------

    def set_aside(self, action: Action, reading: Reading | None) -> None:
        """Have an action done by another thread, where there are any."""
        unit, deed = self._descriptors[action.lun], action.deed
        if self._aside is None:
            self._performed(action, reading, _done_slowly(unit, deed, reading, self._descriptors))
            return
        if isinstance(deed, Compare | WriteAndVerify | OrWrite):
            deed = msgspec.structs.replace(deed, data=bytes(deed.data))  # the input will be used again
        self._aside.take(action.lun, partial(self._do_aside, action, deed, reading))

    def _do_aside(self, action: Action, deed: Deed, reading: Reading | None) -> None:
        """Do an action and answer, in one of the threads."""
        try:
            result = _done_slowly(self._descriptors[action.lun], deed, reading, self._descriptors)
        except Exception as error:  # noqa: BLE001  the thread's top guard; ``run`` raises it
            self._break(error)
        else:
            self._answer_late(partial(self._performed, action, reading, result))

    def _answer_late(self, finish: Callable[[], None]) -> None:
        """Answer from another thread than the loop's."""
        try:
            with self.lock:
                try:
                    finish()
                    self._speak()
                finally:
                    self.lock.notify_all()
        except Exception as error:  # noqa: BLE001  the thread's top guard; ``run`` raises it
            self._break(error)

    def _speak(self) -> None:
        """Go on with the session, and send what it says, from another thread than the loop's."""
        self.perform()
        self.take_answers()
        self._output.send()
        if self._session.closing is not None:
            self._shut_down(socket.SHUT_RD)  # the loop waits for input, and has to see it

    def _shut_down(self, how: int) -> None:
        if isinstance(self._stream, socket.socket):
            with contextlib.suppress(OSError):
                self._stream.shutdown(how)

    def end_late(self, frame: Frame) -> None:
        """Go on, on the thread that has called it back, with what waits for a frame."""
        self._answer_late(partial(self._end_late, frame))

    def _end_late(self, frame: Frame) -> None:
        finish = self._late.pop(id(frame))
        if isinstance(frame.error, StaleEpochError):
            raise frame.error
        finish()

    def _break(self, error: Exception) -> None:
        """End the connection; the loop tells why."""
        self.broken = self.broken or error
        self._shut_down(socket.SHUT_RDWR)


def _done_slowly(
    unit: Descriptor, deed: Deed, reading: Reading | None, others: Mapping[int, Descriptor]
) -> Sense | memoryview | None:
    """Do a deed; return why it failed, or what was read."""
    if not isinstance(deed, Read) or reading is None:
        return carry_out(unit, deed, others)
    if deed.flush and not reading.done:
        sense = carry_out(unit, Flush())
        if sense is not None:
            return sense
    octets = memoryview(bytearray(reading.rest_octets))
    error = call(unit, Frame(Operation.READ, reading.at, len(octets), octets, reading.tag)) if octets else None
    return octets if error is None else scsi_sense.UNRECOVERED_READ
