"""The block hot path: one connection's loop in full feature phase.

    recv_into ──▶ ┌──────────── 1 MiB ────────────┐
                  │ PDU │ PDU │ PDU │ begun PDU … │
                  └──┬─────┬─────┬────────────────┘
                     │     │     └─ anything else ──▶ IscsiSession ──▶ Actions ──▶ the medium, or Aside
                     │     └─ WRITE, all its data in the PDU ──▶ frame ──▶ send handler, straight from this buffer
                     └─ READ ──▶ frame ──▶ send handler, straight into the other, or an extent of a file
                  ┌──────────── answers ──────────┐
      send    ◀── │ Data-In … status │ status │ … │   when the input is dry, or at 128 KiB (``storage.output``)
                  └───────────────────────────────┘

A plain READ(10), READ(16), WRITE(10) or WRITE(16), next in order, inside its unit and of 512-octet blocks, is answered
here; whatever has anything unusual about it goes to the session, whose answers are the same, octet for octet.  One
receive and one send serve as many commands as the initiator had sent; that, and status in the last Data-In, is where
the speed comes from.

A frame's context is the initiator task tag.  Nothing is acknowledged before the frame is called back; a unit that calls
back later, from a thread of its own, answers from there.  What else may take long, a flush, octets that are not in the
page cache, is done by other threads (``storage.performer``), which answer likewise: under the connection's lock, which
the loop holds but while it waits for input.
"""

import errno
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Literal

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython


from panloom.errors import MalformedError
from panloom.protocol.iscsi_keys import RECEIVE_OCTETS
from panloom.protocol.iscsi_login import COMMAND_WINDOW
from panloom.protocol.iscsi_session import BLOCK_OCTETS, NOT_SUPPORTED, IscsiSession
from panloom.protocol.iscsi_task import Action, Write
from panloom.protocol.iscsi_task_set import Attribute
from panloom.protocol.scsi_disk import Read
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.storage.descriptor import Descriptor, SendHandler, SessionFacts
from panloom.storage.frame import Frame, StaleEpochError, new_callback, new_frame
from panloom.storage.frame import Operation as Ask
from panloom.storage.input import INPUT_OCTETS, Input
from panloom.storage.medium import write_sense
from panloom.storage.output import FLUSH_OCTETS, SENDFILE_OCTETS, Output, Stream
from panloom.storage.performer import Performer
from panloom.storage.reading import Reader, Reading
from panloom.wire import iscsi, scsi_sense
from panloom.wire.crc32c import DIGEST_OCTETS
from panloom.wire.iscsi import HEADER_OCTETS, NO_TAG, lun_field
from panloom.wire.scsi_cdb import DPO, Operation
from panloom.wire.scsi_sense import Sense

if cython.compiled:
    from cython.cimports.cpython.pythread import PyThread_get_thread_ident as get_ident
    from cython.cimports.panloom.storage.linux import get32
else:
    from threading import get_ident

__all__ = ["FLUSH_OCTETS", "INPUT_OCTETS", "HotLoop", "build"]

_LENGTHS = struct.Struct(">4xI").unpack_from
_COMMAND = struct.Struct(">xBxxIQIIIIBBQIxx").unpack_from  # RFC 7143 section 11.3; the CDB as op, flags, 8, 4 octets
_SCSI_COMMAND, DATA_DIGEST_ERROR = 0x01, 0x02
_HEADER_OCTETS, _BLOCK_OCTETS, _DIGEST_OCTETS = HEADER_OCTETS, BLOCK_OCTETS, DIGEST_OCTETS  # C's, where there is C
_RECEIVE_OCTETS, _WINDOW, _DPO, _MASK = RECEIVE_OCTETS, COMMAND_WINDOW, int(DPO), 0xFFFFFFFF
_PLAIN_READ, _PLAIN_WRITE = iscsi.FINAL | iscsi.READ, iscsi.FINAL | iscsi.WRITE
_ATTRIBUTES = 0x07  # task attributes, which change nothing here
_UNTAGGED, _SIMPLE = 0, int(Attribute.SIMPLE)
_READ_10, _READ_16 = int(Operation.READ_10), int(Operation.READ_16)
_WRITE_10, _WRITE_16 = int(Operation.WRITE_10), int(Operation.WRITE_16)
_LAST = iscsi.FINAL | iscsi.DATA_IN_STATUS
_NO_TAG = NO_TAG
_READ, _WRITE = Ask.READ, Ask.WRITE


