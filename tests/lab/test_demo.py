"""The demonstration: it runs, it can be cut off anywhere, and nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.lab import PACKAGES
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "import sys; from panloom.command import main; sys.exit(main())", "demo")
NAMED_NAMESPACES = " /run/netns"
"""Where other tests, run beside this one, mount theirs; a demonstration's namespaces have no name."""

MARK = f"PANLOOM_TEST={os.getpid()}"
"""Stands in the environment of a demonstration of ours, and so of every process it starts."""


def start(**options) -> subprocess.Popen[bytes]:
    name, _, value = MARK.partition("=")
    environment = {**os.environ, "PANLOOM_PACKAGES": str(PACKAGES), "PYTHONUNBUFFERED": "1", name: value}
    return subprocess.Popen(COMMAND, cwd=ROOT, env=environment, start_new_session=True, **options)


def marked(entry: Path) -> bool:
    try:
        return MARK.encode() in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def traces() -> dict[str, set[str]]:
    """Return what a demonstration could leave on the host; a namespace lives by its processes, or by a mount."""
    processes = {entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and marked(entry)}
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "processes": processes,
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "mounts": {line for line in mounts.splitlines() if NAMED_NAMESPACES not in line},
        "files": {str(path) for place in ("/run", "/var/tmp") for path in Path(place).glob("*panloom*")},
    }


def assert_nothing_is_left(before: dict[str, set[str]]) -> None:
    def left() -> dict[str, set[str]]:
        return {what: now - before[what] for what, now in traces().items() if now - before[what]}

    until(lambda: not left(), f"all of it is gone, but for {left()}", seconds=10)


def test_the_demo_runs_and_leaves_nothing():
    before = traces()
    demo = start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = demo.communicate(timeout=180)
    text = output.decode()
    assert demo.returncode == 0, text
    for fact in (
        "shop/web1 boots",
        "shop/web2 boots",
        "same MAC, address and disk; boot 2",
        "What it took",
    ):
        assert fact in text, text
    assert_nothing_is_left(before)


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("", signal.SIGINT),
        ("", signal.SIGKILL),
        ("build the image", signal.SIGINT),
        ("start the chassis", signal.SIGKILL),
        ("apply web.yaml", signal.SIGINT),
        ("shop/web2 boots", signal.SIGKILL),
        ("kill n", signal.SIGINT),
    ],
)
def test_cut_off_at_any_step_it_leaves_nothing(step, how):
    """``step`` is the last one seen done when the signal comes; an empty one means at once."""
    before = traces()
    demo = start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for line in demo.stdout if step else ():
            if step in line.decode():
                break
        os.kill(demo.pid, how)
        demo.wait(timeout=30)
    finally:
        demo.stdout.close()
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    # At once means that Python itself may not have begun yet: then the signal ends it, as it ends any program.
    assert demo.returncode in ((130, -2) if how is signal.SIGINT else (-9,))
    assert_nothing_is_left(before)
