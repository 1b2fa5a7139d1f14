# Types of iscsi_numbers.py for the compiled build; the source says what they mean.

cimport cython
from libc.stdint cimport uint32_t

cdef uint32_t _MASK


cdef class SequenceNumbers:
    cdef public uint32_t exp_cmd_sn, stat_sn

    cpdef take_command(self)
    @cython.locals(stat_sn=uint32_t)
    cpdef uint32_t take_status(self)
    cpdef give_back(self, uint32_t answers)
