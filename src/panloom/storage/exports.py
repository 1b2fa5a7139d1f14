"""What is exported, to whom, and under which epoch; and the file that remembers it.

    {"format": 1, "exports": [{"target": "iqn…:shop.web1", "epoch": 3,
                               "luns": [{"lun": 0, "volume": "shop.web1", "read_only": false}],
                               "access": {"initiator": "iqn…:node.n1", "address": "10.0.0.11", "user": "…", "secret":
                               "…"}}]}

A target that stands alone is exported the same way, and remembered nowhere: ``NoFile``.

The file holds secrets: mode 0600.  It is replaced as a whole, and durable before anybody is told.
"""

import errno
import logging
import os
import zlib
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from panloom.disk_io import close_file, open_file, read_file, reserve, write_fully
from panloom.durable_names import Directory, PartialFile
from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.protocol.chap import Credentials
from panloom.storage.limits import NO_LIMITS, Limits
from panloom.storage.portals import parse_portal
from panloom.values import Iqn, Lun

FORMAT = 1
RESERVE_OCTETS = 1 << 18
MAX_CONTENT_OCTETS = 1 << 20

log = logging.getLogger(__name__)

Epoch = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class ExportedLun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One logical unit: a volume by name, a device by name, or literal content, which is read-only."""

    lun: int
    volume: str | None = None
    content: bytes | None = None  # base64 in JSON; served padded with zeros to whole blocks
    read_only: bool = False
    device: str | None = None  # see ``LocalTransport.open_device``
    thick: bool = False  # of a device: space is never given back
    removable: bool = False
    physical_4k: bool = False  # told to be written in pieces of 4 KiB
    limits: Limits = NO_LIMITS
    deflated: bool = (
        False  # content is packed by zlib (RFC 1950), so that a disc of zeroes takes little room in the file
    )

    def __post_init__(self) -> None:
        """Check; ValueError says what is wrong."""
        Lun(self.lun)
        if (self.volume, self.content, self.device).count(None) != 2:
            raise ValueError("a LUN is either a volume, a device or content")
        if self.content is not None and not (self.read_only and self.content):
            raise ValueError("content is read_only and not empty")
        if self.deflated and self.content is None:
            raise ValueError("only content is deflated")
        if self.content is not None:
            self.octets()

    @classmethod
    def packed(cls, lun: int, content: bytes) -> "ExportedLun":
        """Return a unit of literal content, which is remembered packed."""
        return cls(lun, content=zlib.compress(content), read_only=True, deflated=True)

    def octets(self) -> bytes:
        """Return the content as it is served; ValueError if it cannot be unpacked, or is none."""
        if self.content is None:
            raise ValueError("a volume or a device is no content")
        if not self.deflated:
            return self.content
        unpacking = zlib.decompressobj()
        try:
            octets = unpacking.decompress(self.content, MAX_CONTENT_OCTETS)
        except zlib.error as error:
            raise ValueError(f"content cannot be unpacked: {error}") from error
        if not unpacking.eof:
            raise ValueError(f"content is cut off, or more than {MAX_CONTENT_OCTETS} octets")
        return octets


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may log in: one initiator, or several at a time where ``initiator`` is None."""

    initiator: str | None
    address: str | None = None  # None: from any address
    user: str | None = None  # None: without CHAP
    secret: str | None = None
    target_user: str | None = None  # None: the target does not prove itself
    target_secret: str | None = None
    other_address: str | None = None  # of the same machine, as that of IPv6 beside that of IPv4

    def __post_init__(self) -> None:
        """Check; ValueError says what is wrong."""
        if self.initiator is not None:
            _check_name(self.initiator)
        for address in (self.address, self.other_address):
            if address is not None:
                ip_address(address)
        if self.other_address is not None and self.address is None:
            raise ValueError("another address beside any")
        if (self.user is None) != (self.secret is None):
            raise ValueError("user and secret come together")
        Credentials(self.user, self.secret, self.target_user, self.target_secret)

    @property
    def credentials(self) -> Credentials:
        """What must be proved, and how the target proves itself."""
        return Credentials(self.user, self.secret, self.target_user, self.target_secret)

    def __repr__(self) -> str:
        return f"Access(initiator={self.initiator!r}, address={self.address!r}, user={self.user!r})"  # never the secret


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a target is to be found instead: ``portal`` is an address and a port."""

    portal: str
    permanent: bool = False

    def __post_init__(self) -> None:
        """Check; ValueError says what is wrong."""
        address, port = parse_portal(self.portal)
        if not port or ip_address(address).is_unspecified or ip_address(address).is_multicast:
            raise ValueError(f"nobody can connect to {self.portal}; write the address and port of the other target")


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A target: what is behind it, and who may log in; ``access`` None: nobody.

    ``moved``: who may log in is sent there, and nobody gets in here.
    """

    target: str
    epoch: Epoch
    luns: tuple[ExportedLun, ...]
    access: Access | None
    moved: Moved | None = None

    def __post_init__(self) -> None:
        """Check; ValueError says what is wrong."""
        _check_name(self.target)
        if len({lun.lun for lun in self.luns}) != len(self.luns):
            raise ValueError("a LUN is there twice")

    @property
    def volumes(self) -> tuple[str, ...]:
        """The names of the volumes behind it."""
        return tuple(lun.volume for lun in self.luns if lun.volume is not None)

    @property
    def written_volumes(self) -> frozenset[str]:
        """The names of those that may be written to."""
        return frozenset(lun.volume for lun in self.luns if lun.volume is not None and not lun.read_only)

    def check_epoch(self, epoch: int) -> None:
        """Raise ConflictError if an epoch is over."""
        if epoch < self.epoch:
            raise ConflictError(f"{self.target} is at epoch {self.epoch}, {epoch} is over")

    def disputes(self, other: "Export") -> frozenset[str]:
        """Return the volumes and devices that both have, and one of the two writes to."""
        mine, theirs = {*self.volumes, *self.devices}, {*other.volumes, *other.devices}
        written = self.written_volumes | self.written_devices | other.written_volumes | other.written_devices
        return frozenset(mine & theirs & written)

    def limited(self, volume: str, limits: Limits) -> "Export":
        """Return it with other limits for a volume."""
        luns = (replace(lun, limits=limits) if lun.volume == volume else lun for lun in self.luns)
        return replace(self, luns=tuple(luns))

    def admits(self, initiator: str, address: str) -> bool:
        """Whether an initiator may log in from an address, if it proves who it is."""
        access = self.access
        if access is None or access.initiator not in (None, initiator):
            return False
        return access.address is None or address in (access.address, access.other_address)

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices behind it."""
        return tuple(lun.device for lun in self.luns if lun.device is not None)

    @property
    def written_devices(self) -> frozenset[str]:
        """The names of those that may be written to."""
        return frozenset(lun.device for lun in self.luns if lun.device is not None and not lun.read_only)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    exports: tuple[Export, ...]


class _Version(msgspec.Struct, frozen=True):
    format: int


class NoFile:
    """In the place of the file where nothing is to be remembered."""

    def load(self) -> dict[str, Export]:
        """Return nothing: each start is the first."""
        return {}

    def save(self, exports: Iterable[Export]) -> None:
        """Forget them."""


class ExportsFile:
    """The file; whoever changes it holds a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: tuple[Export, ...] | None = None  # what is in the file for certain
        self._reserve_path = path.with_name(path.name + ".reserve")
        try:
            self._directory = Directory(path.parent)
        except OSError as error:
            raise UnavailableError(f"{path.parent} cannot be used: {error.strerror}") from error

    def load(self) -> dict[str, Export]:
        """Return the exports by target, none if there is no file; ConfigError if it is damaged or newer."""
        try:
            octets = read_file(self._path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(str(self._path), f"cannot be read: {error.strerror}") from error
        try:
            version = msgspec.json.decode(octets, type=_Version).format
            if version != FORMAT:
                raise ConfigError(
                    str(self._path), f"has format {version}, this program knows {FORMAT}; use a newer one"
                )
            document = msgspec.json.decode(octets, type=_Document)
        except msgspec.DecodeError as error:
            raise ConfigError(
                str(self._path), f"is damaged: {error}; restore it, or remove it to start empty"
            ) from error
        self._saved = document.exports
        return {export.target: export for export in document.exports}

    def save(self, exports: Iterable[Export]) -> None:
        """Replace the file, durable on return; a disk filled by volumes does not keep a fence from being remembered."""
        wanted = tuple(exports)
        if wanted == self._saved:
            return
        self._saved = None
        octets = msgspec.json.encode(_Document(FORMAT, wanted))
        try:
            self._replace(octets)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._directory.remove(self._reserve_path.name)
            self._replace(octets)
        self._saved = wanted
        self._reserve()

    def _replace(self, octets: bytes) -> None:
        with PartialFile(self._directory, self._path.name, 0o600) as file:
            write_fully(file.fd, [octets], 0)
            file.appear(self._path.name)

    def _reserve(self) -> None:
        """Keep some space of the disk for the day when there is none."""
        try:
            fd = open_file(self._reserve_path, os.O_RDWR | os.O_CREAT)
            try:
                reserve(fd, 0, RESERVE_OCTETS)
            finally:
                close_file(fd)
        except OSError as error:
            log.warning("reserve=none why=%s", error.strerror)


def _check_name(name: str) -> None:
    if str(Iqn.parse(name)) != name:
        raise ValueError(f"write {name!r} in lower case")
