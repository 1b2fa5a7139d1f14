# Types of frame.py for the compiled build; the source says what they mean.


cdef class Callback:
    cdef public object context, function


cdef class Frame:
    cdef public object context, operation, data, extent, error
    cdef public long long offset, octets
    cdef public bint takes_extent, mapped


cpdef answer(Frame frame)
