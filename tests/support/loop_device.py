"""A file as a block device: the kernel's loop driver, by its ioctls (linux/loop.h); gone after the ``with`` block."""

import contextlib
import fcntl
import os
from pathlib import Path

_CTL_GET_FREE, _SET_FD, _CLR_FD = 0x4C82, 0x4C00, 0x4C01


@contextlib.contextmanager
def loop_device(path: Path):
    """Yield the path of a block device whose octets are the file's."""
    with path.open("r+b") as file:
        while True:  # another may take the same one first
            control = os.open("/dev/loop-control", os.O_RDWR)
            number = fcntl.ioctl(control, _CTL_GET_FREE)
            os.close(control)
            device = os.open(f"/dev/loop{number}", os.O_RDWR)
            with contextlib.suppress(OSError):
                fcntl.ioctl(device, _SET_FD, file.fileno())
                break
            os.close(device)
    try:
        yield Path(f"/dev/loop{number}")
    finally:
        fcntl.ioctl(device, _CLR_FD)
        os.close(device)
