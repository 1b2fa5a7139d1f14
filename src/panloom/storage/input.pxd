# Types of input.py for the compiled build; the source says what they mean.

cimport cython
from libc.stdint cimport uint8_t

cdef Py_ssize_t _INPUT_OCTETS, _LARGEST_PDU, _SMALL_OCTETS
cdef long long _LOOK_NANOSECONDS
cdef int _SINGLES


cdef class Input:
    cdef object _stream
    cdef public object view
    cdef public Py_ssize_t end
    cdef int _fd, _singles
    cdef bint _looks, _small, _begun
    cdef uint8_t[::1] _octets
    cdef uint8_t* base

    cdef _new_buffer(self)
    @cython.locals(octets=Py_ssize_t)
    cpdef Py_ssize_t receive(self) except -2
    @cython.locals(octets=Py_ssize_t, begun="long long")
    cdef Py_ssize_t _wait(self) except? -1
    cpdef Py_ssize_t took(self, Py_ssize_t start, int pdus) except -1
    cpdef leave(self, Py_ssize_t start)
    cpdef bint digest_is(self, Py_ssize_t stands, Py_ssize_t start, Py_ssize_t end) except -1
