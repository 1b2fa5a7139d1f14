"""Images of a Ceph pool (RBD) as devices: ``rbd:pool/image[@snapshot][:conf=PATH][:id=USER]``, as QEMU writes it.

An image with the feature ``exclusive-lock``, which is Ceph's default, has one writer, us: another that wants to write
is refused until this one closes it or dies; who is taken for dead gets ESHUTDOWN from then on.  A snapshot is only
read.
"""

import errno
from contextlib import ExitStack

import msgspec

from panloom.errors import ConfigError, UnavailableError
from panloom.storage.stores import librbd
from panloom.storage.stores.store import DeviceType, OpenStore, identity_of

SCHEME = "rbd:"
_BLOCK_OCTETS = 512
_SHUT_OUT = (errno.ESHUTDOWN, errno.ENOTCONN)  # another has taken the image over (EBLOCKLISTED is ESHUTDOWN)


class ImageName(msgspec.Struct, frozen=True):
    """Which image; ``image`` "": the pool itself."""

    pool: str
    image: str = ""
    snapshot: str | None = None
    conf: str | None = None  # Ceph's own places
    user: str = "admin"

    @classmethod
    def parse(cls, text: str) -> "ImageName":
        """Read what follows ``rbd:``; ValueError says what is wrong."""
        path, *options = text.split(":")
        given = dict(option.partition("=")[::2] for option in options)
        if unknown := given.keys() - {"conf", "id"}:
            raise ValueError(f"{min(unknown)!r} is no option of rbd; write conf=PATH or id=USER")
        pool, _, rest = path.partition("/")
        image, _, snapshot = rest.partition("@")
        if not pool:
            raise ValueError("write rbd:pool/image")
        return cls(pool, image, snapshot or None, given.get("conf"), given.get("id", "admin"))


class RbdStore(OpenStore):
    """An open image; ``opened`` closes it and its pool."""

    may_block = True
    block_octets = _BLOCK_OCTETS
    device_type = DeviceType.DISK
    product = "RBD"

    def __init__(self, name: str, image: librbd.Image, opened: ExitStack, *, identity: bytes, read_only: bool) -> None:
        octets = image.octets // _BLOCK_OCTETS * _BLOCK_OCTETS
        super().__init__(name, octets, identity=identity, read_only=read_only)
        self.thin = not read_only
        self._image = image
        self._opened = opened

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the whole view."""
        self.check_room(offset, len(into))
        self._image.read(offset, into)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of the view."""
        self.check_change(offset, len(data))
        with _Losing(self):
            self._image.write(offset, data)

    def unmap(self, offset: int, octets: int) -> None:
        """Make the range read as zeros."""
        self.check_change(offset, octets)
        with _Losing(self):
            self._image.write_zeroes(offset, octets)

    def resize(self, octets: int) -> None:
        """Make the image larger, unless somebody has."""
        self.check_change(0, 0)
        if octets < self.octets or octets % _BLOCK_OCTETS:
            raise OSError(errno.EINVAL, "no larger size in whole blocks")
        if self._image.octets < octets:
            self._image.resize(octets)
        self.octets = octets

    def _sync(self) -> None:
        self._image.flush()

    def _let_go(self) -> None:
        self._opened.close()


class _Losing:
    """Takes a store offline whose image has been taken over by another client."""

    def __init__(self, store: RbdStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        """Nothing is to be done before."""

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, OSError) and error.errno in _SHUT_OUT:
            self._store.lose(f"{self._store.name} was taken over by another client")


def open_image(name: str, *, read_only: bool) -> RbdStore:
    """Open ``rbd:pool/image``; ConfigError for a name that is none, UnavailableError if the cluster has it not."""
    parsed = _parsed(name)
    if not parsed.image:
        raise ConfigError(name, "which image of the pool? Write rbd:pool/image")
    only_read = read_only or parsed.snapshot is not None
    identity = identity_of(f"{SCHEME}{parsed.pool}/{parsed.image}@{parsed.snapshot or ''}")
    what = "there is no such pool"
    try:
        with ExitStack() as opened:
            pool = librbd.Cluster.connect(parsed.conf, parsed.user).pool(parsed.pool)
            opened.callback(librbd.leave, pool)
            what = "there is no such image"
            image = librbd.Image(pool, parsed.image, parsed.snapshot, read_only=only_read)
            opened.callback(image.close)
            if not only_read:
                what = "another client has it open"
                image.lock()
            return RbdStore(name, image, opened.pop_all(), identity=identity, read_only=only_read)
    except OSError as error:
        known = error.errno in (errno.ENOENT, errno.EROFS, errno.EBUSY)
        raise UnavailableError(f"{name}: {what if known else error.strerror}") from error


def image_names(name: str) -> tuple[str, ...]:
    """Return the names of all devices of ``rbd:pool``; errors as ``open_image``."""
    parsed = _parsed(name)
    options = name.removeprefix(SCHEME).partition(":")[2]
    try:
        pool = librbd.Cluster.connect(parsed.conf, parsed.user).pool(parsed.pool)
        try:
            found = librbd.images(pool)
        finally:
            librbd.leave(pool)
    except OSError as error:
        raise UnavailableError(f"{name}: {error.strerror}") from error
    return tuple(f"{SCHEME}{parsed.pool}/{image}{':' * bool(options)}{options}" for image in sorted(found))


def _parsed(name: str) -> ImageName:
    try:
        return ImageName.parse(name.removeprefix(SCHEME))
    except ValueError as error:
        raise ConfigError(name, str(error)) from error
