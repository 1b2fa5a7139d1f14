"""The plain control process as a process of its own, on a socket in a directory of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import plain_control
from support.waiting import until

TESTS = Path(__file__).parents[1]


@contextmanager
def served(directory: Path) -> Iterator[Path]:
    """Yield the path of its socket."""
    socket = directory / "run" / "panloom.sock"
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-W", "error", plain_control.__file__, str(directory), str(socket)]
        process = subprocess.Popen(command, stderr=log, env={"PYTHONPATH": str(TESTS)})
        try:
            until(lambda: socket.exists() or process.poll() is not None, "the API's socket")
            yield socket
        finally:
            process.kill()
            process.wait()
