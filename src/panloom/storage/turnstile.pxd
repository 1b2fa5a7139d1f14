# Types of turnstile.py for the compiled build; the source says what they mean.


cdef class Rights:
    cdef public bint ended
    cdef public long inside


cdef class Turnstile:
    cdef object _moved, _acquire, _release
    cdef long _waiting, _inside
    cdef bint _alone

    cpdef enter(self, Rights rights)
    cpdef leave(self, Rights rights)
