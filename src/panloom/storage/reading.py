"""A READ as Data-In PDUs: octets of a unit's medium, in pieces that the initiator takes, and status.

send           piece ──▶ send handler ──┬─▶ octets: copied into the output
                                        ├─▶ extent, small or under digests: read from the page cache
                                        └─▶ extent of 64 KiB or more: header, then sendfile; status in a PDU of its own
               … until a piece is not in the page cache: then who asked reads the rest elsewhere, and
send_octets    sends it
"""

import errno
from enum import Enum, auto

from panloom.protocol.iscsi_keys import RECEIVE_OCTETS
from panloom.protocol.iscsi_session import BLOCK_OCTETS, IscsiSession
from panloom.storage.descriptor import Descriptor, ReceiveHandler
from panloom.storage.frame import Frame, Operation
from panloom.storage.output import SENDFILE_OCTETS, Output
from panloom.wire import iscsi, scsi_sense
from panloom.wire.scsi_sense import Sense


class Stop(Enum):
    """Why a READ does not go on now."""

    ENDED = auto()  # all is sent, or ``sense`` says why not
    COLD = auto()  # the next octets are not in the page cache


class Reading:
    """How far a READ has come; ``sense`` says why it failed."""

    __slots__ = ("burst", "data_sn", "done", "octets", "offset", "residual_count", "residual_flags", "sense", "tag")

    def __init__(self, tag: int, offset: int, octets: int, *, residual_flags: int = 0, residual_count: int = 0) -> None:
        self.tag = tag
        self.offset = offset
        self.octets = octets
        self.residual_flags = residual_flags
        self.residual_count = residual_count
        self.done = 0
        self.data_sn = 0  # how many Data-In PDUs it has had
        self.burst = 0  # octets that the burst still has room for
        self.sense: Sense | None = None

    @property
    def at(self) -> int:
        """Return which octet of the unit comes next."""
        return self.offset + self.done

    @property
    def rest_octets(self) -> int:
        """Return how many octets are to be read still, whole blocks."""
        rest = self.octets - self.done
        return rest + -rest % BLOCK_OCTETS


class Reader:
    """Sends what is read; ``call`` is the receive handler of the connection: whether the frame was called back."""

    def __init__(self, session: IscsiSession, output: Output, call: ReceiveHandler) -> None:
        self._session = session
        self._output = output
        self._call = call
        parameters = session.parameters
        # Whole blocks in every Data-In but the last, since a unit is read in whole blocks.
        self.segment_octets = min(parameters.max_recv_data_segment_length, RECEIVE_OCTETS) & -BLOCK_OCTETS
        self._burst_octets = parameters.max_burst_length & -BLOCK_OCTETS

    def send(self, unit: Descriptor, reading: Reading) -> Stop | Frame:
        """Send all and GOOD, or set ``sense``; a frame that is returned is to be waited for, and is the next piece."""
        output = self._output
        while reading.done < reading.octets and reading.sense is None:
            piece = self._next_piece(reading)
            whole = piece + -piece % BLOCK_OCTETS
            frame = Frame(Operation.READ, reading.at, whole, output.room(whole), reading.tag)
            frame.takes_extent = True
            if not self._call(unit.context, unit.send_handler, frame):
                return frame
            if frame.error is not None:
                reading.sense = scsi_sense.UNRECOVERED_READ
            elif frame.file is None:
                self._data_in(reading, piece)
            elif not self._send_extent(reading, frame, piece):
                return Stop.COLD
        return Stop.ENDED

    def _send_extent(self, reading: Reading, extent: Frame, piece: int) -> bool:
        """Send a piece of a file; False if it is not in the page cache."""
        output = self._output
        if piece >= SENDFILE_OCTETS and output.sends_files and not piece & 3:
            if not output.is_cached(extent, piece):
                return False
            self._send_file(reading, extent, piece)
            return True
        code = output.read_now(extent, piece)
        if code == errno.EAGAIN:
            return False
        if code:
            reading.sense = scsi_sense.UNRECOVERED_READ
        else:
            self._data_in(reading, piece)
        return True

    def send_octets(self, reading: Reading, octets: memoryview) -> None:
        """Send what comes next, read by now, and at the end GOOD."""
        begun = reading.done
        end = min(reading.octets, begun + len(octets))
        while reading.done < end:
            piece = min(self._next_piece(reading), end - reading.done)
            start = reading.done - begun
            self._output.room(piece)[:] = octets[start : start + piece]
            self._data_in(reading, piece)

    def _next_piece(self, reading: Reading) -> int:
        reading.burst = reading.burst or self._burst_octets
        return min(reading.octets - reading.done, self.segment_octets, reading.burst)

    def _data_in(self, reading: Reading, piece: int) -> None:
        """Put a Data-In around the piece that stands in the output."""
        session, offset = self._session, reading.done
        number = _go_on(reading, piece)
        last = reading.done == reading.octets
        flags, stat_sn = 0 if reading.burst else iscsi.FINAL, 0
        if last:
            flags, stat_sn = iscsi.FINAL | iscsi.DATA_IN_STATUS | reading.residual_flags, session.numbers.take_status()
        residual = reading.residual_count if last else 0
        numbers = stat_sn, session.numbers.exp_cmd_sn, session.max_cmd_sn, number, offset, residual
        self._output.data_in(flags, piece, reading.tag, *numbers)

    def _send_file(self, reading: Reading, extent: Frame, piece: int) -> None:
        session, output, offset = self._session, self._output, reading.done
        number = _go_on(reading, piece)
        last = reading.done == reading.octets
        flags = 0 if reading.burst and not last else iscsi.FINAL
        output.begin(flags, piece, reading.tag, session.numbers.exp_cmd_sn, session.max_cmd_sn, number, offset)
        if output.send_file(extent, piece):
            reading.sense = scsi_sense.UNRECOVERED_READ
        elif last:
            stat_sn = session.numbers.take_status()
            residual = reading.residual_flags, reading.residual_count
            output.good(reading.tag, stat_sn, session.numbers.exp_cmd_sn, session.max_cmd_sn, number + 1, *residual)


def _go_on(reading: Reading, piece: int) -> int:
    """Count a piece; return its DataSN."""
    number = reading.data_sn
    reading.done += piece
    reading.burst -= piece
    reading.data_sn = number + 1
    return number
