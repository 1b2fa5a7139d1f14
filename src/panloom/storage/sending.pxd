# Types of sending.py for the compiled build; the source says what they mean.

cimport cython

from panloom.storage.access cimport _Access
from panloom.storage.device cimport Device
from panloom.storage.frame cimport Frame
from panloom.storage.statistics cimport Counters

cdef int _READS, _WRITES


@cython.locals(begun="long long", took="long long", kind=int, counters=Counters, device=Device)
cpdef send(_Access access, Frame frame)
