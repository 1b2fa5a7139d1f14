"""Files, block devices, memory and optical images: what the kernel reads and writes by a file descriptor.

    file            its octets are the disk's, as qemu-img and dd know it; holes are free space
    thick file      all its space is taken when it is opened, and kept
    block device    the kernel's ioctls tell its size; unmapped blocks are discarded
    memory          a nameless file (memfd_create(2)); what is written is gone with the process
    optical image   a file of 2,048-octet blocks that is only read

After a failed fdatasync the kernel has forgotten which pages it lost: from then on everything fails with EIO, and no
later sync is believed.
"""

import errno
import fcntl
import os
import stat
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

from panloom.disk_io import (
    close_file,
    data_extents,
    end_of,
    lock_file,
    open_file,
    read_cached,
    read_fully,
    reserve,
    set_size,
    status,
    sync_data,
    tells_what_waits,
    unlock_file,
    write_octets,
    zero_range,
)
from panloom.errors import ConfigError, UnavailableError
from panloom.storage.provisioning import first_run
from panloom.storage.stores.store import DeviceType, OpenStore, identity_of

DISK_BLOCK_OCTETS = 512
OPTICAL_BLOCK_OCTETS = 2048  # ECMA-119 section 6.1.2; MMC-6 r02g 4.2
_BLKROGET = 0x125E  # linux/fs.h: whether a block device may be written
_MACHINE = Path("/etc/machine-id")


class FileStore(OpenStore):
    """An open file descriptor, which it owns."""

    def __init__(
        self,
        name: str,
        fd: int,
        octets: int,
        *,
        identity: bytes,
        product: str,
        read_only: bool = False,
        thin: bool = True,
        device_type: DeviceType = DeviceType.DISK,
    ) -> None:
        super().__init__(name, octets, identity=identity, read_only=read_only)
        self.product = product
        # A write-protected one, too: it refuses UNMAP as it refuses every write.
        self.thin = thin and device_type is not DeviceType.OPTICAL
        self.device_type = device_type
        self.block_octets = block_octets_of(device_type)
        self.fd = fd
        self.may_block = not tells_what_waits(fd)  # else ``read_now`` finds out the reads that would
        self._thick = not thin
        weakref.finalize(self, close_file, fd)  # only once nobody reads it any more

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the whole view."""
        self.check_room(offset, len(into))
        read_fully(self.fd, into, offset)

    def read_now(self, offset: int, into: memoryview) -> bool:
        """Fill the whole view if the kernel has it in memory; return whether it did."""
        self.check_room(offset, len(into))
        return read_cached(self.fd, into, offset)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of the view; the disk has it after ``flush``."""
        self.check_change(offset, len(data))
        write_octets(self.fd, data, offset)

    def unmap(self, offset: int, octets: int) -> None:
        """Make the range read as zeros; a thick file keeps its space."""
        self.check_change(offset, octets)
        zero_range(self.fd, offset, octets, keep=self._thick)

    def look_up(self, offset: int, end: int) -> tuple[int, bool]:
        """Return how many octets from an offset on are alike, and whether they take space; block devices always do."""
        self.check_room(offset, end - offset)
        if stat.S_ISBLK(status(self.fd).st_mode):
            return end - offset, True
        return first_run(data_extents(self.fd, offset, end), offset, end)

    def resize(self, octets: int) -> None:
        """Make a file longer; of a block device take note of what it has by now."""
        self.check_change(0, 0)
        if octets < self.octets or octets % self.block_octets:
            raise OSError(errno.EINVAL, "no larger size in whole blocks")
        if stat.S_ISBLK(status(self.fd).st_mode):
            if end_of(self.fd) < octets:
                raise OSError(errno.EINVAL, "the block device is smaller")
        else:
            if self._thick:
                reserve(self.fd, self.octets, octets - self.octets)
            set_size(self.fd, octets)
            sync_data(self.fd)
        self.octets = octets

    def _sync(self) -> None:
        sync_data(self.fd)

    def _let_go(self) -> None:
        unlock_file(self.fd)


def block_octets_of(device_type: DeviceType) -> int:
    """Return how long the blocks of such a device are."""
    return OPTICAL_BLOCK_OCTETS if device_type is DeviceType.OPTICAL else DISK_BLOCK_OCTETS


