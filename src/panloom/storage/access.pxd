# Types of access.py for the compiled build; the source says what they mean.

from panloom.storage.device cimport Device
from panloom.storage.frame cimport Frame
from panloom.storage.statistics cimport Counters


cdef class _Access:
    cdef public Device device
    cdef public object delays
    cdef public Counters counters
    cdef public bint may_block, ended

    cpdef name_extent(self, Frame frame)
    cpdef write(self, offset, data)


cdef class VolumeAccess(_Access):
    cdef public object volume, grant, read, flush, look_up
    cdef object _extent


cdef class StoreAccess(_Access):
    cdef public object store, turnstile, rights, read, read_now, flush, look_up
    cdef public bint read_only
    cdef bint _file


cdef class ContentAccess(_Access):
    cdef object _content
