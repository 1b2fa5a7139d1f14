"""The block hot path: one connection's loop in full feature phase.

    recv_into ──▶ ┌──────────── 1 MiB ────────────┐
                  │ PDU │ PDU │ PDU │ begun PDU … │
                  └──┬─────┬─────┬────────────────┘
                     │     │     └─ anything else ──▶ IscsiSession ──▶ Action ──▶ the medium
                     │     └─ WRITE, all its data in the PDU ──▶ frame ──▶ send handler, straight from this buffer
                     └─ READ ──▶ frame ──▶ Descriptor.send_handler, straight into the other
                  ┌──────────── answers ──────────┐
      sendall ◀── │ Data-In … status │ status │ … │   when the input is dry, or at 128 KiB
                  └───────────────────────────────┘

A plain READ(10), READ(16), WRITE(10) or WRITE(16), next in order and inside its unit, is answered here; whatever has
anything unusual about it goes to the session, whose answers are the same, octet for octet.  One receive and one send
serve as many commands as the initiator had sent; that, and status in the last Data-In, is where the speed comes from.

A frame's context is the initiator task tag.  Nothing is acknowledged before the frame is called back.
"""

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Literal, Protocol

from panloom.errors import MalformedError
from panloom.protocol.iscsi_keys import RECEIVE_OCTETS
from panloom.protocol.iscsi_session import BLOCK_OCTETS, NOT_SUPPORTED, IscsiSession
from panloom.protocol.iscsi_task import Action, Write
from panloom.protocol.scsi_disk import Flush, Read
from panloom.storage.descriptor import Descriptor, SessionFacts
from panloom.storage.frame import Frame
from panloom.storage.frame import Operation as Ask
from panloom.storage.medium import call, carry_out, write_sense
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import HEADER_OCTETS, NO_TAG, lun_field
from panloom.wire.scsi_cdb import DPO, FUA, Operation
from panloom.wire.scsi_sense import Sense

INPUT_OCTETS = 1 << 20
LARGEST_PDU = HEADER_OCTETS + 255 * 4 + RECEIVE_OCTETS
FLUSH_OCTETS = 131072  # send answers from here on; smaller costs 20 %
OUTPUT_OCTETS = FLUSH_OCTETS + HEADER_OCTETS + RECEIVE_OCTETS + BLOCK_OCTETS

_LENGTHS = struct.Struct(">4xI").unpack_from
_COMMAND = struct.Struct(">xBxxIQIIIIBBQIxx").unpack_from  # RFC 7143 section 11.3; the CDB as op, flags, 8, 4 octets
_DATA_IN = struct.Struct(">BBBBIQIIIIIIII").pack_into  # section 11.7
_RESPONSE = struct.Struct(">BBBBI8xI4xIIIIII").pack_into  # section 11.4
_SCSI_COMMAND, _SCSI_RESPONSE, _SCSI_DATA_IN = 0x01, 0x21, 0x25
_PLAIN_READ, _PLAIN_WRITE = iscsi.FINAL | iscsi.READ, iscsi.FINAL | iscsi.WRITE
_ATTRIBUTES = 0x07  # task attributes, which change nothing here
_TENS = frozenset((int(Operation.READ_10), int(Operation.WRITE_10)))
_PLAIN = frozenset((*_TENS, int(Operation.READ_16), int(Operation.WRITE_16)))
_READS = frozenset((int(Operation.READ_10), int(Operation.READ_16)))


def build() -> Literal["python", "compiled"]:
    """Return which build of this loop was loaded: the source, or an extension module in its place."""
    return "compiled" if __file__.endswith(tuple(EXTENSION_SUFFIXES)) else "python"


class Stream(Protocol):
    """What the loop needs of a socket; ``recv_into`` raises BlockingIOError after a while of silence."""

    def recv_into(self, buffer: memoryview, /) -> int: ...
    def sendall(self, data: memoryview, /) -> None: ...


