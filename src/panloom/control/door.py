"""The one door: the API on a Unix socket, open to those whom the kernel vouches for.

    socket     mode 0660, its directory made if missing; a stale one is replaced only when nobody listens on it
    peer       SO_PEERCRED of each connection: uid 0, our own uid, or a member of the socket's group; all others get 403
    who        the peer's user name, which the API gives to every change

``Door`` runs inside the caller's event loop and leaves signals to it.
"""

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp

from panloom.boot.http_protocol import HttpProtocol
from panloom.errors import UnavailableError

DEFAULT_PATH = Path("/run/panloom/panloom.sock")
MODE = 0o660
_BACKLOG = 128
_UCRED = struct.Struct("iII")  # unix(7): pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python 3.13 does not name it
_MAX_GROUPS_OCTETS = 1024  # what getsockopt(2) takes through Python: 256 groups
_REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
)
_REFUSAL_BODY = (
    b'{"errors":[{"kind":"refused","where":"","why":"this user is neither root nor in the group of the socket"}]}'
)
_log = logging.getLogger("panloom.door")


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket."""

    uid: int
    groups: frozenset[int]

    @property
    def name(self) -> str:
        """The user's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def may_enter(self, group: int) -> bool:
        """Whether the door is open to it; ``group`` is the socket's."""
        return self.uid in (0, os.geteuid()) or group in self.groups


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected, as the kernel saw it at that moment (unix(7), SO_PEERCRED)."""
    _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS_OCTETS)
    except OSError:
        octets = b""  # ERANGE: a member of more groups than that enters by its primary one
    return Peer(uid, frozenset((gid, *struct.unpack(f"{len(octets) // 4}I", octets))))


def groups_of(user: str) -> frozenset[str]:
    """Return the names of the groups that a user is in, none for a user whom this machine does not know."""
    names = set()
    with contextlib.suppress(KeyError):
        for number in os.getgrouplist(user, pwd.getpwnam(user).pw_gid):
            with contextlib.suppress(KeyError):  # one without a name; and not every directory tells all that it has
                names.add(grp.getgrgid(number).gr_name)
    return frozenset(names)


class Door:
    """Serves an application on a Unix socket.

    ``group`` names the group the socket is given to; None leaves it with our own.
    """

    def __init__(self, app: ASGIApp, path: Path, *, group: str | None = None) -> None:
        self._app = app
        self._path = path
        self._group = group
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._identity: tuple[int, int] | None = None

    async def open(self) -> None:
        """Listen; returns once connections are answered.  ``UnavailableError`` if another process listens there."""
        listening = _listen(self._path, self._group)
        status = self._path.stat()
        self._identity = status.st_dev, status.st_ino
        protocol = type("Protocol", (_CheckedProtocol,), {"group": status.st_gid})
        config = uvicorn.Config(
            self._app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="door")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            await self._task
            raise UnavailableError(f"{self._path}: the API did not start")
        _log.info("door=open socket=%s", self._path)

    async def close(self) -> None:
        """Stop listening, end what is under way within a second, and remove the socket if it is still ours."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        with contextlib.suppress(FileNotFoundError):
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._identity:
                self._path.unlink()
        _log.info("door=closed socket=%s", self._path)


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process, and says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _CheckedProtocol(HttpProtocol):
    """Speaks HTTP with those who may enter; ``scope["client"]`` is (user name, uid)."""

    group: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        peer = peer_of(connection)
        if peer.may_enter(self.group):
            self.client = (peer.name, peer.uid)
            return
        _log.info("door=refused user=%s", peer.name)
        transport.write(_REFUSAL % (len(_REFUSAL_BODY), _REFUSAL_BODY))
        transport.close()

    def data_received(self, data: bytes) -> None:
        if self.client is not None:
            super().data_received(data)


def _listen(path: Path, group: str | None) -> socket.socket:
    try:
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise UnavailableError(f"{path}: there is no group {group}; add it: groupadd --system {group}") from error
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        # The umask makes the socket's mode right from its first moment; a chmod after bind would come too late.
        before = os.umask(0o777 & ~MODE)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, gid)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UnavailableError(f"{path}: {error.strerror or error}") from error
    except UnavailableError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UnavailableError(f"{path} is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(f"{path}: {error.strerror}") from error
    raise UnavailableError(f"another control process listens on {path}; stop it, or give --socket another path")
