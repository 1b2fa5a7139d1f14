"""A unit of another iSCSI target as a device, by our own initiator: ``iscsi://host[:port]/iqn…/lun``.

    thread of the caller ──▶ run_coroutine_threadsafe ──▶ one event loop for all remote units ──▶ initiator.Session
    iscsi://USER:FILE@host/…       CHAP; the file's only line is the secret, as a password in a name would be seen

The session logs in again after an outage and repeats what was not answered; what takes longer than RECONNECT_SECONDS is
an error.  The other target's refusals keep their sense: no space, write-protected, else a medium error.
"""

import asyncio
import errno
import hashlib
import os
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from panloom.disk_io import read_file
from panloom.errors import ConfigError, PanloomError, PeerError, UnavailableError
from panloom.initiator import CommandError, Session
from panloom.storage.stores.file import DISK_BLOCK_OCTETS
from panloom.storage.stores.store import DeviceType, OpenStore, identity_of
from panloom.values import Iqn, Lun
from panloom.wire import scsi_cdb, scsi_sense

SCHEME = "iscsi://"
RECONNECT_SECONDS = 30.0
_PORT = 3260  # RFC 7143 section 4.2.7.1
_PIECE_OCTETS = 1 << 20  # of zeros, for a unit that cannot unmap
_WRITE_PROTECTED_CODES = range(0x2700, 0x2707)  # SPC-4 r37 annex F
_GOOD = 0x00

Value = TypeVar("Value")


class UnitName(msgspec.Struct, frozen=True):
    """Which unit of which target; ``lun`` None: the target itself."""

    host: str
    port: int
    target: Iqn
    lun: int | None = None
    user: str | None = None
    secret_file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "UnitName":
        """Read ``iscsi://[USER:FILE@]host[:port]/iqn/lun``; ValueError says what is wrong."""
        parts = urlsplit(text)
        names = parts.path.strip("/").split("/")
        if not parts.hostname or len(names) > 2 or not names[0]:
            raise ValueError("write iscsi://host/iqn.2026-11.org.example:disk/1")
        if bool(parts.username) != bool(parts.password):
            raise ValueError("a user and the file with the secret come together: iscsi://USER:FILE@host/…")
        user = unquote(parts.username) if parts.username else None
        file = Path(unquote(parts.password)) if parts.password else None
        lun = Lun.parse(names[1]).number if len(names) == 2 else None
        return cls(parts.hostname, parts.port or _PORT, Iqn.parse(unquote(names[0])), lun, user, file)


class _Loop:
    """One event loop in a thread of its own, for all remote units; it ends with the process."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, deed: Coroutine[Any, Any, Value]) -> Value:
        """Have it done there, and return what it does."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="remote-units", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(deed, self._loop).result()


_LOOP = _Loop()


