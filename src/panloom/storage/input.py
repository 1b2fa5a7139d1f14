"""A connection's octets on their way from the initiator: one buffer, in which every PDU is looked at where it stands.

    receive ──▶ ┌──────── 1 MiB ─────────┐
                │ PDU │ PDU │ begun PDU … │   what is begun goes to the front where the rest of it finds no room
                └────────────────────────┘

Where PDUs come one by one and soon, the compiled build looks for the next one for a moment before it sleeps: to be
woken takes as long, and as much of the processor.  PDUs that come several at a time are better slept for together.
"""

import os
import socket

try:
    import cython
except ImportError:
    from panloom.storage import uncompiled as cython

from panloom.protocol.iscsi_keys import RECEIVE_OCTETS
from panloom.storage.output import Stream, new_buffer
from panloom.wire.crc32c import DIGEST_OCTETS, digest
from panloom.wire.iscsi import HEADER_OCTETS

if cython.compiled:
    from cython.cimports.libc.string import memmove
    from cython.cimports.panloom.storage.linux import EAGAIN, digest_is, monotonic_ns, receive, receive_within

INPUT_OCTETS = 1 << 20
LARGEST_PDU = HEADER_OCTETS + 255 * 4 + RECEIVE_OCTETS + 2 * DIGEST_OCTETS
LOOK_NANOSECONDS = 150_000 if len(os.sched_getaffinity(0)) > 1 else 0  # else the initiator waits for our processor
SINGLES = 8  # PDUs in succession that came one by one
SMALL_OCTETS = 8192

_INPUT_OCTETS, _LARGEST_PDU = INPUT_OCTETS, LARGEST_PDU  # C's, where there is C
_LOOK_NANOSECONDS, _SINGLES, _SMALL_OCTETS = LOOK_NANOSECONDS, SINGLES, SMALL_OCTETS


class Input:
    """``view`` holds octets up to ``end``; who reads them keeps account of where the first PDU begins."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._fd = stream.fileno() if isinstance(stream, socket.socket) else -1
        self._looks = False  # the last ones came soon …
        self._singles = 0  # … and one by one, so often in succession
        self._begun = False  # the rest of one is to come
        self._small = False  # the last one is copied in no time
        self.end = 0
        self._new_buffer()

    def _new_buffer(self) -> None:
        self.view = self._octets = new_buffer(INPUT_OCTETS)
        if cython.compiled:
            self.base = cython.address(self._octets[0])

    def receive(self) -> int:
        """Wait for input; return how many octets came, 0 at its end, -1 after a while of silence.

        OSError: the connection is broken.
        """
        if cython.compiled and self._fd >= 0:
            octets = -EAGAIN
            if self._small:  # what is there already: to give Python's lock away for that would cost more
                octets = receive_within(self._fd, self.base + self.end, _INPUT_OCTETS - self.end, 0)
            if octets == -EAGAIN:
                octets = self._wait()
            self._small = 0 < octets < _SMALL_OCTETS
            if octets < 0 and octets != -EAGAIN:
                raise OSError(-octets, os.strerror(-octets))
            octets = max(octets, -1)
        else:
            try:
                octets = self._stream.recv_into(self.view[self.end :])
            except BlockingIOError:
                octets = -1
        self.end += max(octets, 0)
        return int(octets)

    def _wait(self) -> int:
        """Look for input, and sleep until it comes; return how many octets, or an errno below zero."""
        with cython.nogil:
            octets = -EAGAIN
            if self._looks and self._singles > _SINGLES and not self._begun:
                octets = receive_within(self._fd, self.base + self.end, _INPUT_OCTETS - self.end, _LOOK_NANOSECONDS)
                self._looks = octets != -EAGAIN
            if octets == -EAGAIN:
                begun = monotonic_ns()
                octets = receive(self._fd, self.base + self.end, _INPUT_OCTETS - self.end)
                self._looks = monotonic_ns() - begun < _LOOK_NANOSECONDS
        return int(octets)

    def took(self, start: int, pdus: int) -> int:
        """Take note that so many PDUs were read, and make room; return where what is left begins now."""
        self._singles = self._singles + pdus if pdus < 2 else 0  # one may come in parts …
        self._begun = start < self.end  # … and what is long in coming is slept for
        if start == self.end:
            self.end = 0
            return 0
        if _INPUT_OCTETS - start < _LARGEST_PDU:
            if cython.compiled:
                memmove(self.base, self.base + start, self.end - start)
            else:
                self.view[: self.end - start] = bytes(self.view[start : self.end])  # the two may overlap
            self.end -= start
            return 0
        return start

    def leave(self, start: int) -> None:
        """Leave the buffer to a frame that is not called back yet, and go on in another, from an offset on."""
        rest = self.view[start : self.end]
        self._new_buffer()
        self.view[start : self.end] = rest

    def digest_is(self, stands: int, start: int, end: int) -> bool:
        """Whether the digest that stands at an offset is that of the octets between two others."""
        if cython.compiled:
            return bool(digest_is(self.base + stands, self.base + start, end - start))
        return self.view[stands : stands + DIGEST_OCTETS] == digest(self.view[start:end])
