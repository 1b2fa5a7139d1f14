"""``panloom console`` at a terminal of its own.

with console(lab, "n1") as terminal:
    terminal.until(rb"iPXE>", "it stands at its prompt")
    terminal.type(b"exit\\r")
"""

import os
import pty
import re
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager

from support.waiting import until

COMMAND = (sys.executable, "-W", "error", "-c", "from panloom.command import main; main()", "console")
LEAVE = b"\x1d"


class Terminal:
    """``panloom console …`` at a terminal of its own."""

    def __init__(self, lab, *arguments, command=COMMAND):
        self.far, near = pty.openpty()
        self.before = termios.tcgetattr(self.far)
        self.seen = b""
        self.process = subprocess.Popen(
            (*command, *arguments),
            env={**os.environ, "PANLOOM_SOCKET": str(lab.lab.control_socket)},
            stdin=near, stdout=near, stderr=near, start_new_session=True,
        )  # fmt: skip
        os.close(near)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while octets := os.read(self.far, 4096):
                self.seen += octets
        except OSError:  # the command has ended
            return

    def type(self, octets):
        os.write(self.far, octets)

    def enter(self, line):
        """Type a line in pieces, each once the one before is echoed: firmware forgets what it cannot take at once."""
        for start in range(0, len(line), 8):
            piece, before = line[start : start + 8].encode(), len(self.seen)
            self.type(piece)
            self.until(re.escape(piece), f"it echoes {piece!r}", after=before)
        self.type(b"\r")

    def until(self, pattern, what, *, after=0, seconds=60.0):
        try:
            return until(lambda: re.search(pattern, self.seen[after:]), what, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.seen[-500:]!r}") from error

    def leave(self):
        self.type(LEAVE)
        assert self.process.wait(timeout=20) == 0
        assert termios.tcgetattr(self.far)[3] == self.before[3]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.far)


@contextmanager
def console(lab, *arguments, command=COMMAND):
    terminal = Terminal(lab, *arguments, command=command)
    try:
        yield terminal
    finally:
        terminal.close()
