"""The storage process on a disk that fails every sync of volumes while the file ``failing`` stands beside its own.

python -m support.failing_storage --directory …    the arguments of panloom.storage
"""

import errno
import os
import sys
from pathlib import Path

from panloom.storage.__main__ import main
from panloom.system_calls import SystemCalls, instead_of_the_kernel

FAILING = Path(sys.argv[sys.argv.index("--directory") + 1]) / "failing"


def _check(fd):
    if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".volume" and FAILING.exists():
        raise OSError(errno.EIO, "Input/output error")


def fdatasync(fd):
    _check(fd)
    os.fdatasync(fd)


def pwritev(fd, views, offset, flags):
    if flags & os.RWF_DSYNC:
        _check(fd)
    return os.pwritev(fd, views, offset, flags)


if __name__ == "__main__":
    with instead_of_the_kernel(SystemCalls(fdatasync=fdatasync, pwritev=pwritev)):
        main()
