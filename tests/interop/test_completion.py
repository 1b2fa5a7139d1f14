"""Completion in the shells themselves: bash and zsh at a terminal, where Tab is pressed, and fish's ``complete -C``."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command_line import CommandLine
from support.foreign import PACKAGES
from support.served import served

SECONDS = 30
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b=|\x1b>|[\x07\x08]")  # what moves the cursor or colours
ASKED = {
    "panloom rollb": "panloom rollback ",
    "panloom get imag": "panloom get images ",
    "panloom show image web": "panloom show image web@1 ",
    "panloom show server shop/web1": "panloom show server shop/web1 ",
    "panloom plan la": "panloom plan lab.yaml ",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Yield directory and environment of a shell that finds ``panloom``, with a control process that has documents."""
    directory = tmp_path_factory.mktemp("shell")
    (directory / "bin").mkdir()
    program = directory / "bin" / "panloom"
    program.write_text(f"#!{sys.executable}\nfrom panloom.command import main\nmain()\n")
    program.chmod(0o755)
    with served(directory) as socket:
        line = CommandLine(directory, socket)
        assert line("apply", "lab.yaml", "web.yaml").code == 0
        path = f"{directory}/bin:{os.environ['PATH']}"
        yield (
            directory,
            {**os.environ, "PATH": path, "PANLOOM_SOCKET": str(socket), "HOME": str(directory), "PS1": "$ "},
        )


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, directory, environment, *command):
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.chdir(directory)
            os.execvpe(command[0], command, {**environment, "TERM": "xterm"})
        self._said = b""

    def say(self, octets, until):
        """Type, and wait until that is shown; what was shown before does not count."""
        self._said = b""
        os.write(self._terminal, octets)
        end = time.monotonic() + SECONDS
        while until not in _CONTROL.sub(b"", self._said):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {until!r} in {self._said!r}"
            self._said += os.read(self._terminal, 65536)

    def close(self):
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._terminal)


def hold_to(terminal):
    for typed, completed in ASKED.items():
        terminal.say(typed.encode() + b"\t", completed.encode()[len(typed) :])
        terminal.say(b"\x15echo rea''dy\r", b"ready")


def test_bash(shell):
    directory, environment = shell
    terminal = Terminal(directory, environment, "bash", "--norc", "--noprofile", "-i")
    try:
        terminal.say(b"eval \"$(panloom completion bash 2> /dev/null)\"; echo rea''dy\r", b"ready")
        hold_to(terminal)
        terminal.say(b"panloom show image web@\t", b"web@1 ")
    finally:
        terminal.close()


def test_zsh(shell):
    directory, environment = shell
    terminal = Terminal(directory, environment, "zsh", "-f", "-i")
    functions = next(place for place in (PACKAGES, Path("/")) if (place / "usr/share/zsh/functions").is_dir())
    modules = next((functions / "usr/lib").glob("*/zsh/*"))
    set_up = f"module_path=({modules}); fpath=({functions}/usr/share/zsh/functions/**/*(/)); autoload -U compinit"
    try:
        terminal.say(f"{set_up}; compinit -u -D; echo rea''dy\r".encode(), b"ready")
        terminal.say(b"eval \"$(panloom completion zsh 2> /dev/null)\"; echo rea''dy\r", b"ready")
        hold_to(terminal)
    finally:
        terminal.close()


def test_fish(shell):
    directory, environment = shell

    def complete(line):
        script = f"panloom completion fish 2> /dev/null | source; complete -C '{line}'"
        done = subprocess.run(
            ("fish", "--no-config", "-c", script),
            env=environment, cwd=directory, capture_output=True, text=True, check=True, timeout=SECONDS,
        )  # fmt: skip
        return [found.split("\t")[0] for found in done.stdout.splitlines()]

    assert complete("panloom rollb") == ["rollback"]
    assert complete("panloom show server ") == ["shop/web1", "shop/web2"]
    assert complete("panloom show image web@") == ["web@1"]


@pytest.mark.parametrize("line", ["panloom show server ", "panloom rollback ", "panloom frob x ", "panloom show frob "])
def test_nobody_answers_and_nothing_is_said(shell, line):
    directory, environment = shell
    asking = {"_PANLOOM_COMPLETE": "bash_complete", "COMP_LINE": line, "PANLOOM_SOCKET": str(directory / "no.sock")}
    done = subprocess.run(
        ("panloom",), env={**environment, **asking}, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.stderr == ""
    assert "shop/web1" not in done.stdout


def test_a_control_process_that_hangs_is_not_waited_for(shell, tmp_path):
    import socket

    _, environment = shell
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s.sock"))
        silent.listen()
        asking = {
            "_PANLOOM_COMPLETE": "bash_complete",
            "COMP_LINE": "panloom show server ",
            "PANLOOM_SOCKET": str(tmp_path / "s.sock"),
        }
        done = subprocess.run(
            ("panloom",), env={**environment, **asking}, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    assert (done.stdout.strip(), done.stderr) == ("", "")
