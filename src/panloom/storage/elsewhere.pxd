# Types of elsewhere.py for the compiled build; the source says what they mean.


cdef class Workers:
    cdef public long long busy_since_ns
    cdef object _name, _changed, _waiting, _begun
    cdef long _idle, _threads
