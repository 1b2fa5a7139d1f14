"""The real storage process, for tests that talk to it, kill it and start it again."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from panloom.storage.client import StorageClient
from support.waiting import until

Result = TypeVar("Result")


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens at, and that the kernel gives to no connection.

    Whoever is killed and started again finds it free: it is below net.ipv4.ip_local_port_range.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def run_calls(path: Path, calls: Callable[[StorageClient], Awaitable[Result]]) -> Result:
    """Run calls of a new client of the control channel at ``path`` to their end."""

    async def with_client() -> Result:
        client = StorageClient(path)
        try:
            return await calls(client)
        finally:
            await client.close()

    return asyncio.run(with_client())


class StorageProcess:
    """A storage process over ``path/store``; its log grows over restarts."""

    def __init__(self, path: Path, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> None:
        self.directory = path / "store"
        self.socket = path / "storage.sock"
        self.log = path / "storage.log"
        self.port = free_port()
        self._options = options
        self._prefix = prefix  # a command that runs the process, such as one that gives it a namespace
        self.process = self._spawn()

    def start(self) -> None:
        """Start it again after its end."""
        self.process = self._spawn()

    def start_and_kill(self, seconds: float) -> None:
        """Start it, and SIGKILL it so soon after, in whatever it is doing then."""
        self.process = self._begun()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """SIGTERM, and wait for its clean end."""
        self.process.terminate()
        code = self.process.wait(timeout=20)
        if code != 0:
            raise AssertionError(f"the storage process ended with {code}: {self.log.read_text()}")

    def stop(self, number: signal.Signals) -> None:
        """Send it any other signal."""
        os.kill(self.process.pid, number)

    def run(self, calls: Callable[[StorageClient], Awaitable[Result]]) -> Result:
        """Run calls of a client of its own to their end."""
        return run_calls(self.socket, calls)

    def url(self, target: str, *, lun: int = 0, user: str | None = None, secret: str | None = None) -> str:
        """Return libiscsi's URL of a unit."""
        login = f"{user}%{secret}@" if user else ""
        return f"iscsi://{login}127.0.0.1:{self.port}/{target}/{lun}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self._begun()

        def listening() -> bool:
            text = self.log.read_bytes()[before:]
            if process.poll() is not None:
                raise AssertionError(f"the storage process has ended: {text.decode()}")
            return b"listening=yes" in text

        until(listening, "the storage process listens", seconds=60)
        return process

    def _begun(self) -> "subprocess.Popen[bytes]":
        arguments = ["--directory", self.directory, "--socket", self.socket, "--portal", f"127.0.0.1:{self.port}"]
        arguments += self._options
        with self.log.open("ab") as log:
            return subprocess.Popen([*self._prefix, sys.executable, "-m", "panloom.storage", *arguments], stderr=log)
