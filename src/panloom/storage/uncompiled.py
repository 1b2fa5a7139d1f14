"""What the compiled modules name of Cython, where Cython is not there: they run as they stand."""

from contextlib import nullcontext

compiled = False
nogil = nullcontext()
