"""An enclosure ends with everything in it, however its outer process ends."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.waiting import until

# Makes an interface, a file and a process that shall not outlive it, then says in which network namespace it is.
BUSY = """
import os, subprocess, sys, time
from panloom.lab.enclosure import run_enclosed

def main(enclosure):
    subprocess.run(["ip", "link", "add", "lab0", "type", "bridge"], check=True)
    open("/run/panloom-left-behind", "w").close()
    subprocess.Popen(["sleep", "1000"])
    print("inside", os.readlink("/proc/self/ns/net"), os.getpid(), flush=True)
    {then}

sys.exit(run_enclosed(main))
"""


@contextmanager
def enclosed(then):
    command = [sys.executable, "-c", BUSY.format(then=then)]
    outer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield outer
    finally:
        outer.kill()
        outer.communicate()


def inside(outer):
    """Return the network namespace and the processes of an enclosure that is ready."""
    word, namespace, pid = outer.stdout.readline().split()
    assert (word, pid) == ("inside", "1")
    return namespace, processes_in(namespace)


def processes_in(namespace):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "ns" / "net").readlink()) == namespace:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def mounts():
    """Return what is mounted where an enclosure mounts."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1] in ("/proc", "/sys", "/run")]


MOUNTS = mounts()


def assert_gone(namespace):
    until(lambda: not processes_in(namespace), "the processes of the enclosure are gone")
    assert not Path("/run/panloom-left-behind").exists()
    assert not Path("/sys/class/net/lab0").exists()
    assert mounts() == MOUNTS


def test_returns_what_main_returns():
    with enclosed("return 7") as outer:
        namespace, _ = inside(outer)
        assert outer.wait(10) == 7
        assert_gone(namespace)


def test_failure_is_told():
    with enclosed("raise RuntimeError('the chassis is on fire')") as outer:
        namespace, _ = inside(outer)
        assert outer.wait(10) == 1
        assert "the chassis is on fire" in outer.stderr.read()
        assert_gone(namespace)


def test_exit_with_words_is_told():
    with enclosed("sys.exit('no more spares')") as outer:
        namespace, _ = inside(outer)
        assert outer.wait(10) == 1
        assert outer.stderr.read() == "no more spares\n"
        assert_gone(namespace)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(number):
    with enclosed("time.sleep(1000)") as outer:
        namespace, processes = inside(outer)
        assert len(processes) == 2
        outer.send_signal(number)
        assert outer.wait(10) == 130
        assert_gone(namespace)


def test_interrupted_twice_waits_no_longer():
    deaf = (
        "import signal; signal.signal(signal.SIGINT, lambda *_: print('heard', flush=True)); print('deaf', flush=True)"
    )
    with enclosed(f"{deaf}; time.sleep(1000)") as outer:
        namespace, _ = inside(outer)
        assert outer.stdout.readline() == "deaf\n"
        outer.send_signal(signal.SIGINT)
        assert outer.stdout.readline() == "heard\n"
        outer.send_signal(signal.SIGINT)
        assert outer.wait(10) == 128 + signal.SIGKILL
        assert_gone(namespace)


def test_outer_process_killed():
    with enclosed("time.sleep(1000)") as outer:
        namespace, processes = inside(outer)
        assert len(processes) == 2
        outer.kill()
        outer.wait(10)
        assert_gone(namespace)


def test_let_go_stays_until_its_own_end():
    with enclosed("enclosure.let_go(); time.sleep(1000)") as outer:
        namespace, processes = inside(outer)
        assert outer.wait(10) == 0
        assert processes_in(namespace) == processes
        first = min(processes)
        assert Path(f"/proc/{first}/root/run/panloom-left-behind").exists()
        os.kill(first, signal.SIGKILL)
        assert_gone(namespace)


def test_it_names_itself_as_the_outside_knows_it_and_ends_on_sigterm_once_let_go():
    then = "print(enclosure.pid, flush=True); enclosure.let_go(); time.sleep(1000)"
    with enclosed(then) as outer:
        namespace, _ = inside(outer)
        named = int(outer.stdout.readline())
        assert outer.wait(10) == 0
        assert str(Path(f"/proc/{named}/ns/net").readlink()) == namespace
        os.kill(named, signal.SIGTERM)
        assert_gone(namespace)
