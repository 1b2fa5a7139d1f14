"""A connection's answers on their way to the initiator: octets in one buffer, sent when the input is dry.

    ┌ Data-In ┬ octets ┬ status ┬ Data-In ┬ ······ ┬ answer of the session ┬ …        free ┐
    └─────────┴────────┴────────┴─────────┴────────┴───────────────────────┴───────────────┘
                 filled by the send handler   └─ an extent: read just before all is sent, many of them in one go

What an extent holds is read only if it is in the page cache (``preadv2`` with RWF_NOWAIT).  An answer whose octets are
not there, or cannot be read, is withdrawn before it has left: the ones behind it move up, with the StatSN that is then
theirs, and ``withdrawn`` is told.

Digests (RFC 7143 section 11.2.3) are put on here, so whoever makes an answer knows nothing of them.
"""

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython

from panloom.protocol.iscsi_keys import RECEIVE_OCTETS, SessionParameters
from panloom.storage.frame import Frame
from panloom.wire import iscsi
from panloom.wire.crc32c import DIGEST_OCTETS, digest
from panloom.wire.iscsi import HEADER_OCTETS, NO_TAG

if cython.compiled:
    from cython.cimports.panloom.storage.linux import MSG_MORE, put32, put_digest, read_cached, send_all
else:
    from socket import MSG_MORE

