"""A guest that does its worst to its network, and tells of it on its console: ``WORST fault: …``, ``WORST done``."""

import re
import socket

from panloom.storage.client import StorageClient
from support.lab import LabInTest
from support.waiting import until

ADDRESS = "10.1.0.11"
SECONDS = 90.0
_GATE_PORT = 99


def open_gate(lab: LabInTest, word: str = "", *, seconds: float = SECONDS) -> None:
    """Let the guest go on, by a word to it: it listens until somebody connects."""

    def is_open() -> bool:
        try:
            with lab.inside.socket(lambda: socket.create_connection((ADDRESS, _GATE_PORT), 2)) as connection:
                connection.sendall(word.encode())
        except OSError:
            return False
        return True

    until(is_open, "the guest listens at its gate", seconds=seconds)


def said(lab: LabInTest) -> list[str]:
    """Return what the guest has told."""
    return [line.removeprefix("WORST ") for line in lab.console("n1") if line.startswith("WORST ")]


def values(line: str) -> dict[str, int]:
    """Return the numbers of a line like ``disk=0 connection=0``."""
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}


def root_sessions(lab: LabInTest) -> list[str]:
    """Return the identities of the sessions with the root disk."""

    async def ask() -> list[str]:
        client = StorageClient(lab.lab.storage_socket)
        try:
            status = await client.status()
        finally:
            await client.close()
        return [session.id for session in status.sessions if session.target.endswith("shop.web1")]

    return lab.call(ask())
