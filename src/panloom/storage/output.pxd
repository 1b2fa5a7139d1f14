# Types of output.py for the compiled build; the source says what they mean.

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from panloom.storage.frame cimport Frame

cdef uint32_t _DATA_IN, _DATA_IN_STATUS, _RESPONSE, _NO_TAG
cdef Py_ssize_t _HEADER_OCTETS, _DIGEST_OCTETS, _FLUSH_OCTETS, _OUTPUT_OCTETS

cdef struct Part:
    int fd
    int failed
    long long at
    Py_ssize_t to
    Py_ssize_t octets


cdef class Output:
    cdef object _stream, _withdrawn, _view, _probe
    cdef list _extents
    cdef int _fd
    cdef Py_ssize_t _head
    cdef bint _header_digest, _data_digest
    cdef uint8_t[::1] _octets
    cdef uint8_t* _base
    cdef Part _parts[256]
    cdef public Py_ssize_t filled

    cpdef leave(self)
    cdef _new_buffer(self)
    cpdef object room(self, Py_ssize_t octets)
    @cython.locals(start=Py_ssize_t)
    cpdef data_in(self, uint32_t flags, Py_ssize_t octets, uint32_t tag, uint32_t stat_sn, uint32_t exp_cmd_sn,
                  uint32_t max_cmd_sn, uint32_t data_sn, uint32_t offset, uint32_t residual)
    @cython.locals(start=Py_ssize_t, octets=Py_ssize_t)
    cpdef data_in_of(self, Frame extent, object lun, uint32_t tag, uint32_t stat_sn, uint32_t exp_cmd_sn,
                     uint32_t max_cmd_sn)
    @cython.locals(kind=uint32_t)
    cpdef good(self, uint32_t tag, uint32_t stat_sn, uint32_t exp_cmd_sn, uint32_t max_cmd_sn, uint32_t data_in_pdus=*,
               uint32_t residual_flags=*, uint32_t residual=*)
    cpdef append(self, bytes pdu)
    @cython.locals(filled=Py_ssize_t, flags=int, failed=int)
    cpdef send(self, bint more=*)
    @cython.locals(at="uint8_t*")
    cdef _header(self, Py_ssize_t start, uint32_t kind, uint32_t octets, uint32_t tag, uint32_t transfer_tag,
                 uint32_t stat_sn, uint32_t exp_cmd_sn, uint32_t max_cmd_sn, uint32_t number, uint32_t offset,
                 uint32_t residual)
    cdef _seal_header(self, Py_ssize_t start)
    cdef _end_data(self, Py_ssize_t start, Py_ssize_t octets)
    cdef _put_digest(self, Py_ssize_t start, Py_ssize_t end)
    cpdef read_extents(self)
    @cython.locals(extent=Frame, count=int, number=int, part="Part*", start=Py_ssize_t, octets=Py_ssize_t, at="long long", fd=int,
                   end=Py_ssize_t, unread=int, unsent=int, filled=Py_ssize_t)
    cdef bint _read(self, int flags) except -1
    cdef _withdraw(self, Py_ssize_t start, Py_ssize_t octets)