FLUSH_OCTETS = 131072  # send answers from here on; smaller costs 20 %
OUTPUT_OCTETS = FLUSH_OCTETS + 2 * HEADER_OCTETS + RECEIVE_OCTETS + 1024
MAX_EXTENTS = 256  # as many answers of one block as fit before FLUSH_OCTETS
SENDFILE_OCTETS = 65536  # the kernel sends as many octets of a file by itself; fewer are cheaper copied
_HEADER_OCTETS, _DIGEST_OCTETS, _NO_TAG = HEADER_OCTETS, DIGEST_OCTETS, NO_TAG  # C's, where there is C
_FLUSH_OCTETS, _OUTPUT_OCTETS = FLUSH_OCTETS, OUTPUT_OCTETS
_NOT_BY_ITSELF = (errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # not this part, this file, this system

_HEADER = struct.Struct(">IIQIIIIIIII").pack_into  # what RFC 7143 sections 11.4 and 11.7 have in common
_DATA_IN, _RESPONSE = 0x25000000, 0x21000000 | iscsi.FINAL << 16
_DATA_IN_STATUS = _DATA_IN | (iscsi.FINAL | iscsi.DATA_IN_STATUS) << 16  # the only one of its command


class Stream(Protocol):
    """What the loop needs of a socket; ``recv_into`` raises BlockingIOError after a while of silence."""

    def recv_into(self, buffer: memoryview, /) -> int: ...
    def sendall(self, data: memoryview, /) -> None: ...


def new_buffer(octets: int) -> memoryview:
    """Return zeroes that go back to the kernel with the last view of them; those of malloc stay in a thread's heap."""
    return memoryview(mmap.mmap(-1, octets, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Output:
    """See above; ``withdrawn`` gets extents, each with its LUN and the errno, EAGAIN: not cached."""

    _parts: Any  # of the compiled build: what is to be read, in an array

    def __init__(
        self, stream: Stream, parameters: SessionParameters, withdrawn: Callable[[list[tuple[Frame, int, int]]], None]
    ) -> None:
        self._stream = stream
        self._fd = stream.fileno() if isinstance(stream, socket.socket) else -1
        self._head = _HEADER_OCTETS + (_DIGEST_OCTETS if parameters.header_digest else 0)
        self._header_digest = parameters.header_digest
        self._data_digest = parameters.data_digest
        self._withdrawn = withdrawn
        self._probe = memoryview(bytearray(1))
        self._new_buffer()
        self._extents: list[tuple[Frame, int, int]] = []  # each with its LUN, and where its Data-In stands
        self.filled = 0

    def leave(self) -> None:
        """Send everything, and leave what ``room`` returned last to a frame that is filled later."""
        self.send()
        self._new_buffer()

    def _new_buffer(self) -> None:
        self._view = self._octets = new_buffer(_OUTPUT_OCTETS)
        if cython.compiled:
            self._base = cython.address(self._octets[0])

    def room(self, octets: int) -> memoryview:
        """Return where the octets of the next Data-In go; what stands in the way is sent."""
        if self.filled + octets + self._head + 8 > _OUTPUT_OCTETS:
            self.send()
        start = self.filled + self._head
        return self._view[start : start + octets]

    def data_in(
        self, flags: int, octets: int, tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, data_sn: int,
        offset: int, residual: int,
    ) -> None:  # fmt: skip
        """Put a Data-In around the octets that ``room`` was given for."""
        start = self.filled
        self._header(
            start,
            _DATA_IN | flags << 16,
            octets,
            tag,
            _NO_TAG,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            offset,
            residual,
        )
        self.filled = start + self._head + (octets + 3 & ~3)
        self._end_data(start + self._head, octets)

    def data_in_of(self, extent: Frame, lun: int, tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int) -> None:
        """As ``data_in``, the only one of its command, with status; an extent holds its octets, whole words."""
        start, octets = self.filled, extent.octets
        self._header(start, _DATA_IN_STATUS, octets, tag, _NO_TAG, stat_sn, exp_cmd_sn, max_cmd_sn, 0, 0, 0)
        self._extents.append((extent, lun, start))
        self.filled = start + self._head + octets + (_DIGEST_OCTETS if self._data_digest else 0)
        if self.filled >= _FLUSH_OCTETS or len(self._extents) == MAX_EXTENTS:
            self.send()

    def good(
        self, tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, data_in_pdus: int = 0, residual_flags: int = 0,
        residual: int = 0,
    ) -> None:  # fmt: skip
        """Answer GOOD, without data."""
        kind = _RESPONSE | residual_flags << 16
        self._header(self.filled, kind, 0, tag, 0, stat_sn, exp_cmd_sn, max_cmd_sn, data_in_pdus, 0, residual)
        self.filled += self._head
        if self.filled >= _FLUSH_OCTETS:
            self.send()

    def append(self, pdu: bytes) -> None:
        """Put a whole PDU, without digests and without additional header segments, behind the others."""
        octets = int.from_bytes(pdu[5:8], "big")
        if self.filled + len(pdu) + 8 > _OUTPUT_OCTETS:
            self.send()
        start, data = self.filled, self.filled + self._head
        self._view[start : start + _HEADER_OCTETS] = pdu[:_HEADER_OCTETS]
        self._seal_header(start)
        self._view[data : data + len(pdu) - _HEADER_OCTETS] = pdu[_HEADER_OCTETS:]
        self.filled = data + len(pdu) - _HEADER_OCTETS
        self._end_data(data, octets)

    def begin(
        self, flags: int, octets: int, tag: int, exp_cmd_sn: int, max_cmd_sn: int, data_sn: int, offset: int
    ) -> None:
        """Put the header of a Data-In without status; its octets, whole words, are sent by ``send_file``."""
        self.read_extents()  # an answer that takes the place of one that is withdrawn must not come in between
        self._header(
            self.filled, _DATA_IN | flags << 16, octets, tag, _NO_TAG, 0, exp_cmd_sn, max_cmd_sn, data_sn, offset, 0
        )
        self.filled += self._head

    def send_file(self, extent: Frame, octets: int) -> int:
        """Send all that there is, and then octets of a file, which belong to the Data-In of ``begin``.

        Return how many of them the file could not give: zeroes go in their place, since the header is gone.
        """
        fd, at = extent.file.fd, extent.at
        self.send(more=True)
        sent = 0
        while sent < octets:
            try:
                count = os.sendfile(self._fd, fd, at + sent, octets - sent)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in _NOT_BY_ITSELF:
                    raise
                count = 0
            if not count:
                return self._send_copy(fd, at + sent, octets - sent)
            sent += count
        return 0

    def _send_copy(self, fd: int, at: int, octets: int) -> int:
        """Send octets of a file that the kernel does not send by itself; return as ``send_file``."""
        copy = memoryview(bytearray(octets))
        done = 0
        while done < octets:
            try:
                count = os.preadv(fd, [copy[done:]], at + done)
            except OSError:
                break
            if not count:
                break
            done += count
        self._stream.sendall(copy)
        return octets - done

    def read_now(self, extent: Frame, octets: int) -> int:
        """Fill what ``room`` returned last; return 0, or an errno: EAGAIN where it would have to be waited for."""
        start = self.filled + self._head
        return _read_cached(extent.file.fd, self._view[start : start + octets], extent.at)

    def is_cached(self, extent: Frame, octets: int) -> bool:
        """Whether both ends of a range are in the page cache; only to read all of it would tell of the middle."""
        fd, end = extent.file.fd, extent.at + octets - 1
        return not (_read_cached(fd, self._probe, extent.at) or _read_cached(fd, self._probe, end))

    @property
    def sends_files(self) -> bool:
        """Whether the kernel can send a file by itself: to a socket, without digests."""
        return self._fd >= 0 and not self._data_digest

    def send(self, *, more: bool = False) -> None:
        """Send everything; ``more`` follows at once.  OSError: the connection is broken."""
        flags = MSG_MORE if more else 0
        if self._extents and self._read(flags):
            return
        if not self.filled:
            return
        filled, self.filled = self.filled, 0
        if cython.compiled and self._fd >= 0:
            failed = 0
            with cython.nogil:
                failed = send_all(self._fd, self._base, filled, flags)
            if failed:
                raise OSError(-failed, os.strerror(-failed))
        elif more and isinstance(self._stream, socket.socket):
            done = self._stream.send(self._view[:filled], MSG_MORE)
            if done < filled:
                self._stream.sendall(self._view[done:filled])
        else:
            self._stream.sendall(self._view[:filled])

    def _header(
        self, start: int, kind: int, octets: int, tag: int, transfer_tag: int, stat_sn: int, exp_cmd_sn: int,
        max_cmd_sn: int, number: int, offset: int, residual: int,
    ) -> None:  # fmt: skip
        if cython.compiled:
            at = self._base + start
            put32(at, kind)
            put32(at + 4, octets)
            put32(at + 8, 0)
            put32(at + 12, 0)
            put32(at + 16, tag)
            put32(at + 20, transfer_tag)
            put32(at + 24, stat_sn)
            put32(at + 28, exp_cmd_sn)
            put32(at + 32, max_cmd_sn)
            put32(at + 36, number)
            put32(at + 40, offset)
            put32(at + 44, residual)
        else:
            numbers = stat_sn, exp_cmd_sn, max_cmd_sn, number, offset, residual
            _HEADER(self._view, start, kind, octets, 0, tag, transfer_tag, *numbers)
        self._seal_header(start)

    def _seal_header(self, start: int) -> None:
        if self._header_digest:
            self._put_digest(start, start + _HEADER_OCTETS)

    def _end_data(self, start: int, octets: int) -> None:
        """Pad what ends at ``filled``, and put its digest behind it."""
        if octets & 3:
            self._view[start + octets : self.filled] = bytes(-octets & 3)
        if octets and self._data_digest:
            self._put_digest(start, self.filled)
            self.filled += _DIGEST_OCTETS
        if self.filled >= _FLUSH_OCTETS:
            self.send()

    def _put_digest(self, start: int, end: int) -> None:
        if cython.compiled:
            put_digest(self._base + end, self._base + start, end - start)
        else:
            self._view[end : end + _DIGEST_OCTETS] = digest(self._view[start:end])

    # -- extents -------------------------------------------------------------------------------------------------

    def read_extents(self) -> None:
        """Have the octets read that extents hold; withdraw the answers whose octets are not to be had now.

        Before anything else than a plain READ is answered: until then an answer may lose its StatSN.
        """
        if self._extents:
            self._read(-1)

    def _read(self, flags: int) -> bool:
        """Read all extents; return whether everything is sent, too, which ``flags`` of at least 0 ask for.

        It is where no answer is withdrawn, in the same go: whoever waits for Python's lock gets it once, not twice.
        """
        extents, self._extents = self._extents, []
        failed: list[tuple[int, int]] = []  # which, and the errno
        if cython.compiled:
            count = 0
            for extent, _, start in extents:
                part = cython.address(self._parts[count])
                part.fd, part.at, part.octets = extent.file.fd, extent.at, extent.octets
                part.to = start + self._head
                count += 1
            unread, unsent, filled = 0, 0, self.filled
            with cython.nogil:
                for number in range(count):
                    part = cython.address(self._parts[number])
                    part.failed = read_cached(part.fd, self._base + part.to, part.octets, part.at)
                    if part.failed:
                        unread += 1
                    elif self._data_digest:
                        end = part.to + part.octets
                        put_digest(self._base + end, self._base + part.to, part.octets)
                if flags >= 0 and self._fd >= 0 and not unread:
                    unsent = send_all(self._fd, self._base, filled, flags)
            if flags >= 0 and self._fd >= 0 and not unread:
                self.filled = 0
                if unsent:
                    raise OSError(-unsent, os.strerror(-unsent))
                return True
            for number in range(count):
                if self._parts[number].failed:
                    failed += [(number, -self._parts[number].failed)]
        else:
            for number, (extent, _, start) in enumerate(extents):
                data, octets = start + self._head, extent.octets
                code = _read_cached(extent.file.fd, self._view[data : data + octets], extent.at)
                if code:
                    failed.append((number, code))
                elif self._data_digest:
                    self._put_digest(data, data + octets)
        for number, _ in reversed(failed):
            extent, _, start = extents[number]
            self._withdraw(start, extent.octets)
        if failed:
            self._withdrawn([(extents[number][0], extents[number][1], code) for number, code in failed])
        return False

    def _withdraw(self, start: int, octets: int) -> None:
        """Take an answer with status out again, and give those behind it the StatSN before."""
        end = start + self._head + octets + (_DIGEST_OCTETS if self._data_digest else 0)
        self._view[start : self.filled - end + start] = bytes(self._view[end : self.filled])
        self.filled -= end - start
        while start < self.filled:
            opcode, flags = self._view[start], self._view[start + 1]
            if opcode != _DATA_IN >> 24 or flags & iscsi.DATA_IN_STATUS:
                stat_sn = int.from_bytes(self._view[start + 24 : start + 28], "big") - 1 & 0xFFFFFFFF
                self._view[start + 24 : start + 28] = stat_sn.to_bytes(4, "big")
                self._seal_header(start)
            octets = int.from_bytes(self._view[start + 5 : start + 8], "big")
            digests = _DIGEST_OCTETS if octets and self._data_digest else 0
            start += self._head + (octets + 3 & ~3) + digests


def _read_cached(fd: int, into: memoryview, at: int) -> int:
    """Fill the view from the page cache; return 0, or an errno: EAGAIN where it would have to be waited for."""
    done = 0
    while done < len(into):
        try:
            count = _preadv(fd, into[done:], at + done)
        except OSError as error:
            return error.errno or errno.EIO
        if not count:
            return errno.EIO
        done += count
    return 0


def _preadv(fd: int, into: memoryview, at: int) -> int:
    try:
        return os.preadv(fd, [into], at, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a file system that cannot tell, as a tmpfs that never waits
            raise
        return os.preadv(fd, [into], at)