def build() -> Literal["python", "compiled"]:
    """Return which build of this loop was loaded: the source, or an extension module in its place."""
    return "compiled" if __file__.endswith(tuple(EXTENSION_SUFFIXES)) else "python"


def _nothing() -> None:
    """Nobody is to be told."""


class _Unit:
    """What every command needs of a Descriptor."""

    __slots__ = ("blocks", "context", "field", "lun", "plain", "read_only", "send_handler")

    def __init__(self, lun: int, descriptor: Descriptor) -> None:
        self.lun = lun
        self.field = lun_field(lun)
        self.blocks = descriptor.blocks
        self.read_only = descriptor.read_only
        self.plain = descriptor.block_octets == BLOCK_OCTETS
        self.context = descriptor.context
        self.send_handler = descriptor.send_handler


class HotLoop:
    """Serves one connection until it ends.

    ``clock`` is CLOCK_MONOTONIC in seconds.  ``first_read`` is called once, when the first block has been read.
    ``pings`` False leaves out NOP-In, for initiators that never answer it.  After ``patience_seconds`` of silence the
    connection ends; None: never.  ``news`` brings, from any thread, what is to be done with the loop before the next
    input is looked at: ``resize``, ``add_unit``, ``remove_unit``.  ``leaving`` is called when no more input is taken,
    before what is under way is waited for.  ``threads`` False does what may take long in the loop itself.
    """

    def __init__(
        self,
        stream: Stream,
        session: IscsiSession,
        descriptors: Mapping[int, Descriptor],
        facts: SessionFacts,
        *,
        clock: Callable[[], float],
        first_read: Callable[[], None],
        pings: bool,
        patience_seconds: float | None = None,
        news: "deque[Callable[[HotLoop], None]] | None" = None,
        leaving: Callable[[], None] = _nothing,
        threads: bool = False,
    ) -> None:
        self._session = session
        self._numbers = session.numbers
        self._descriptors = dict(descriptors)
        self._units = {lun_field(lun): _Unit(lun, descriptor) for lun, descriptor in descriptors.items()}
        self._last: _Unit | None = None  # of them, that a plain command was for
        self._facts = facts
        self._clock = clock
        self._first_read = first_read
        self._pings = pings
        self._patience_seconds = patience_seconds
        self._news = deque() if news is None else news
        self._leaving = leaving
        self._input = Input(stream)
        self._next = 0  # what is in it behind the PDU that is carried out now
        self._quiet = False  # no plain command to a usual unit has to go through the session
        self._unusual = session.units.unusual  # it changes at any time
        parameters = session.parameters
        self._head = HEADER_OCTETS + (DIGEST_OCTETS if parameters.header_digest else 0)
        self._header_digest = parameters.header_digest
        self._data_digest = parameters.data_digest
        self._output = Output(stream, parameters, self._withdrawn)
        self._answered: Frame | None = None  # called back by the thread that has the lock
        self._back = self._called_back
        self._has_read = False
        self._reads = self._writes = self._read_octets = self._written_octets = 0  # plain ones, not yet told
        self._performer = Performer(
            stream,
            session,
            self._output,
            self._descriptors,
            call=self._call,
            count=self._count,
            leave_input=self._leave_input,
            threads=threads,
        )
        self._lock = self._performer.lock
        self._take_parameters()

    def _take_parameters(self) -> None:
        """Take note of what initiator and session have agreed on; digests are agreed on once, at login."""
        self._parameters = parameters = self._session.parameters
        reader = self._performer.reader = Reader(self._session, self._output, self._call)
        # What goes out as one Data-In whose octets may be read later.
        self._plain_octets = min(reader.segment_octets, parameters.max_burst_length, SENDFILE_OCTETS - 1)
        self._immediate_octets = parameters.first_burst_length if parameters.immediate_data else 0

    def run(self) -> str:
        """Serve, and end what is under way when the connection has ended; return why it ended.

        OSError: the connection is broken.  StaleEpochError: a write was fenced off; nothing more may be answered.
        """
        try:
            why = self.serve()
        finally:
            self._leaving()
            self._performer.finish()
        if self._performer.broken is not None:
            raise self._performer.broken
        return why

    def tell(self, what: Callable[[IscsiSession], None], *, seconds: float) -> bool:
        """Have something done with the session, from another thread; see ``Performer.tell``."""
        return self._performer.tell(what, seconds=seconds)

    def await_fact(self, fact: Callable[[IscsiSession], bool], *, seconds: float | None = None) -> None:
        """Return, in another thread, when something holds of the session, or it is over, or so long has passed."""
        self._performer.await_fact(fact, seconds=seconds)

    def serve(self) -> str:
        """Serve what comes until nothing more does; return why that is.  What is under way then goes on."""
        session, start = self._session, 0
        self._performer.thread = get_ident()
        while session.closing is None:
            octets = self._input.receive()
            if octets < 0:
                patience = self._patience_seconds
                if patience is not None and self._clock() - self._facts.last_heard_at > patience:
                    return f"silent for {patience:g} s"
                self._silence()
                continue
            if octets == 0:
                return session.closing or "closed"
            self._facts.last_heard_at = self._clock()
            with self._lock:
                if self._news:
                    self.take_news()
                start = self._consume(start)
                self._tell_plain()
                self._output.send()
        return session.closing

    def _silence(self) -> None:
        if self._pings:
            with self._lock:
                self._session.ping()
                self._performer.take_answers()
                self._output.send()

    def take_news(self) -> None:
        """Do what others want done; call it with the lock held, by ``tell``."""
        while self._news:
            self._news.popleft()(self)
        self._performer.take_answers()

    def resize(self, lun: int, blocks: int) -> None:
        """Let a unit have the blocks that it has by now."""
        descriptor = self._descriptors.get(lun)  # None: it was left out when it appeared
        if descriptor is not None and lun_field(lun) in self._units and blocks > descriptor.blocks:
            self._have(lun, replace(descriptor, blocks=blocks))
            self._session.units.resize(lun, blocks)

    def add_unit(self, lun: int, descriptor: Descriptor, disk: Disk, unit: LogicalUnit) -> None:
        """Serve one unit more, whose LUN has never been another's in this session."""
        if lun not in self._descriptors:
            self._have(lun, descriptor)
            self._session.units.add(lun, disk, unit)

    def remove_unit(self, lun: int) -> None:
        """Serve a unit no longer; what is under way on its medium still finds its descriptor."""
        self._last = None
        if self._units.pop(lun_field(lun), None):
            self._session.remove_unit(lun)

    def _have(self, lun: int, descriptor: Descriptor) -> None:
        self._descriptors[lun] = descriptor
        self._last = None
        self._units[lun_field(lun)] = _Unit(lun, descriptor)

    def _consume(self, start: int) -> int:
        """Carry out every whole PDU of the input from an offset on; return where the rest begins."""
        session, end, pdus = self._session, self._input.end, 0
        self._quiet = session.quiet
        while end - start >= self._head and session.closing is None:
            if cython.compiled:
                lengths = get32(self._input.base + start + 4)
                opcode = self._input.base[start]
            else:
                (lengths,) = _LENGTHS(self._input.view, start)
                opcode = self._input.view[start]
            octets = lengths & 0xFFFFFF
            if octets > _RECEIVE_OCTETS:
                session.end(f"a data segment of {octets} octets", self._input.view[start : start + HEADER_OCTETS])
                self._performer.take_answers()
                break
            data = start + self._head + (lengths >> 24 << 2)
            after = data + (octets + 3 & ~3) + (_DIGEST_OCTETS if octets and self._data_digest else 0)
            if end < after:
                break
            self._next = after
            if (self._header_digest or self._data_digest) and not self._is_whole(start, data, after, octets):
                break
            if opcode != _SCSI_COMMAND or not self._answer_plain(start, data):
                self._hand_over(start, data, octets)
            start = after
            pdus += 1
        return self._input.took(start, pdus)

    def _is_whole(self, start: int, data: int, after: int, octets: int) -> bool:
        """Check a PDU's digests; one that is wrong ends the connection, as at level 0 (RFC 7143 section 7.8)."""
        session, input_ = self._session, self._input
        if self._header_digest and not input_.digest_is(data - DIGEST_OCTETS, start, data - DIGEST_OCTETS):
            session.closing = "a header digest is wrong"  # nothing in it can be believed, not even whom to answer
            return False
        if octets and self._data_digest and not input_.digest_is(after - DIGEST_OCTETS, data, after - DIGEST_OCTETS):
            session.reject(DATA_DIGEST_ERROR, input_.view[start : start + HEADER_OCTETS])
            session.closing = "a data digest is wrong"
            self._performer.take_answers()
            return False
        return True

    # -- plain commands ------------------------------------------------------------------------------------------

    def _answer_plain(self, start: int, data: int) -> bool:
        """Answer the command at this offset of the input, if it is one of the usual kind."""
        if cython.compiled:
            at = self._input.base + start
            flags, lengths, tag, expected = at[1], get32(at + 4), get32(at + 16), get32(at + 20)
            cmd_sn, operation, bits = get32(at + 24), at[32], at[33]
            lun = cython.cast("uint64_t", get32(at + 8)) << 32 | get32(at + 12)
            lba = cython.cast("uint64_t", get32(at + 34)) << 32 | get32(at + 38)
            blocks = get32(at + 42)
        else:
            view = self._input.view
            flags, lengths, lun, tag, expected, cmd_sn, _, operation, bits, lba, blocks = _COMMAND(view, start)
        if operation in (_READ_10, _WRITE_10):
            blocks = lba >> 8 & 0xFFFF
            lba >>= 32
        elif operation not in (_READ_16, _WRITE_16):
            return False
        unit = self._last
        if unit is None or lun != unit.field:
            self._last = unit = self._units.get(lun)
            if unit is None:
                return False
        if not blocks or expected != blocks * _BLOCK_OCTETS:
            return False
        limit = unit.blocks
        if blocks > limit or lba > limit - blocks or not unit.plain:
            return False
        session = self._session
        if cmd_sn != self._numbers.exp_cmd_sn or tag == _NO_TAG:
            return False
        reads = operation in (_READ_10, _READ_16)
        if (self._unusual or not self._quiet) and session.must_see(
            tag, lun, reading=reads and flags & _ATTRIBUTES in (_UNTAGGED, _SIMPLE)
        ):
            return False
        if reads:
            if flags & ~_ATTRIBUTES != _PLAIN_READ or lengths or bits & ~_DPO:
                return False
            self._numbers.take_command()
            self._read_plain(unit, tag, lba * _BLOCK_OCTETS, expected)
            return True
        if flags & ~_ATTRIBUTES != _PLAIN_WRITE or lengths != expected or lengths > self._immediate_octets:
            return False
        if bits & ~_DPO or unit.read_only:
            return False
        self._numbers.take_command()
        self._write_plain(unit, tag, lba * _BLOCK_OCTETS, self._input.view[data : data + expected])
        return True

    def _read_plain(self, unit: _Unit, tag: int, offset: int, octets: int) -> None:
        """Send octets of the medium and GOOD, or why not."""
        if octets > self._plain_octets:
            self._output.read_extents()
            action = self._adopt(unit.lun, tag, Read(offset, octets, flush=False))
            self._performer.read(action, self._descriptors[unit.lun], Reading(tag, offset, octets))
            self._performer.take_answers()
            return
        output = self._output
        frame = new_frame(_READ, offset, octets, output.room(octets), tag)
        frame.takes_extent = True
        if not self._call(unit.context, unit.send_handler, frame):
            action = self._adopt(unit.lun, tag, Read(offset, octets, flush=False))
            self._performer.await_read(action, self._descriptors[unit.lun], Reading(tag, offset, octets), frame)
            return
        if frame.error is not None:
            self._fail(tag, scsi_sense.UNRECOVERED_READ)
            return
        if not self._has_read:
            self._note_first_read()
        self._reads += 1
        self._read_octets += octets
        stat_sn, exp_cmd_sn = self._numbers.take_status(), self._numbers.exp_cmd_sn
        max_cmd_sn = self._max_cmd_sn()
        if frame.file is not None:
            output.data_in_of(frame, unit.lun, tag, stat_sn, exp_cmd_sn, max_cmd_sn)
        else:
            output.data_in(_LAST, octets, tag, stat_sn, exp_cmd_sn, max_cmd_sn, 0, 0, 0)

    def _write_plain(self, unit: _Unit, tag: int, offset: int, data: memoryview) -> None:
        """Write, and only then answer."""
        octets = len(data)
        self._output.read_extents()  # as commands came, so the medium sees them
        frame = new_frame(_WRITE, offset, octets, data, tag)
        if not self._call(unit.context, unit.send_handler, frame):
            self._performer.await_write(self._adopt(unit.lun, tag, Write(offset, data)), frame, data)
            return
        if frame.error is not None:
            self._fail(tag, write_sense(frame.error))
            return
        self._writes += 1
        self._written_octets += octets
        stat_sn, exp_cmd_sn = self._numbers.take_status(), self._numbers.exp_cmd_sn
        max_cmd_sn = self._max_cmd_sn()
        self._output.good(tag, stat_sn, exp_cmd_sn, max_cmd_sn)

    def _max_cmd_sn(self) -> int:
        if self._quiet:  # no task is open that would narrow the window
            return self._numbers.exp_cmd_sn + _WINDOW - 1 & _MASK
        return self._session.max_cmd_sn

    def _call(self, context: object, send_handler: SendHandler, frame: Frame) -> bool:
        """Be the receive handler: save the frame's context and call the send handler; whether it has called back."""
        frame.context = new_callback(self._back, frame.context)
        send_handler(context, frame)
        if self._answered is not frame:
            return False
        self._answered = None
        if frame.error is not None and isinstance(frame.error, StaleEpochError):
            raise frame.error
        return True

    def _called_back(self, saved: object, frame: Frame) -> None:
        frame.context = saved
        if self._lock.is_mine():
            self._answered = frame
        else:
            self._performer.end_late(frame)

    def _withdrawn(self, extents: list[tuple[Frame, int, int]]) -> None:
        """Answer READs whose octets their extents did not give."""
        self._numbers.give_back(len(extents))
        for frame, lun, code in extents:
            tag, offset, octets = frame.context, frame.offset, frame.octets
            self._reads -= 1
            self._read_octets -= octets
            if code == errno.EAGAIN:
                action = self._adopt(lun, tag, Read(offset, octets, flush=False))
                self._performer.set_aside(action, Reading(tag, offset, octets))
            else:
                self._fail(tag, scsi_sense.UNRECOVERED_READ)

    def _adopt(self, lun: int, tag: int, deed: Read | Write) -> Action:
        """Let the session take over a command that is not done at once."""
        self._quiet = False
        return self._session.adopt(lun, tag, deed)

    def _fail(self, tag: int, sense: Sense) -> None:
        self._output.read_extents()
        self._session.fail(tag, sense)
        self._performer.take_answers()

    def _note_first_read(self) -> None:
        self._has_read = True
        self._facts.first_read_at = self._clock()
        self._first_read()

    def _tell_plain(self) -> None:
        """Tell what plain commands have done since the last time."""
        if self._reads or self._writes:
            facts = self._facts
            facts.reads += self._reads
            facts.read_octets += self._read_octets
            facts.writes += self._writes
            facts.written_octets += self._written_octets
            self._reads = self._writes = self._read_octets = self._written_octets = 0

    def _count(self, *, read: int = 0, written: int = 0) -> None:
        """Count what the session has asked for."""
        facts = self._facts
        if read:
            if not self._has_read:
                self._note_first_read()
            facts.reads += 1
            facts.read_octets += read
        if written:
            facts.writes += 1
            facts.written_octets += written

    # -- everything that is not plain ----------------------------------------------------------------------------

    def _hand_over(self, start: int, data: int, octets: int) -> None:
        """Give a PDU to the session, and do what it wants done."""
        session, view = self._session, self._input.view
        header = view[start : start + HEADER_OCTETS]
        self._output.read_extents()
        if header[0] & 0x3F not in iscsi.OPCODES:
            session.reject(NOT_SUPPORTED, header)
        else:
            segments = start + HEADER_OCTETS
            ahs = bytes(view[segments : segments + header[4] * 4])
            try:
                session.receive(iscsi.decode(header, ahs, view[data : data + octets]))
            except MalformedError as error:
                session.end(str(error), header)
            self._performer.perform()
            self._facts.answers_nop = session.pings_answered > 0
            self._quiet = session.quiet
            if session.parameters is not self._parameters:
                self._take_parameters()
        self._performer.take_answers()

    def _leave_input(self) -> None:
        self._input.leave(self._next)