class HotLoop:
    """Serves one connection until it ends.

    ``clock`` is CLOCK_MONOTONIC in seconds.  ``first_read`` is called once, when the first block has been read.
    ``pings`` False leaves out NOP-In, for initiators that never answer it.  After ``patience_seconds`` of silence the
    connection ends; None: never.  ``resized`` brings, from any thread, a LUN and how many blocks it has now.
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
        resized: deque[tuple[int, int]] | None = None,
    ) -> None:
        self._stream = stream
        self._session = session
        self._descriptors = dict(descriptors)
        self._by_field = {lun_field(lun): descriptor for lun, descriptor in descriptors.items()}
        self._facts = facts
        self._clock = clock
        self._first_read = first_read
        self._pings = pings
        self._patience_seconds = patience_seconds
        self._resized = deque() if resized is None else resized
        self._input = memoryview(bytearray(INPUT_OCTETS))
        self._output = memoryview(bytearray(OUTPUT_OCTETS))
        self._filled = 0  # octets of the output
        self._take_parameters()

    def _take_parameters(self) -> None:
        """Take note of what initiator and session have agreed on."""
        self._parameters = parameters = self._session.parameters
        # Whole blocks in every Data-In but the last, since a unit is read in whole blocks.
        self._segment_octets = min(parameters.max_recv_data_segment_length, RECEIVE_OCTETS) & -BLOCK_OCTETS
        self._burst_octets = parameters.max_burst_length & -BLOCK_OCTETS
        self._immediate_octets = parameters.first_burst_length if parameters.immediate_data else 0

    def run(self) -> str:
        """Serve; return why the connection ended.

        OSError: the connection is broken.  StaleEpochError: a write was fenced off; nothing more may be answered.
        """
        session, input_, recv_into = self._session, self._input, self._stream.recv_into
        start = end = 0
        while session.closing is None:
            try:
                octets = recv_into(input_[end:])
            except BlockingIOError:
                if self._pings:
                    session.ping()
                    self._take_answers()
                    self._send()
                patience = self._patience_seconds
                if patience is not None and self._clock() - self._facts.last_heard_at > patience:
                    return f"silent for {patience:g} s"
                continue
            if octets == 0:
                return "closed"
            self._facts.last_heard_at = self._clock()
            if self._resized:
                self._take_sizes()
            end += octets
            start = self._consume(start, end)
            self._send()
            if start == end:
                start = end = 0
            elif INPUT_OCTETS - start < LARGEST_PDU:
                input_[: end - start] = bytes(input_[start:end])  # the two may overlap
                start, end = 0, end - start
        return session.closing

    def _take_sizes(self) -> None:
        """Let units have the blocks that they have by now."""
        while self._resized:
            lun, blocks = self._resized.popleft()
            descriptor = self._descriptors.get(lun)
            if descriptor and blocks > descriptor.blocks:
                self._descriptors[lun] = self._by_field[lun_field(lun)] = replace(descriptor, blocks=blocks)
                self._session.resize(lun, blocks)

    def _consume(self, start: int, end: int) -> int:
        """Carry out every whole PDU between two offsets of the input; return where the rest begins."""
        session, input_ = self._session, self._input
        while end - start >= HEADER_OCTETS and session.closing is None:
            (lengths,) = _LENGTHS(input_, start)
            octets = lengths & 0xFFFFFF
            if octets > RECEIVE_OCTETS:
                session.end(f"a data segment of {octets} octets", input_[start : start + HEADER_OCTETS])
                self._take_answers()
                break
            data = start + HEADER_OCTETS + (lengths >> 24 << 2)
            after = data + (octets + 3 & ~3)
            if end < after:
                break
            if input_[start] != _SCSI_COMMAND or not self._answer_plain(start):
                self._hand_over(input_[start : start + HEADER_OCTETS], data, octets)
            start = after
        return start

    def _answer_plain(self, start: int) -> bool:
        """Answer the command at this offset of the input, if it is one of the usual kind."""
        session = self._session
        flags, lengths, lun, tag, expected, cmd_sn, _, operation, bits, lba, blocks = _COMMAND(self._input, start)
        if operation not in _PLAIN:
            return False
        if operation in _TENS:
            blocks = lba >> 8 & 0xFFFF
            lba >>= 32
        unit = self._by_field.get(lun)
        offset = lba * BLOCK_OCTETS
        if unit is None or not blocks or expected != blocks * BLOCK_OCTETS or lba + blocks > unit.blocks:
            return False
        if cmd_sn != session.exp_cmd_sn or session.must_see(tag, lun):
            return False
        if operation in _READS:
            if flags & ~_ATTRIBUTES != _PLAIN_READ or lengths or bits & ~DPO:
                return False
            session.exp_cmd_sn = cmd_sn + 1 & 0xFFFFFFFF
            sense, sent = self._read(unit, tag, offset, expected)
            if sense is not None:
                self._fail(tag, sense, sent)
            return True
        if flags & ~_ATTRIBUTES != _PLAIN_WRITE or lengths != expected or expected > self._immediate_octets:
            return False
        if bits & ~(DPO | FUA) or unit.read_only:
            return False
        session.exp_cmd_sn = cmd_sn + 1 & 0xFFFFFFFF
        data = start + HEADER_OCTETS
        self._write(unit, tag, offset, self._input[data : data + expected], bool(bits & FUA))
        return True

    def _read(
        self, unit: Descriptor, tag: int, offset: int, octets: int, *, residual_flags: int = 0, residual_count: int = 0
    ) -> tuple[Sense | None, int]:
        """Send octets of the medium and GOOD; return why that failed, if so, and how many Data-In PDUs have gone."""
        session, output, facts = self._session, self._output, self._facts
        done = data_sn = 0
        burst = self._burst_octets
        while done < octets:
            piece = min(octets - done, self._segment_octets, burst)
            burst -= piece
            last = done + piece == octets
            at = self._filled + HEADER_OCTETS
            whole_blocks = piece + -piece % BLOCK_OCTETS
            frame = Frame(Ask.READ, offset + done, whole_blocks, output[at : at + whole_blocks], tag)
            if call(unit, frame) is not None:
                return scsi_sense.UNRECOVERED_READ, data_sn
            flags = iscsi.FINAL | iscsi.DATA_IN_STATUS | residual_flags if last else 0 if burst else iscsi.FINAL
            stat_sn = session.stat_sn if last else 0
            numbers = stat_sn, session.exp_cmd_sn, session.max_cmd_sn, data_sn, done, residual_count if last else 0
            _DATA_IN(output, self._filled, _SCSI_DATA_IN, flags, 0, 0, piece, 0, tag, NO_TAG, *numbers)
            if piece & 3:
                output[at + piece : at + piece + 4] = b"\0\0\0\0"  # the padding
            self._filled = at + (piece + 3 & ~3)
            done += piece
            data_sn += 1
            burst = burst or self._burst_octets
            if self._filled >= FLUSH_OCTETS:
                self._send()
        session.stat_sn = session.stat_sn + 1 & 0xFFFFFFFF
        facts.reads += 1
        facts.read_octets += octets
        if facts.first_read_at is None:
            facts.first_read_at = self._clock()
            self._first_read()
        return None, data_sn

    def _write(self, unit: Descriptor, tag: int, offset: int, data: memoryview, flush: bool) -> None:
        """Write, make it durable where that is asked for, and only then answer."""
        session, facts = self._session, self._facts
        error = call(unit, Frame(Ask.WRITE, offset, len(data), data, tag))
        if error is None and flush:
            error = call(unit, Frame(Ask.FLUSH, context=tag))
        if error is not None:
            self._fail(tag, write_sense(error), 0)
            return
        facts.writes += 1
        facts.written_octets += len(data)
        numbers = session.stat_sn, session.exp_cmd_sn, session.max_cmd_sn, 0, 0, 0
        _RESPONSE(self._output, self._filled, _SCSI_RESPONSE, iscsi.FINAL, 0, 0, 0, tag, *numbers)
        session.stat_sn = session.stat_sn + 1 & 0xFFFFFFFF
        self._filled += HEADER_OCTETS
        if self._filled >= FLUSH_OCTETS:
            self._send()

    def _fail(self, tag: int, sense: Sense, data_in_pdus: int) -> None:
        self._session.fail(tag, sense, exp_data_sn=data_in_pdus)
        self._take_answers()

    # -- everything that is not plain ----------------------------------------------------------------------------

    def _hand_over(self, header: memoryview, data: int, octets: int) -> None:
        """Give a PDU to the session, and do what it wants done."""
        session = self._session
        if header[0] & 0x3F not in iscsi.OPCODES:
            session.reject(NOT_SUPPORTED, header)
        else:
            ahs = bytes(self._input[data - header[4] * 4 : data])
            try:
                session.receive(iscsi.decode(header, ahs, self._input[data : data + octets]))
            except MalformedError as error:
                session.end(str(error), header)
            while session.actions:
                self._take_answers()
                action = session.actions.popleft()
                session.performed(action, self._do(action))
            self._facts.answers_nop = session.pings_answered > 0
            if session.parameters is not self._parameters:
                self._take_parameters()
        self._take_answers()

    def _do(self, action: Action) -> Sense | None:
        unit, deed, task, facts = self._descriptors[action.lun], action.deed, action.task, self._facts
        if not isinstance(deed, Read):
            sense = carry_out(unit, deed, self._descriptors)
            if isinstance(deed, Write) and sense is None:
                facts.writes += 1
                facts.written_octets += len(deed.data)
            return sense
        if deed.flush:
            sense = carry_out(unit, Flush())
            if sense is not None:
                return sense
        if not deed.octets:
            return None
        sense, task.data_in_pdus = self._read(
            unit,
            task.initiator_task_tag,
            deed.offset,
            deed.octets,
            residual_flags=task.residual_flags,
            residual_count=task.residual_count,
        )
        return sense

    # -- output --------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        """Move the session's answers into the output."""
        for answer in self._session.output:
            if self._filled + len(answer) > OUTPUT_OCTETS:
                self._send()
            self._output[self._filled : self._filled + len(answer)] = answer
            self._filled += len(answer)
        self._session.output.clear()
        if self._filled >= FLUSH_OCTETS:
            self._send()

    def _send(self) -> None:
        if self._filled:
            self._stream.sendall(self._output[: self._filled])
            self._filled = 0
