"""One call on a file fails: which one, and how.

errors    EIO, ENOSPC … as the manual pages of the calls have them
SHORT     half of it is read or written, and that is what the kernel says
TORN      half of it is written, and the next one finds no space
"""

import errno
import os
from typing import NamedTuple

from support.crash.mutants import calls_under_way
from support.crash.places import DISK_MODULES, Place
from support.crash.recorder import refuse

SHORT, TORN = "short", "torn"
SECTOR_OCTETS = 512
_DISK, _FULL = (errno.EIO,), (errno.EIO, errno.ENOSPC)
WAYS = {
    "open": (errno.EIO, errno.ENOSPC, errno.EMFILE),
    "close": _DISK,
    "fstat": _DISK,
    "lseek": _DISK,
    "flock": (errno.ENOLCK,),
    "preadv": (errno.EIO, SHORT),
    "preadv_now": (errno.EIO, errno.EAGAIN, errno.EOPNOTSUPP, SHORT),
    "pwritev": (errno.EIO, errno.ENOSPC, SHORT, TORN),
    "fdatasync": _FULL,
    "fsync": _FULL,
    "ftruncate": _FULL,
    "posix_fallocate": _FULL,
    "punch_hole": (errno.EIO, errno.ENOSPC, errno.EOPNOTSUPP),
    "zero_blocks": (errno.EIO, errno.ENOSPC, errno.EOPNOTSUPP),
    "copy_file_range": (errno.EIO, errno.ENOSPC, errno.EXDEV, SHORT),
    "sendfile": (errno.EIO, errno.ENOSPC, SHORT),
    "reflink": (errno.EIO, errno.ENOSPC, errno.EXDEV),
    "fchmod": _DISK,
    "mkdir": _FULL,
    "listdir": _DISK,
    "stat": _DISK,
    "link": _FULL,
    "rename": _FULL,
    "unlink": _DISK,
}
BENIGN = (SHORT, errno.EAGAIN, errno.EOPNOTSUPP, errno.EXDEV)
"""Ways in which nothing has failed: there is another way to do it."""


class Call(NamedTuple):
    """A call on a file: where it is made, and what led there."""

    name: str
    site: Place | None
    caller: Place | None


def name_of(way):
    """Return how people call it."""
    return way if isinstance(way, str) else errno.errorcode[way]


class Injector:
    """Notes every call, and lets one of them fail."""

    def __init__(self, recorder, number=None, name=None, way=None):
        """Let the call of this number fail, or the next one of this name."""
        self._recorder = recorder
        self._number = number
        self._name = name
        self._way = way
        self._no_space_at = None  # the call that finds none after one that was torn
        self.calls = []
        self.struck = None  # the call that failed
        self.path = None  # whose it was
        self.logged = None  # how long the recorder's log then was
        self._was_through = False

    def __call__(self, name, arguments):
        """Do nothing, shorten the call, or raise."""
        number = len(self.calls)
        self.calls.append(Call(name, *_where()))
        if number == self._no_space_at:
            refuse(errno.ENOSPC)
        if self.struck or self._number is None or number < self._number or name != self._name:
            return None
        self.struck, self.logged = self.calls[-1], len(self._recorder.log)
        self.path = self._path(arguments[0])
        self._was_through = name == "pwritev" and len(arguments) > 1 and bool(arguments[3] & os.RWF_DSYNC)
        match self._way:
            case "short":
                return halved(name, arguments)
            case "torn":
                fd, views, offset, flags = arguments
                octets = b"".join(views)
                half = len(octets) // 2 // SECTOR_OCTETS * SECTOR_OCTETS  # no kernel stops within one
                if not half:
                    return refuse(errno.ENOSPC)
                self._no_space_at = number + 1
                return fd, [octets[:half]], offset, flags
            case code:
                return refuse(code)

    def _path(self, subject):
        return self._recorder.path(subject) if isinstance(subject, int) else subject

    @property
    def failed_sync(self):
        """Whether it was a sync, or a write through, which is one."""
        return (
            self.struck is not None
            and self._way not in BENIGN
            and (self.struck.name in ("fsync", "fdatasync") or self._was_through)
        )


def _where():
    """Return the call of a disk module that is under way, None if it is SQLite's, and the one that led there."""
    site = caller = None
    for place in calls_under_way():
        if not site and place.module not in DISK_MODULES:
            return None, place
        if place.module in DISK_MODULES:
            site = site or place
        elif site:
            caller = place
            break
    return site, caller


def halved(name, arguments):
    """Return a call's arguments so that it reads or writes half of what was asked for."""
    match name:
        case "preadv" | "preadv_now":
            fd, (view,), offset = arguments
            return fd, [view[: max(1, len(view) // 2)]], offset
        case "pwritev":
            fd, views, offset, flags = arguments
            octets = b"".join(views)
            return fd, [octets[: max(1, len(octets) // 2)]], offset, flags
        case "sendfile":
            target, source, offset, length = arguments
            return target, source, offset, max(1, min(length, os.fstat(source).st_size - offset) // 2)
        case "copy_file_range":
            source, target, length, start, at = arguments
            return source, target, max(1, length // 2), start, at
    raise ValueError(name)
