"""The names of devices, as people write them, and the stores behind them.

disk.img                    a file, or /dev/sdb, a block device
debian.iso  cd:disc.img     an optical image
mem:64M                     memory
rbd:pool/image              Ceph
iscsi://host/iqn…/1         a unit of another target
"""

from pathlib import Path

from panloom.errors import ConfigError
from panloom.storage.stores import rbd, remote
from panloom.storage.stores.file import DISK_BLOCK_OCTETS, FileStore, open_memory, open_path
from panloom.storage.stores.rbd import RbdStore
from panloom.storage.stores.remote import RemoteStore
from panloom.values import parse_size

MEMORY, OPTICAL, OPTICAL_SUFFIX = "mem:", "cd:", ".iso"

AnyStore = FileStore | RbdStore | RemoteStore


def open_store(name: str, *, read_only: bool = False, thick: bool = False) -> AnyStore:
    """Open what a name says; ConfigError says how to mend the name, UnavailableError what is not there.

    ``thick`` takes all the space that a file may need now.
    """
    is_path = not name.startswith((MEMORY, rbd.SCHEME, remote.SCHEME))
    if thick and not is_path:
        raise ConfigError(name, "only a file can be thick; leave that out")
    if name.startswith(rbd.SCHEME):
        return rbd.open_image(name, read_only=read_only)
    if name.startswith(remote.SCHEME):
        return remote.open_unit(name, read_only=read_only)
    if name.startswith(MEMORY):
        return open_memory(name, _memory_octets(name))
    optical = name.startswith(OPTICAL) or name.lower().endswith(OPTICAL_SUFFIX)
    return open_path(name, Path(name.removeprefix(OPTICAL)), read_only=read_only, thick=thick, optical=optical)


def _memory_octets(name: str) -> int:
    try:
        octets = parse_size(name.removeprefix(MEMORY))
    except ValueError as error:
        raise ConfigError(name, str(error)) from error
    if not octets or octets % DISK_BLOCK_OCTETS:
        raise ConfigError(name, f"write a multiple of {DISK_BLOCK_OCTETS} octets, like mem:64M")
    return octets
