# Types of frame.py for the compiled build; the source says what they mean.

cimport cython

cdef object _NOTHING


@cython.freelist(64)
cdef class Callback:
    cdef public object context, function


@cython.freelist(256)
cdef class Frame:
    cdef public object context, operation, data, file, error
    cdef public long long offset, octets, at
    cdef public bint takes_extent, mapped


@cython.locals(frame=Frame)
cpdef Frame new_frame(operation, long long offset, long long octets, data, context)
@cython.locals(callback=Callback)
cpdef Callback new_callback(function, context)
@cython.locals(callback=Callback)
cpdef answer(Frame frame)
