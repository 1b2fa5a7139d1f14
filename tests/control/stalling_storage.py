"""The storage process on a disk that ends no sync of a volume while the file ``NAME.stalls`` stands beside its own.

python -m control.stalling_storage --directory …    the arguments of panloom.storage
"""

import os
import sys
from pathlib import Path

from panloom.storage.__main__ import main
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.waiting import until

DIRECTORY = Path(sys.argv[sys.argv.index("--directory") + 1])


def fdatasync(fd):
    stalls = DIRECTORY / f"{Path(f'/proc/self/fd/{fd}').readlink().stem}.stalls"
    until(lambda: not stalls.exists(), "the disk goes on", seconds=120)
    os.fdatasync(fd)


if __name__ == "__main__":
    with instead_of_the_kernel(SystemCalls(fdatasync=fdatasync)):
        main()
