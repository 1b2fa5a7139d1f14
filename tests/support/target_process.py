"""``panloom target`` as a process of its own, for tests of it and with it."""

import re
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from support.command_line import PANLOOM
from support.waiting import until

IQN = "iqn.2026-11.dev.panloom:target"
_LISTENING = re.compile(r"^listening (\S+):([0-9]+) (\S+)$", re.MULTILINE)


class TargetProcess:
    """A target with so many portals of an address, or at these ports, listening when this returns.

    ``prefix``: a command that becomes the target, as one that gives it a file system, or a network.  ``first``: Python
    that it runs before anything else.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        portals: int = 1,
        ports: tuple[int, ...] = (),
        prefix: tuple[str, ...] = (),
        first: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self.address = address
        self._log = directory / "target.log"
        self._output = directory / "target.out"
        wanted = ports or (0,) * portals
        at = [part for port in wanted for part in ("--portal", f"{address}:{port}")]
        command = [*prefix, *PANLOOM[:-1], f"{first}\n{PANLOOM[-1]}", "target", *at, *arguments]
        with self._log.open("wb") as log, self._output.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=log)

        def listening() -> list[tuple[str, str, str]]:
            if self.process.poll() is not None:
                raise AssertionError(f"the target ended with {self.process.returncode}: {self.told}")
            found = _LISTENING.findall(self.said)
            return found if len(found) == len(wanted) else []

        until(listening, "the target listens", seconds=60)
        found = listening()
        self.ports = [int(port) for _, port, _ in found]
        self.iqn = found[0][2]

    @property
    def said(self) -> str:
        """What it has written to stdout."""
        return self._output.read_text()

    @property
    def told(self) -> str:
        """What it has written to stderr."""
        return self._log.read_text()

    def url(self, lun: int, *, portal: int = 0, user: str = "") -> str:
        """Return libiscsi's URL of a unit; ``user`` is USER%SECRET."""
        return f"iscsi://{user}{'@' if user else ''}{self.address}:{self.ports[portal]}/{self.iqn}/{lun}"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
