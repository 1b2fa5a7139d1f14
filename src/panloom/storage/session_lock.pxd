# Types of session_lock.py for the compiled build; the source says what they mean.


cdef class SessionLock:
    cdef object _changed, _acquire, _release
    cdef unsigned long _holder

    cpdef release(self)
    cpdef bint is_mine(self)
