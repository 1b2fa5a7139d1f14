# Types of statistics.py for the compiled build; the source says what they mean.

cimport cython


cdef int _BUCKETS


cdef class Counters:
    cdef public long long[::1] latencies, octets
    cdef public long long nanoseconds, failed

    @cython.locals(bucket=int)
    cpdef count(self, int kind, long long octets, long long nanoseconds)
    cpdef count_failed(self, long long nanoseconds)
