"""HTTP boot: a machine's script, what it reports of itself, and files, whole or in ranges (RFC 9110 section 14).

    /boot/TOKEN    /boot/TOKEN/hardware?…    /boot/TOKEN/install?choice=…    /files/NAME
    POST /boot/TOKEN/inventory

Served by uvicorn and Starlette from a socket of our own, so that nothing but the named interface is listened to.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from panloom.boot.desk import BootDesk, Page
from panloom.boot.file_root import FileRoot
from panloom.boot.file_sending import FileSending
from panloom.boot.http_protocol import HttpProtocol
from panloom.boot.interface import tcp_listener
from panloom.decide.boot_answer import BootTable
from panloom.decide.hardware import words_of
from panloom.decide.inventory import LONGEST_REPORT
from panloom.values import IpAddress

REQUEST_SECONDS = 5.0  # within which a whole request must have come
_CONNECTIONS = 512
_CONNECTIONS_OF_A_CLIENT = 16  # its oldest makes room for one more: who opens many and finishes none harms itself
_LARGEST_HEAD = 16384
_UNSENT = 1 << 20  # some pieces of a file: what the kernel does not take at once, asyncio copies twice


class _Protocol(HttpProtocol):
    """uvicorn's HTTP/1.1, which logs no path and drops those who connect and never finish a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False  # a request's path holds its token; uvicorn's own switch is the whole process's
        self.loop.call_later(REQUEST_SECONDS, self._drop_if_silent)
        self.opened_at = self.loop.time()
        host = self.client and self.client[0]
        mine = [other for other in self.connections if isinstance(other, _Protocol) and other.is_of(host)]
        if len(mine) > _CONNECTIONS_OF_A_CLIENT:
            min(mine, key=lambda other: other.opened_at).transport.abort()  # it may read nothing: no flush would end

    def is_of(self, host: str | None) -> bool:
        """Whether this connection lives and is of that client."""
        return self.client is not None and self.client[0] == host and not self.transport.is_closing()

    def _drop_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpService:
    """Serves scripts and files at one of our addresses until it is stopped."""

    def __init__(self, table: BootTable, address: IpAddress, files: FileRoot, desk: BootDesk) -> None:
        self._table = table
        self._address = address
        self._files = files
        self._desk = desk
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def start(self) -> None:
        """Listen; UnavailableError if the address is not there."""
        self._listener = tcp_listener(
            self._table.interface, self._address, self._table.http_port, unsent_octets=_UNSENT
        )
        application = Starlette(
            routes=[
                Route("/boot/{token}", self._script),
                Route("/boot/{token}/hardware", self._hardware),
                Route("/boot/{token}/install", self._install),
                Route("/boot/{token}/inventory", self._inventory, methods=["POST"]),
                Route("/files/{name:path}", self._file),
            ],
        )
        application.router.redirect_slashes = False  # to whatever host the request names
        config = uvicorn.Config(
            FileSending(application),
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="http boot")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait((self._task, listening), return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Close the listener, and the connections within a second."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        if self._listener is not None:
            self._listener.close()
        self._server = self._task = self._listener = None

    async def _script(self, request: Request) -> Response:
        token = request.path_params["token"]
        return _answer(request, lambda peer: self._desk.script(token, peer, now=time.monotonic()))

    async def _hardware(self, request: Request) -> Response:
        words, token = words_of(request.url.query), request.path_params["token"]
        return _answer(request, lambda peer: self._desk.hardware(token, peer, words, now=time.monotonic()))

    async def _inventory(self, request: Request) -> Response:
        body, token = bytearray(), request.path_params["token"]
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > LONGEST_REPORT:
                        return PlainTextResponse("that is no report\n", 413)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the report did not come whole\n", 408)
        text = body.decode("ascii", "replace")
        return _answer(request, lambda peer: self._desk.inventory(token, peer, text, now=time.monotonic()))

    async def _install(self, request: Request) -> Response:
        choice, token = words_of(request.url.query).get("choice", ""), request.path_params["token"]
        return _answer(request, lambda peer: self._desk.install(token, peer, choice, now=time.monotonic()))

    async def _file(self, request: Request) -> Response:
        path = self._files.find(request.path_params["name"])
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        if path is None or status is None:
            if request.client is not None:
                peer, name = ip_address(request.client.host), request.path_params["name"]
                self._desk.tell_file("no file", peer, name, now=time.monotonic())
            return PlainTextResponse("no such file\n", 404)
        return FileResponse(path, media_type="application/octet-stream", stat_result=status)


def _answer(request: Request, page_for: Callable[[IpAddress], Page]) -> Response:
    if request.client is None:
        return PlainTextResponse("who are you?\n", 403)
    page = page_for(ip_address(request.client.host))
    return PlainTextResponse(page.text, page.status, {"Cache-Control": "no-store"})