class RemoteStore(OpenStore):
    """One unit, through a session of its own."""

    may_block = True
    device_type = DeviceType.DISK
    product = "REMOTE"

    def __init__(self, name: str, session: Session, lun: int, found: "_Found", *, read_only: bool) -> None:
        super().__init__(name, found.octets, identity=identity_of(name.rpartition("@")[2]), read_only=read_only)
        self.block_octets = DISK_BLOCK_OCTETS
        self.thin = found.unmaps_to_zeros and not read_only
        self._session = session
        self._lun = lun

    def read(self, offset: int, into: memoryview) -> None:
        """Fill the whole view."""
        self.check_room(offset, len(into))
        into[:] = _done(self._session.read(self._lun, offset, len(into)))

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of the view."""
        self.check_change(offset, len(data))
        _done(self._session.write(self._lun, offset, bytes(data)))  # it may be sent twice, long after the call

    def unmap(self, offset: int, octets: int) -> None:
        """Make the range read as zeros: by UNMAP where the unit promises zeros for that, else by writing them."""
        self.check_change(offset, octets)
        if self.thin:
            _done(self._session.unmap(self._lun, offset, octets))
            return
        zeros = bytes(min(octets, _PIECE_OCTETS))
        for done in range(0, octets, _PIECE_OCTETS):
            _done(self._session.write(self._lun, offset + done, zeros[: octets - done]))

    def resize(self, octets: int) -> None:
        """Take note that the other target has made it larger."""
        self.check_room(0, 0)
        there = _done(self._session.capacity(self._lun)).octets
        if not self.octets <= octets <= there:
            raise OSError(errno.EINVAL, f"the unit has {there} octets")
        self.octets = octets

    def _sync(self) -> None:
        _done(self._session.flush(self._lun))

    def _let_go(self) -> None:
        _LOOP.run(self._session.close())


class _Found(msgspec.Struct, frozen=True):
    octets: int
    block_octets: int
    unmaps_to_zeros: bool


def open_unit(name: str, *, read_only: bool) -> RemoteStore:
    """Log in to ``iscsi://host/iqn/lun``; ConfigError for a name that is none, UnavailableError if it is not there."""
    parsed = _parsed(name)
    if parsed.lun is None:
        raise ConfigError(name, "which unit of the target? Add its number: iscsi://host/iqn…/1")
    session = _LOOP.run(_open(name, parsed))
    try:
        found = _LOOP.run(_look(session, parsed.lun))
    except (PanloomError, OSError) as error:
        _LOOP.run(session.close())
        raise UnavailableError(f"{name}: {error}") from error
    if found.block_octets != DISK_BLOCK_OCTETS:  # it would be asked for parts of blocks
        _LOOP.run(session.close())
        why = f"has blocks of {found.block_octets} octets; export it with blocks of {DISK_BLOCK_OCTETS} there"
        raise ConfigError(name, why)
    return RemoteStore(name, session, parsed.lun, found, read_only=read_only)


def unit_names(name: str) -> tuple[str, ...]:
    """Return the names of all units of ``iscsi://host/iqn``; errors as ``open_unit``."""
    parsed = _parsed(name)

    async def ask() -> tuple[int, ...]:
        async with await _open(name, parsed) as session:
            return await session.luns()

    try:
        luns = _LOOP.run(ask())
    except PeerError as error:
        raise UnavailableError(f"{name}: {error}") from error
    return tuple(f"{name.rstrip('/')}/{lun}" for lun in sorted(luns))


async def _open(name: str, parsed: UnitName) -> Session:
    try:
        return await Session.open(
            (parsed.host, parsed.port),
            initiator=_initiator(),
            target=parsed.target,
            user=parsed.user,
            secret=_secret(name, parsed.secret_file),
            reconnect_seconds=RECONNECT_SECONDS,
        )
    except (PeerError, UnavailableError, ValueError) as error:
        raise UnavailableError(f"{name}: {error}") from error


async def _look(session: Session, lun: int) -> _Found:
    capacity = await session.capacity(lun)
    cdb = scsi_cdb.encode(scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, 32))
    outcome = await session.execute(lun, cdb, data_in_octets=32, insistent=True)
    provisioning = struct.unpack_from(">14xB", outcome.data)[0] if len(outcome.data) > 14 else 0
    zeros = outcome.status == _GOOD and provisioning & 0xC0 == 0xC0  # LBPME, LBPRZ, SBC-4 r22 5.21.2
    return _Found(capacity.octets, capacity.block_octets, zeros)


def _done(deed: Coroutine[Any, Any, Value]) -> Value:
    """Have it done and return what it does; whatever keeps it from being done is an OSError."""
    try:
        return _LOOP.run(deed)
    except CommandError as error:
        raise OSError(_errno(error.sense), str(error)) from error
    except (PeerError, UnavailableError) as error:
        raise OSError(errno.EIO, str(error)) from error


def _errno(sense: scsi_sense.Sense | None) -> int:
    if sense is not None and sense.code == scsi_sense.NO_SPACE.code:
        return errno.ENOSPC
    if sense is not None and sense.code in _WRITE_PROTECTED_CODES:
        return errno.EROFS
    return errno.EIO


def _initiator() -> Iqn:
    return Iqn(f"iqn.2026-11.dev.panloom:store.{hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:12]}")


def _secret(name: str, file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return read_file(file).decode().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(name, f"{file} holds no secret that can be read: {error}") from error


def _parsed(name: str) -> UnitName:
    try:
        return UnitName.parse(name)
    except ValueError as error:
        raise ConfigError(name, str(error)) from error
