"""A machine's serial line, at the supervisor: what it says, and keys for it."""

import json
import socket
from types import TracebackType
from typing import Self

from support.lab import LabInTest

_SECONDS = 90.0


class SerialLine:
    """Somebody at a machine's keyboard."""

    def __init__(self, lab: LabInTest, machine: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._path = str(lab.lab.power_socket)
        self._machine = machine
        self.said = b""

    def __enter__(self) -> Self:
        self._socket.connect(self._path)
        self._socket.sendall(json.dumps({"id": 1, "call": "console", "node": self._machine}).encode() + b"\n")
        self.until(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def until(self, text: bytes) -> None:
        """Read until the machine has said that, and forget what came up to there."""
        while text not in self.said:
            octets = self._socket.recv(65536)
            assert octets, f"the line ended before {text!r}: {self.said[-2000:]!r}"
            self.said += octets
        self.said = self.said.partition(text)[2]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        self._socket.sendall(keys)
