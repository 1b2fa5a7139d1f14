# Types of device.py for the compiled build; the source says what they mean.

from panloom.storage.elsewhere cimport Workers


cdef class Device:
    cdef public object kind, name, statistics, limiter
    cdef public Workers workers
    cdef public long long slow_until_ns
    cdef object _report_lost, _lock, _elsewhere, _told
    cdef bint _lost_told
