"""Whole files to HTTP clients, without a thread for what is in the page cache anyway.

    application ── http.response.pathsend ──▶ FileSending ── http.response.body, piece by piece ──▶ server

The ASGI extension "Path Send" lets an application name a file and leave the sending to whoever can do it best.  Here a
piece is read at once if that takes no disk (preadv2(2), RWF_NOWAIT), else by a thread, so that a slow disk never keeps
other machines from their addresses.
"""

import asyncio
import os
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_OCTETS: Final = 1 << 17
_EXTENSION: Final = "http.response.pathsend"


class FileSending:
    """An ASGI application that sends the files which another one names."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_or_read(message: Message) -> None:
            if message["type"] == _EXTENSION:
                await _send_file(message["path"], receive, send)
            else:
                await send(message)

        extensions = {**scope.get("extensions", {}), _EXTENSION: {}}
        await self._application({**scope, "extensions": extensions}, receive, send_or_read)


async def _send_file(path: str, receive: Receive, send: Send) -> None:
    """Send a file as the body of an answer, or as much of it as the client stays for."""
    left = asyncio.create_task(_disconnect(receive))
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = 0
        while not left.done() and (piece := await _read(file, offset)):
            offset += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # a client as quick as we are leaves nothing to wait for, and others want their turn
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        os.close(file)
        left.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _read(file: int, offset: int) -> bytes:
    """Return the piece at ``offset``, which may be shorter than the others; empty at the end."""
    piece = bytearray(PIECE_OCTETS)
    try:
        octets = os.preadv(file, [piece], offset, os.RWF_NOWAIT)
    except OSError:  # not in the page cache, or a file system that cannot tell
        octets = await asyncio.to_thread(os.preadv, file, [piece], offset)
    return bytes(memoryview(piece)[:octets])  # h11 joins it with others: bytes it must be
