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


def start(**options) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PANLOOM_PACKAGES": str(PACKAGES), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(COMMAND, cwd=ROOT, env=environment, start_new_session=True, **options)


def traces() -> dict[str, set[str]]:
    """Return what a demonstration could leave on the host: processes, namespaces, interfaces, mounts, files."""
    processes, namespaces = set(), set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            namespaces.add(os.readlink(entry / "ns/net"))
        except OSError:
            continue
        if any(b"panloom" in word and b"pytest" not in word for word in words[:4]) or b"qemu-system" in words[0]:
            processes.add(f"{entry.name} {words[:4]}")
    return {
        "processes": processes,
        "namespaces": namespaces,
        "interfaces": set(os.listdir("/sys/class/net")),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "files": {str(path) for place in ("/run", "/tmp", "/var/tmp") for path in Path(place).glob("*panloom*")},
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
        "same MAC, same address, same disk, boot 2 of it",
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
    assert demo.returncode == (130 if how is signal.SIGINT else -9)
    assert_nothing_is_left(before)
