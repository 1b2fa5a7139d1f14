"""What SQLite does to its files, for the recorder: the library's own VFS, with four of its methods wrapped.

    sqlite3 (Python) ─▶ libsqlite3 ─▶ xOpen xDelete ─▶ the library's own
                                      xWrite xTruncate xSync ─▶ fault? ─▶ the library's own ─▶ log

It is the very library that the store uses.  The index of the log (``-shm``) is a memory mapping that the next process
makes anew, and is left out.
"""

import ctypes
import errno
import os
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

from support.crash.disk import Size, Sync, Write
from support.crash.recorder import Killed

OK, IO_ERROR_WRITE, IO_ERROR_SYNC, FULL = 0, 10 | 3 << 8, 10 | 4 << 8, 13
IO_ERROR_TRUNCATE, IO_ERROR_DELETE, CANNOT_OPEN = 10 | 6 << 8, 10 | 10 << 8, 14

_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)  # SQLite keeps the name's very address
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_OPEN_DIRECTORY = CFUNCTYPE(c_int, c_char_p, POINTER(c_int))
_GET_SYSTEM_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
_SET_SYSTEM_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)


class _Vfs(Structure):  # sqlite3.h: struct sqlite3_vfs
    _fields_ = (
        ("version", c_int), ("file_octets", c_int), ("path_octets", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", _OPEN), ("delete", _DELETE), ("others", c_void_p * 11),
        ("set_system_call", _SET_SYSTEM_CALL), ("get_system_call", _GET_SYSTEM_CALL), ("next_system_call", c_void_p),
    )  # fmt: skip


class _Methods(Structure):  # sqlite3.h: struct sqlite3_io_methods, version 3
    _fields_ = (
        ("version", c_int), ("close", _CLOSE), ("read", c_void_p), ("write", _WRITE), ("truncate", _TRUNCATE),
        ("sync", _SYNC), ("others", c_void_p * 13),
    )  # fmt: skip


class _File(Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


class SqliteRecorder:
    """Wraps the library once, for the life of this program; what passes is recorded only inside ``to``."""

    def __init__(self):
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._vfs = library.sqlite3_vfs_find(None).contents
        self._recorder = None
        self._paths = {}  # address of an open file → its path
        self._methods = {}  # address of the library's methods → copies, ours and theirs
        self._synced_directory = False
        self._open = _OPEN(ctypes.cast(self._vfs.open, c_void_p).value)
        self._delete = _DELETE(ctypes.cast(self._vfs.delete, c_void_p).value)
        here = ctypes.addressof(self._vfs)
        self._open_directory = _OPEN_DIRECTORY(self._vfs.get_system_call(here, b"openDirectory"))
        self._ours = _OPEN(self._on_open), _DELETE(self._on_delete), _OPEN_DIRECTORY(self._on_open_directory)
        self._vfs.open, self._vfs.delete = self._ours[:2]
        self._vfs.set_system_call(here, b"openDirectory", ctypes.cast(self._ours[2], c_void_p))

    @contextmanager
    def to(self, recorder):
        """Record to this recorder, by its faults, until the ``with`` block ends."""
        self._recorder = recorder
        try:
            yield
        finally:
            self._recorder = None

    def _refusal(self, name, *arguments):
        """Return the error number that a call ends in before it is done; None if it may go on."""
        if self._recorder is None:
            return None
        try:
            self._recorder.before(name, arguments)
        except Killed:
            return errno.EIO
        except OSError as error:
            return error.errno
        return None

    def _on_open(self, vfs, name, file, flags, out_flags):
        path = Path(os.fsdecode(ctypes.string_at(name))) if name else None
        new = path is not None and not path.exists()
        if new and self._refusal("open", path):
            return CANNOT_OPEN
        result = self._open(vfs, name, file, flags, out_flags)
        if result == OK and path:
            self._paths[file] = path
            if new and self._recorder:
                self._recorder.appeared(path)
            self._wrap(file)
        return result

    def _wrap(self, address):
        file = _File.from_address(address)
        theirs = ctypes.addressof(file.methods.contents)
        if theirs not in self._methods:
            original, ours = _Methods(), _Methods()
            for each in (original, ours):
                ctypes.memmove(ctypes.addressof(each), theirs, ctypes.sizeof(_Methods))
            ours.close = _CLOSE(lambda file: self._on_close(original, file))
            ours.write = _WRITE(lambda file, octets, count, at: self._on_write(original, file, octets, count, at))
            ours.truncate = _TRUNCATE(lambda file, octets: self._on_truncate(original, file, octets))
            ours.sync = _SYNC(lambda file, flags: self._on_sync(original, file, flags))
            self._methods[theirs] = ours, original
            self._methods[ctypes.addressof(ours)] = ours, original
        file.methods = ctypes.pointer(self._methods[theirs][0])

    def _on_close(self, original, file):
        self._paths.pop(file, None)
        return original.close(file)

    def _on_write(self, original, file, octets, count, at):
        if code := self._refusal("pwritev", self._paths[file]):
            return FULL if code == errno.ENOSPC else IO_ERROR_WRITE
        result = original.write(file, octets, count, at)
        self._log(result, file, lambda inode: Write(inode, at, ctypes.string_at(octets, count)))
        return result

    def _on_truncate(self, original, file, octets):
        if self._refusal("ftruncate", self._paths[file]):
            return IO_ERROR_TRUNCATE
        result = original.truncate(file, octets)
        self._log(result, file, lambda inode: Size(inode, octets))
        return result

    def _on_sync(self, original, file, flags):
        if self._refusal("fsync", self._paths[file]):
            if not self._recorder.dead:
                self._log(OK, file, lambda inode: Sync(inode, failed=True))
            return IO_ERROR_SYNC
        self._synced_directory = False
        result = original.sync(file, flags)
        if self._recorder and self._recorder.is_left_out():
            return result
        self._log(result, file, Sync)
        if self._synced_directory and self._recorder:
            self._recorder.log.append(Sync(self._recorder.inode(self._paths[file].parent)))
        return result

    def _on_open_directory(self, path, fd):
        self._synced_directory = True  # SQLite opens a directory only to sync it
        return self._open_directory(path, fd)

    def _on_delete(self, vfs, name, sync_directory):
        path = Path(os.fsdecode(ctypes.string_at(name)))
        there = path.exists()
        if there and self._refusal("unlink", path):
            return IO_ERROR_DELETE
        result = self._delete(vfs, name, sync_directory)
        if result == OK and there and self._recorder:
            self._recorder.vanished(path)
            if sync_directory:
                self._recorder.log.append(Sync(self._recorder.inode(path.parent)))
        return result

    def _log(self, result, file, entry):
        recorder = self._recorder
        if result == OK and recorder and recorder.knows(self._paths[file]):
            recorder.log.append(entry(recorder.inode(self._paths[file])))


SQLITE = SqliteRecorder()
