"""What a command of ours could leave on the host; a namespace lives by its processes, or by a mount.

Every process that such a command starts, and theirs, is known by a word in its environment.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.lab import PACKAGES
from support.waiting import until

ROOT = Path(__file__).parents[2]
NAMED_NAMESPACES = " /run/netns"
"""Where other tests, run beside this one, mount theirs; those of a laboratory have no name."""
COMMAND = (sys.executable, "-c", "import sys; from panloom.command import main; sys.exit(main())")
_NAME, _VALUE = "PANLOOM_TEST", str(os.getpid())

Traces = dict[str, set[str]]


def start(*words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start ``panloom WORDS`` in a session of its own."""
    environment = {**os.environ, "PANLOOM_PACKAGES": str(PACKAGES), "PYTHONUNBUFFERED": "1", _NAME: _VALUE}
    environment |= options.pop("env", {})
    command = (*COMMAND, *map(str, words))
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **options)


def marked() -> dict[int, str]:
    """Return pid → command line of every process that such a command has started and that lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{_NAME}={_VALUE}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def kill_marked() -> None:
    """Kill all that is left of them."""
    for pid in marked():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def traces(*places: Path) -> Traces:
    """Return the processes, interfaces, mounts and files of now, in the usual places and these."""
    mounts = Path("/proc/self/mountinfo").read_text()
    known = [path for place in ("/run", "/var/tmp") for path in Path(place).glob("*panloom*")]
    return {
        "processes": {f"{pid} {line}" for pid, line in marked().items()},
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "mounts": {line for line in mounts.splitlines() if NAMED_NAMESPACES not in line},
        "files": {str(path) for path in (*known, *(path for place in places for path in place.rglob("*")))},
    }


def assert_nothing_is_left(before: Traces, *places: Path) -> None:
    """Wait until there is no more than there was."""

    def left() -> Traces:
        return {what: now - before[what] for what, now in traces(*places).items() if now - before[what]}

    until(lambda: not left(), f"all of it is gone, but for {left()}", seconds=10)
