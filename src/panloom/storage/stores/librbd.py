"""Ceph's C libraries, librados and librbd, as far as a disk needs them (ctypes; librados.h, librbd.h of Ceph 16).

    Cluster.connect ─▶ rados_create, conf, connect        one for each configuration, for ever
    Pool            ─▶ rados_ioctx_create                 Pool.images ─▶ rbd_list
    Image.open      ─▶ rbd_open, rbd_open_read_only       read, write, write_zeroes, flush, resize, close

Python's own binding is an extension module of one Python version of one Debian release; the C interface is the same for
all.  A call releases the GIL while it waits.  Every failure is an OSError with Ceph's errno.
"""

import ctypes
import errno
import os
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_ssize_t, c_uint64, c_void_p
from functools import cache

from panloom.errors import UnavailableError

# A cluster that does not answer for so long is an error, not a hang; 0 would be for ever.
_PATIENCE = {"client_mount_timeout": "10", "rados_mon_op_timeout": "10", "rados_osd_op_timeout": "30"}
_LIBRARIES = ("librados.so.2", "librbd.so.1")
_NAMES_OCTETS = 1 << 20
_EXCLUSIVE = 0  # RBD_LOCK_MODE_EXCLUSIVE

_RADOS = {
    "rados_create": (c_int, POINTER(c_void_p), c_char_p),
    "rados_conf_read_file": (c_int, c_void_p, c_char_p),
    "rados_conf_set": (c_int, c_void_p, c_char_p, c_char_p),
    "rados_connect": (c_int, c_void_p),
    "rados_shutdown": (None, c_void_p),
    "rados_ioctx_create": (c_int, c_void_p, c_char_p, POINTER(c_void_p)),
    "rados_ioctx_destroy": (None, c_void_p),
}
_RBD = {
    "rbd_list": (c_int, c_void_p, c_char_p, POINTER(c_size_t)),
    "rbd_open": (c_int, c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_open_read_only": (c_int, c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_close": (c_int, c_void_p),
    "rbd_get_size": (c_int, c_void_p, POINTER(c_uint64)),
    "rbd_resize": (c_int, c_void_p, c_uint64),
    "rbd_read": (c_ssize_t, c_void_p, c_uint64, c_size_t, c_void_p),
    "rbd_write": (c_ssize_t, c_void_p, c_uint64, c_size_t, c_void_p),
    "rbd_write_zeroes": (c_ssize_t, c_void_p, c_uint64, c_size_t, c_int, c_int),
    "rbd_flush": (c_int, c_void_p),
    "rbd_lock_acquire": (c_int, c_void_p, c_int),
}


@cache
def _library() -> ctypes.CDLL:
    """Return both libraries as one; UnavailableError where they are not installed."""
    try:
        rados, rbd = (ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in _LIBRARIES)
    except OSError as error:
        raise UnavailableError(f"Ceph's librbd is not here ({error}); apt install librbd1") from error
    for library, functions in ((rados, _RADOS), (rbd, _RBD)):
        for name, (result, *arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(rbd, name, function)
    return rbd


def _checked(result: int) -> int:
    """Return a count; a negative one is an errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


class Cluster:
    """A connection to a cluster; ``conf`` None: where Ceph looks for its configuration."""

    _known: "dict[tuple[str | None, str], Cluster]" = {}  # noqa: RUF012, one for all on purpose
    _lock = threading.Lock()

    def __init__(self, conf: str | None, user: str) -> None:
        library = _library()
        self._handle = c_void_p()
        _checked(library.rados_create(byref(self._handle), user.encode()))
        try:
            _checked(library.rados_conf_read_file(self._handle, conf.encode() if conf else None))
            for option, value in _PATIENCE.items():
                _checked(library.rados_conf_set(self._handle, option.encode(), value.encode()))
            _checked(library.rados_connect(self._handle))
        except OSError:
            library.rados_shutdown(self._handle)
            raise

    @classmethod
    def connect(cls, conf: str | None, user: str) -> "Cluster":
        """Return the connection, the same one to all; OSError if there is none to be had."""
        with cls._lock:
            found = cls._known.get((conf, user))
            if found is None:
                found = cls._known[conf, user] = cls(conf, user)
            return found

    def pool(self, name: str) -> c_void_p:
        """Return a new handle of a pool, to be given back with ``leave``; OSError if there is none."""
        handle = c_void_p()
        _checked(_library().rados_ioctx_create(self._handle, name.encode(), byref(handle)))
        return handle


def leave(pool: c_void_p) -> None:
    """Give a pool's handle back."""
    _library().rados_ioctx_destroy(pool)


def images(pool: c_void_p) -> tuple[str, ...]:
    """Return the names of a pool's images."""
    size = c_size_t(_NAMES_OCTETS)
    while True:
        names = ctypes.create_string_buffer(size.value)
        result = _library().rbd_list(pool, names, byref(size))
        if result != -errno.ERANGE:  # then ``size`` says what it takes
            octets = names.raw[: _checked(result)]
            return tuple(name.decode() for name in octets.split(b"\0") if name)


class Image:
    """An open image, or a snapshot of one, which is only read."""

    def __init__(self, pool: c_void_p, name: str, snapshot: str | None, *, read_only: bool) -> None:
        library = _library()
        self._handle = c_void_p()
        opening = library.rbd_open_read_only if read_only else library.rbd_open
        _checked(opening(pool, name.encode(), byref(self._handle), snapshot.encode() if snapshot else None))

    @property
    def octets(self) -> int:
        """How large it is now."""
        octets = c_uint64()
        _checked(_library().rbd_get_size(self._handle, byref(octets)))
        return octets.value

    def lock(self) -> None:
        """Be the only one that writes; OSError with EROFS or EBUSY while another is.  Without the feature: nothing."""
        try:
            _checked(_library().rbd_lock_acquire(self._handle, _EXCLUSIVE))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read(self, offset: int, into: memoryview) -> None:
        """Fill a view."""
        buffer = (ctypes.c_char * len(into)).from_buffer(into)
        if _checked(_library().rbd_read(self._handle, offset, len(into), buffer)) != len(into):
            raise OSError(errno.EIO, "the image is shorter than it was")

    def write(self, offset: int, data: memoryview) -> None:
        """Write a view; kept by the client until ``flush``."""
        # An initiator's data stands in a buffer of ours, which C may read in place; constant octets are copied.
        buffer = bytes(data) if data.readonly else (ctypes.c_char * len(data)).from_buffer(data)
        _checked(_library().rbd_write(self._handle, offset, len(data), buffer))

    def write_zeroes(self, offset: int, octets: int) -> None:
        """Make exactly this range read as zeros; whole objects are given back.  A discard would leave small parts."""
        _checked(_library().rbd_write_zeroes(self._handle, offset, octets, 0, 0))

    def flush(self) -> None:
        """Return when the cluster has all that was written."""
        _checked(_library().rbd_flush(self._handle))

    def resize(self, octets: int) -> None:
        """Give it another size."""
        _checked(_library().rbd_resize(self._handle, octets))

    def close(self) -> None:
        """Flush and close."""
        _checked(_library().rbd_close(self._handle))
