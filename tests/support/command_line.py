"""``panloom`` as a process of its own, as a person or a script runs it."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from support.plain_control import CHASSIS

EXAMPLE = Path(__file__).parents[2] / "examples" / "web.yaml"
PANLOOM = (sys.executable, "-W", "error", "-c", "from panloom.command import main; main()")


class Said(NamedTuple):
    code: int
    data: str
    talk: str


class CommandLine:
    """Runs ``panloom`` in a directory that holds lab.yaml and web.yaml."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.directory = directory
        self.socket = socket
        (directory / "lab.yaml").write_text(CHASSIS)
        (directory / "web.yaml").write_text(EXAMPLE.read_text())

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Said:
        done = subprocess.run(
            (*PANLOOM, *arguments),
            cwd=self.directory,
            env={"PANLOOM_SOCKET": str(self.socket), "COLUMNS": "110", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        environment = {"PANLOOM_SOCKET": str(self.socket), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            (*PANLOOM, *arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
