"""Whole files arrive as they are, whatever of them is in the page cache, and nobody reads on for a client that left."""

import asyncio
import os

import pytest
from starlette.responses import FileResponse

from panloom.boot.file_sending import PIECE_OCTETS, FileSending


class Server:
    """The server's side of ASGI: takes what is sent, and says when the client left."""

    def __init__(self, *, leaves_after: int | None = None) -> None:
        self.started = {}
        self.body = bytearray()
        self.pieces = 0
        self.is_over = False
        self._leaves_after = leaves_after
        self._left = asyncio.Event()
        self._asked = False

    async def receive(self):
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        match message["type"]:
            case "http.response.start":
                self.started = message
            case "http.response.body":
                assert not self.is_over
                self.body += message["body"]
                self.pieces += 1
                self.is_over = not message.get("more_body", False)
                if self.pieces == self._leaves_after:
                    self._left.set()
            case other:
                raise AssertionError(other)


def fetch(path, server, *, method="GET", headers=()):
    scope = {"type": "http", "method": method, "headers": list(headers), "asgi": {"spec_version": "2.3"}}

    async def ask():
        await FileSending(FileResponse(path))(scope, server.receive, server.send)

    asyncio.run(ask())


@pytest.mark.parametrize("octets", [0, 1, PIECE_OCTETS - 1, PIECE_OCTETS, PIECE_OCTETS + 1, 5 * PIECE_OCTETS + 7])
@pytest.mark.parametrize("cached", [True, False])
def test_a_file_arrives_whole(tmp_path, octets, cached):
    path, content = tmp_path / "file", os.urandom(octets)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if not cached:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    server = Server()
    fetch(path, server)
    assert server.is_over
    assert server.body == content
    assert dict(server.started["headers"])[b"content-length"] == str(octets).encode()


def test_a_range_and_a_head_are_the_applications_own(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    part, head = Server(), Server()
    fetch(path, part, headers=[(b"range", b"bytes=16-31")])
    assert (part.started["status"], part.body) == (206, bytes(range(16, 32)))
    fetch(path, head, method="HEAD")
    assert (head.started["status"], head.body, head.is_over) == (200, b"", True)


def test_nothing_is_read_for_a_client_that_left(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * PIECE_OCTETS))
    server = Server(leaves_after=3)
    fetch(path, server)
    assert server.pieces < 10
