"""A file system whose one file answers as slowly as it is told: a disk that fails slowly, for processes started in it.

    python -m support.slow_file_system DIRECTORY COMMAND …

    DIRECTORY/disk      what it holds; made before
    DIRECTORY/delay     seconds that each read, write and sync of it takes, looked at before each; none if it is absent
    DIRECTORY/hold      as long as it is there, none of them is answered
    DIRECTORY/slow/     the mount point: slow/disk is the same file

It speaks FUSE to the kernel by itself (linux/fuse.h, version 7.31), in a mount namespace of its own: what it mounts is
gone with COMMAND.  Reads are answered by the file system alone, never from the kernel's memory.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
import sys
import threading
import time
from pathlib import Path

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, BATCH_FORGET, FALLOCATE = 20, 25, 26, 27, 28, 29, 42, 43
ROOT_NODE, FILE_NODE = 1, 2
DIRECT_IO = 1  # FOPEN_DIRECT_IO
MAX_WRITE = 1 << 17
_HEADER, _ANSWER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _PR_SET_PDEATHSIG = 0x00020000, 1 << 14, 1 << 18, 1
_libc = ctypes.CDLL(None, use_errno=True)


def command(directory: Path) -> tuple[str, ...]:
    """Return what a command is to be begun with, so that it finds the file system."""
    return sys.executable, str(Path(__file__)), str(directory)


class SlowFileSystem:
    """One directory with one file."""

    def __init__(self, directory: Path) -> None:
        self._delay, self._hold = directory / "delay", directory / "hold"
        self._file = os.open(directory / "disk", os.O_RDWR)
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        point = directory / "slow"
        point.mkdir(exist_ok=True)
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"slow", os.fsencode(point), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount")

    def serve(self) -> None:
        """Answer until the file system is no longer mounted."""
        while True:
            try:
                request = os.read(self._fuse, MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return
            _, operation, unique, node, *_ = _HEADER.unpack_from(request)
            body = request[_HEADER.size :]
            if operation in (READ, WRITE, FSYNC):
                threading.Thread(target=self._slowly, args=(operation, unique, node, body), daemon=True).start()
            elif operation not in (FORGET, BATCH_FORGET):
                self._answer(operation, unique, node, body)

    def _slowly(self, operation: int, unique: int, node: int, body: bytes) -> None:
        if self._delay.exists():
            time.sleep(float(self._delay.read_text() or 0))
        while self._hold.exists():
            time.sleep(0.01)
        self._answer(operation, unique, node, body)

    def _answer(self, operation: int, unique: int, node: int, body: bytes) -> None:
        try:
            code, octets = 0, self._do(operation, node, body)
        except OSError as error:
            code, octets = -(error.errno or errno.EIO), b""
        os.write(self._fuse, _ANSWER.pack(_ANSWER.size + len(octets), code, unique) + octets)

    def _do(self, operation: int, node: int, body: bytes) -> bytes:
        match operation:
            case 26:  # INIT
                return struct.pack("<IIIIHHIIHHI7I", 7, 31, 1 << 17, 0, 16, 12, MAX_WRITE, 1, 32, 0, 0, *[0] * 7)
            case 1:  # LOOKUP
                if body.rstrip(b"\0") != b"disk":
                    raise OSError(errno.ENOENT, "no such file")
                return struct.pack("<QQQQII", FILE_NODE, 0, 1, 1, 0, 0) + self._attributes(FILE_NODE)
            case 3 | 4:  # GETATTR, SETATTR
                return struct.pack("<QII", 1, 0, 0) + self._attributes(node)
            case 14 | 27:  # OPEN, OPENDIR
                return struct.pack("<QII", 1, DIRECT_IO, 0)
            case 15:  # READ
                _, offset, octets = struct.unpack_from("<QQI", body)
                return os.pread(self._file, octets, offset)
            case 16:  # WRITE
                _, offset, octets = struct.unpack_from("<QQI", body)
                return struct.pack("<II", os.pwrite(self._file, body[40 : 40 + octets], offset), 0)
            case 17:  # STATFS
                return struct.pack("<QQQQQIIII6I", 1 << 20, 1 << 19, 1 << 19, 10, 10, 4096, 255, 4096, 0, *[0] * 6)
            case 20:  # FSYNC
                os.fdatasync(self._file)
                return b""
            case 18 | 25 | 29 | 28:  # RELEASE, FLUSH, RELEASEDIR, READDIR
                return b""
        raise OSError(errno.ENOSYS, "not known here")

    def _attributes(self, node: int) -> bytes:
        if node == ROOT_NODE:
            return _ATTRIBUTES.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)
        octets = os.fstat(self._file).st_size
        mode = stat.S_IFREG | 0o600
        return _ATTRIBUTES.pack(node, octets, octets // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def main() -> None:
    """Mount, serve in a process that ends with this one, and become the command."""
    if _libc.unshare(_CLONE_NEWNS) or _libc.mount(b"none", b"/", None, _MS_PRIVATE | _MS_REC, None):
        raise OSError(ctypes.get_errno(), "cannot have a mount namespace")
    slow = SlowFileSystem(Path(sys.argv[1]))
    if os.fork() == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        slow.serve()
        os._exit(0)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