def open_path(name: str, path: Path, *, read_only: bool, thick: bool, optical: bool) -> FileStore:
    """Open a file or a block device.

    ConfigError says what is wrong with it and how to mend it; UnavailableError: somebody else writes to it, or a thick
    one finds no space.
    """
    read_only = read_only or optical
    device_type = DeviceType.OPTICAL if optical else DeviceType.DISK
    with ExitStack() as opened:
        fd = _opened(path, read_only=read_only)
        opened.callback(close_file, fd)
        _lock(name, fd, exclusive=not read_only)
        mode = status(fd).st_mode
        if stat.S_ISBLK(mode):
            thick, product = False, "BLOCK DEVICE"
            octets = _octets_of_block_device(name, fd, read_only=read_only)
        elif stat.S_ISREG(mode):
            product = "FILE"
            octets = _octets_of_file(name, path, fd)
        else:
            raise ConfigError(name, "is neither a file nor a block device; name one")
        _check_blocks(name, octets, block_octets_of(device_type))
        if thick and not read_only:
            _reserve(name, fd, octets)
        identity = _identity(path)
        opened.pop_all()
    return FileStore(
        name,
        fd,
        octets,
        identity=identity,
        product="OPTICAL DISC" if optical else product,
        read_only=read_only,
        thin=not thick,
        device_type=device_type,
    )


def open_memory(name: str, octets: int) -> FileStore:
    """Make a disk of zeros in memory, thin."""
    try:
        fd = os.memfd_create("panloom", os.MFD_CLOEXEC)
        set_size(fd, octets)
    except OSError as error:
        raise UnavailableError(f"{name}: no memory to be had: {error.strerror}") from error
    identity = identity_of(f"{name} of process {os.getpid()}, file {status(fd).st_ino}")
    return FileStore(name, fd, octets, identity=identity, product="MEMORY")


def _opened(path: Path, *, read_only: bool) -> int:
    flags = os.O_RDONLY if read_only else os.O_RDWR
    with suppress(OSError):
        if not read_only and stat.S_ISBLK(path.stat().st_mode):
            flags |= os.O_EXCL  # not one that is mounted, or part of another (open(2))
    try:
        return open_file(path, flags)
    except FileNotFoundError:
        if path.is_relative_to("/dev"):
            raise ConfigError(str(path), "there is no such device; lsblk shows them") from None
        raise ConfigError(str(path), f"there is no such file; make one: truncate -s 1G {path}") from None
    except PermissionError:
        mend = "let us read it" if read_only else "let us write it, or add ,ro"
        raise ConfigError(str(path), f"may not be opened; {mend}") from None
    except OSError as error:
        mends = {
            errno.EISDIR: "; name a file",
            errno.EROFS: ", or add ,ro",
            errno.EBUSY: "; unmount it first, or add ,ro",
            errno.ENOMEDIUM: "; put a medium in",
        }
        raise ConfigError(str(path), f"cannot be opened: {error.strerror}{mends.get(error.errno or 0, '')}") from error


def _lock(name: str, fd: int, *, exclusive: bool) -> None:
    """Let nobody else who asks write to it: one process at a time."""
    try:
        lock_file(fd, exclusive=exclusive)
    except BlockingIOError:
        raise UnavailableError(f"{name} is in use by another process; end that one first") from None


def _octets_of_block_device(name: str, fd: int, *, read_only: bool) -> int:
    octets = end_of(fd)
    if octets == 0:
        raise ConfigError(name, "has no medium, or no size; attach it first")
    if not read_only and fcntl.ioctl(fd, _BLKROGET, bytes(4)) != bytes(4):
        raise ConfigError(name, "the block device is write-protected; add ,ro")
    return octets


def _octets_of_file(name: str, path: Path, fd: int) -> int:
    octets = status(fd).st_size
    if octets == 0:
        raise ConfigError(name, f"is empty; give it a size: truncate -s 1G {path}")
    return octets


def _reserve(name: str, fd: int, octets: int) -> None:
    try:
        reserve(fd, 0, octets)
    except OSError as error:
        raise UnavailableError(f"{name}: no space for {octets} octets: {error.strerror}; drop ,thick") from error


def _check_blocks(name: str, octets: int, block_octets: int) -> None:
    if octets % block_octets:
        more = -(-octets // block_octets) * block_octets
        raise ConfigError(
            name,
            f"has {octets} octets, not a whole number of blocks of {block_octets}; "
            f"fill the last one up: truncate -s {more} {name}",
        )


def _identity(path: Path) -> bytes:
    """Return a designator that is the same for a path of this machine whoever serves it."""
    machine = _MACHINE.read_text() if _MACHINE.exists() else os.uname().nodename
    return identity_of(f"{machine.strip()} {path.resolve()}")
