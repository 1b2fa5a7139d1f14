# Types of hot.py for the compiled build; the source says what they mean.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from panloom.protocol.iscsi_numbers cimport SequenceNumbers
from panloom.storage.frame cimport Callback, Frame, new_callback, new_frame
from panloom.storage.input cimport Input
from panloom.storage.output cimport Output
from panloom.storage.session_lock cimport SessionLock

cdef uint32_t _NO_TAG, _LAST, _PLAIN_READ, _PLAIN_WRITE, _ATTRIBUTES, _WINDOW, _DPO, _MASK
cdef int _UNTAGGED, _SIMPLE, _SCSI_COMMAND, _READ_10, _READ_16, _WRITE_10, _WRITE_16
cdef Py_ssize_t _HEADER_OCTETS, _BLOCK_OCTETS, _DIGEST_OCTETS, _RECEIVE_OCTETS


cdef class _Unit:
    cdef object lun, context, send_handler
    cdef uint64_t blocks, field
    cdef bint read_only, plain


cdef class HotLoop:
    cdef object _session, _facts, _clock, _first_read, _patience_seconds, _news, _parameters
    cdef object _performer, _leaving, _back
    cdef SessionLock _lock
    cdef SequenceNumbers _numbers
    cdef long long _reads, _writes, _read_octets, _written_octets
    cdef Frame _answered
    cdef dict _descriptors, _units
    cdef _Unit _last
    cdef set _unusual
    cdef Input _input
    cdef Output _output
    cdef bint _quiet, _has_read, _pings, _header_digest, _data_digest
    cdef Py_ssize_t _next, _head, _plain_octets, _immediate_octets

    @cython.locals(start=Py_ssize_t, octets=Py_ssize_t)
    cpdef serve(self)
    @cython.locals(lengths=uint32_t, opcode=int, pdus=int, octets=Py_ssize_t, data=Py_ssize_t, after=Py_ssize_t,
                   end=Py_ssize_t)
    cdef Py_ssize_t _consume(self, Py_ssize_t start) except -1
    cdef bint _is_whole(self, Py_ssize_t start, Py_ssize_t data, Py_ssize_t after, Py_ssize_t octets) except -1
    @cython.locals(at="uint8_t*", flags=uint32_t, lengths=uint32_t, tag=uint32_t, expected=uint32_t, cmd_sn=uint32_t,
                   operation=int, reads=bint, bits=uint32_t, lun=uint64_t, lba=uint64_t, blocks=uint64_t, limit=uint64_t,
                   unit=_Unit)
    cdef bint _answer_plain(self, Py_ssize_t start, Py_ssize_t data) except -1
    @cython.locals(stat_sn=uint32_t, exp_cmd_sn=uint32_t, max_cmd_sn=uint32_t, frame=Frame)
    cdef _read_plain(self, _Unit unit, tag, long long offset, Py_ssize_t octets)
    @cython.locals(stat_sn=uint32_t, exp_cmd_sn=uint32_t, max_cmd_sn=uint32_t, frame=Frame, octets=Py_ssize_t)
    cdef _write_plain(self, _Unit unit, tag, long long offset, data)
    cdef uint32_t _max_cmd_sn(self) except? 0
    cpdef bint _call(self, context, send_handler, Frame frame) except -1
    cpdef _called_back(self, saved, Frame frame)
    cpdef _withdrawn(self, list extents)
    cdef _note_first_read(self)
    cdef _tell_plain(self)
