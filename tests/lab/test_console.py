"""Consoles of real machines, at a real terminal: what firmware and boot loader say, and what is typed to them."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager

import pytest

from support.lab import running_lab
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
COMMAND = (sys.executable, "-W", "error", "-c", "from panloom.command import main; main()", "console")
LEAVE = b"\x1d"


class Terminal:
    """``panloom console …`` at a terminal of its own."""

    def __init__(self, lab, *arguments):
        self._far, near = pty.openpty()
        self.before = termios.tcgetattr(self._far)
        self.seen = b""
        self.process = subprocess.Popen(
            (*COMMAND, *arguments),
            env={**os.environ, "PANLOOM_SOCKET": str(lab.lab.control_socket)},
            stdin=near, stdout=near, stderr=near, start_new_session=True,
        )  # fmt: skip
        os.close(near)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while octets := os.read(self._far, 4096):
                self.seen += octets
        except OSError:  # the command has ended
            return

    def type(self, octets):
        os.write(self._far, octets)

    def until(self, pattern, what, *, after=0, seconds=60.0):
        return until(lambda: re.search(pattern, self.seen[after:]), f"{what}: {self.seen[-500:]!r}", seconds=seconds)

    def leave(self):
        self.type(LEAVE)
        assert self.process.wait(timeout=20) == 0
        assert termios.tcgetattr(self._far)[3] == self.before[3]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._far)


@contextmanager
def console(lab, *arguments):
    terminal = Terminal(lab, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_console_that_is_killed_gives_the_keyboard_back(tmp_path):
    with running_lab(tmp_path) as lab:
        with console(lab, "n1") as first:
            first.until(rb"its console\. Leave with \^\]\.\r", "it may type")
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        with console(lab, "n1") as second:
            second.until(rb"its console\. Leave with \^\]\.\r", "the next one may type")
            second.leave()


def test_a_second_one_sees_the_same_and_types_nothing(tmp_path):
    with running_lab(tmp_path) as lab, console(lab, "n1") as first:
        lab.power("n1", "on")
        first.until(rb"Ctrl-B", "the boot loader says how to stop it")
        first.type(b"\x02")
        first.until(rb"iPXE>", "typing has reached the boot loader")
        with console(lab, "n1") as second:
            second.until(rb"You read; somebody else types", "the second one reads")
            second.until(rb"iPXE>", "and sees what was said before")
            second.type(b"echo intruded\r")
            first.type(b"echo both see this\r")
            second.until(rb"\nboth see this", "the second one sees what the first one does")
            second.leave()
        first.type(b"echo still here\r")
        first.until(rb"\nstill here", "the first one goes on")
        assert b"intruded" not in first.seen
        first.leave()
