"""The kernel's file calls, done, written down, and refused where a fault is wanted.

with Recorder(root) as recorder:      every call on a file below ``root`` goes into ``recorder.log``
    recorder.faults = …               may raise, or make a write short, before a call is done
    recorder.die_after(3)             the process ends within the fourth call that changes something from here
    recorder.meanwhile(3, action)     the fourth such call waits for ``action``, which another thread could have done
"""

import errno
import os
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.crash.disk import ROOT, SECTOR, Contents, Disk, Make, Mark, Names, Size, Sync, Write

CHANGES = (
    "open", "pwritev", "fdatasync", "fsync", "ftruncate", "posix_fallocate", "punch_hole", "zero_blocks",
    "copy_file_range", "sendfile", "reflink", "fchmod", "mkdir", "link", "rename", "unlink",
)  # fmt: skip


class Killed(BaseException):
    """The process is dead: it does nothing any more, not even tidy up."""


_left_out = None


@contextmanager
def leaving_out(decide):
    """Ask ``decide`` at each sync, in the thread that makes it, whether it is not to be made; till the block ends."""
    global _left_out
    _left_out = decide
    try:
        yield
    finally:
        _left_out = None


class Recorder:
    """Stands between ``system_calls`` and the kernel as long as its ``with`` block lasts."""

    def __init__(self, root: Path, contents: Contents | None = None, *, reflinks=False):
        """Begin with an empty directory, or with one to which ``contents`` were written.

        ``reflinks``: play a file system that has them.
        """
        self.root = root
        self.log = []
        self._began_with = contents
        self._reflinks = reflinks
        self.faults = None  # called with the name of a call and its arguments; may raise OSError or return a count
        self._inodes = dict(contents.paths(root)) if contents else {root: ROOT}
        self._next = max(self._inodes.values()) + 1
        self._open = {}  # descriptor → inode
        self._lives = None  # calls left
        self._syncs = None  # syncs left
        self._meanwhile = None  # calls left, what is then done
        self.dead = False
        self._lock = threading.RLock()
        self._stack = ExitStack()

    def __enter__(self):
        calls = {name: self._through(name) for name in SystemCalls.__slots__}
        self._stack.enter_context(instead_of_the_kernel(SystemCalls(**calls)))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def mark(self, note):
        """Write down something that is no call."""
        with self._lock:
            if not self.dead:
                self.log.append(Mark(note))

    def die_after(self, calls):
        """End the process within the call that follows this many from here; None: let it live."""
        self._lives, self._syncs = calls, None

    def meanwhile(self, calls, action):
        """Have something done before the call that follows this many from here; in a thread that holds no lock."""
        self._meanwhile = (calls, action)

    def lost(self):
        """Return the paths that are not as the log says: somebody has written without being recorded."""
        disk = Disk(self._began_with)
        for entry in self.log:
            disk.add(entry)
        return tuple(disk.everything().unlike(self.root))

    def die_at_sync(self, syncs):
        """End the process within the sync that follows this many from here: the kernel has it, the disk has not."""
        self._syncs = syncs

    def kill(self):
        """Let nothing that the process still does have any effect."""
        self.dead = True

    def revive(self):
        """Let a new process begin; the old one's descriptors are closed."""
        self.dead, self._lives, self._syncs, self._meanwhile = False, None, None, None
        self._open.clear()

    def _through(self, name):
        real = getattr(SystemCalls(), name)
        note = getattr(self, f"_note_{name}", None)

        def call(*arguments):
            with self._lock:
                if name == "close":
                    self._close(real, *arguments)
                    return None
                arguments = self.before(name, arguments)
                return note(real, *arguments) if note else real(*arguments)

        return call

    def _close(self, real, fd):
        self._open.pop(fd, None)
        real(fd)
        if self.faults is not None and not self.dead:
            self.faults("close", (fd,))

    def before(self, name, arguments):
        """Die before a call, or raise what it is to end in, or return its arguments, perhaps shortened."""
        with self._lock:
            if self.dead:
                raise Killed
            if name in CHANGES:
                self._do_meanwhile()
                self._live_on()
            if name in ("fsync", "fdatasync"):
                self._live_on_at_sync()
            return self._hurt(name, arguments) if self.faults is not None else arguments

    def _do_meanwhile(self):
        if self._meanwhile is not None:
            calls, action = self._meanwhile
            self._meanwhile = (calls - 1, action) if calls else None
            if not calls:
                action()

    def _live_on(self):
        if self._lives is not None:
            if self._lives == 0:
                self.dead = True
                raise Killed
            self._lives -= 1

    def _live_on_at_sync(self):
        if self._syncs is not None:
            if self._syncs == 0:
                self.dead = True
                raise Killed
            self._syncs -= 1

    def _hurt(self, name, arguments):
        try:
            return self.faults(name, arguments) or arguments
        except OSError:
            self._note_failed_sync(name, arguments)
            raise

    def _note_failed_sync(self, name, arguments):
        """Write down that all that waits for the disk is lost, perhaps; the kernel says so once."""
        fd = arguments[0]
        if fd not in self._open:
            return
        if name == "pwritev" and arguments[3] & os.RWF_DSYNC:
            _, views, offset, _ = arguments
            os.pwritev(fd, views, offset)  # the kernel has it
            self._wrote(fd, offset, b"".join(views))
            name = "fsync"
        if name in ("fsync", "fdatasync"):
            self.log.append(Sync(self._open[fd], failed=True))

    def path(self, fd):
        """Return the path of an open file, as it is called now; None if it is none of ours."""
        inode = self._open.get(fd)
        return next((path for path, each in self._inodes.items() if each == inode), None)

    def inode(self, path):
        """Return the number of what bears this name."""
        return self._inodes[path]

    def knows(self, path):
        """Return whether what bears this name is recorded."""
        return path in self._inodes

    def appeared(self, path):
        """Write down that there is a new, empty file."""
        self.log.append(Size(self._next, 0))
        self._name(path, self._next)
        self._next += 1

    def vanished(self, path):
        """Write down that a name is gone."""
        del self._inodes[path]
        self.log.append(Names(self.inode(path.parent), ((path.name, None),)))

    def _name(self, path, inode):
        self._inodes[path] = inode
        self.log.append(Names(self.inode(path.parent), ((path.name, inode),)))

    def _note_open(self, real, path, flags, mode):
        path = Path(path)
        new = not path.exists()
        fd = real(path, flags, mode)
        self._open.pop(fd, None)  # of a file that was closed by another way than ours
        if self._below(path):
            if new:
                self.appeared(path)
            self._open[fd] = self.inode(path)
        return fd

    def _below(self, path):
        return path == self.root or self.root in path.parents

    def _note_mkdir(self, real, path, mode):
        real(path, mode)
        self.log.append(Make(self._next))
        self._name(Path(path), self._next)
        self._next += 1

    def _note_rename(self, real, source, target):
        real(source, target)
        if self._inodes.get(target) == self._inodes[source]:  # two names of one file: nothing happens (POSIX)
            return
        inode = self._inodes.pop(source)
        self._inodes[target] = inode
        names = ((source.name, None), (target.name, inode))
        assert source.parent == target.parent
        self.log.append(Names(self.inode(source.parent), names))

    def _note_link(self, real, source, target):
        real(source, target)
        self._name(target, self.inode(source))

    def _note_unlink(self, real, path):
        real(path)
        self.vanished(path)

    def _note_pwritev(self, real, fd, views, offset, flags):
        octets = b"".join(views)
        count = real(fd, views, offset, flags)
        self._wrote(fd, offset, octets[:count])
        if flags & os.RWF_DSYNC and fd in self._open and not self.is_left_out():
            self._live_on()
            self._live_on_at_sync()
            sectors = range(offset // SECTOR, -(-(offset + count) // SECTOR))
            self.log.append(Sync(self._open[fd], sectors))
        return count

    def _note_punch_hole(self, real, fd, offset, length):
        real(fd, offset, length)
        self._wrote(fd, offset, bytes(max(0, min(length, os.fstat(fd).st_size - offset))))

    _note_zero_blocks = _note_punch_hole

    def _note_copy_file_range(self, real, source, target, length, start, at):
        count = real(source, target, length, start, at)
        self._wrote(target, at, os.pread(target, count, at))
        return count

    def _wrote(self, fd, offset, octets):
        if octets and fd in self._open:
            self.log.append(Write(self._open[fd], offset, octets))

    def _note_ftruncate(self, real, fd, octets):
        real(fd, octets)
        self.log.append(Size(self._open[fd], octets))

    def _note_posix_fallocate(self, real, fd, offset, length):
        real(fd, offset, length)
        self.log.append(Size(self._open[fd], os.fstat(fd).st_size))

    def _note_sendfile(self, real, target, source, offset, length):
        at = os.lseek(target, 0, os.SEEK_CUR)
        count = real(target, source, offset, length)
        self._wrote(target, at, os.pread(target, count, at))
        return count

    def _note_reflink(self, real, target, source):
        if not self._reflinks:
            refuse(errno.EOPNOTSUPP)
        size = os.fstat(source).st_size
        os.ftruncate(target, size)
        os.pwrite(target, os.pread(source, size, 0), 0)
        self.log.append(Size(self._open[target], size))
        self._wrote(target, 0, os.pread(target, size, 0))

    def _note_fsync(self, real, fd):
        real(fd)
        if fd in self._open and not self.is_left_out():
            self.log.append(Sync(self._open[fd]))

    @staticmethod
    def is_left_out():
        """Return whether the sync that is under way is one that the code under test does not make."""
        return _left_out is not None and _left_out()

    _note_fdatasync = _note_fsync


def refuse(code):
    """Raise what the kernel says."""
    raise OSError(code, os.strerror(code))


NO_SPACE, IO_ERROR = errno.ENOSPC, errno.EIO
