"""A control node and a client of its boot services in an enclosure, and who serves there: Panloom or a peer.

     ┌── enclosure ──────┐                                    ┌── client ───────────┐
     │  s0 10.77.0.1/16  ╪══════════ veth, or the ════════════╪  c0 10.77.0.2/16    │
     └───────────────────┘   delay line of ``delay_line``     └─────────────────────┘

Everything vanishes with the enclosure but the files of servers, which lie on a disk below ``.cache/bench``: what is
synced there is synced.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from boot_server import Settings
from delay_line import checksummed
from measuring import ROOT

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
START_SECONDS, IDLE_SECONDS = 60.0, 0.3
PYTHON = Path(sys.executable)
BENCH = Path(__file__).parent
IN_CLIENT = ("ip", "netns", "exec", "client")


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Make a directory on a disk while the block lasts."""
    below = ROOT / ".cache" / "bench"
    below.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=below) as path:
        yield Path(path)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


@contextlib.contextmanager
def cable(*, client: str = CLIENT, way_seconds: float = 0.0, loss: float = 0.0) -> Iterator[None]:
    """Join enclosure and client; ``way_seconds`` one way, ``loss`` a share of the frames of each way."""
    ip("netns add client")
    with contextlib.ExitStack() as stack:
        if way_seconds or loss:
            ip("netns add relay")
            ip("link add s0 type veth peer name r0 netns relay")
            ip("-n client link add c0 type veth peer name r1 netns relay")
            for end in ("r0", "r1"):
                ip(f"-n relay link set {end} up")
            options = ("--seconds", str(way_seconds), "--loss", str(loss))
            line = (PYTHON, BENCH / "delay_line.py", "r0", "r1", *options)
            stack.enter_context(process("ip", "netns", "exec", "relay", *line))
            checksummed("s0")
            code = "import sys; sys.path.insert(0, sys.argv[1]); import delay_line; delay_line.checksummed('c0')"
            subprocess.run([*IN_CLIENT, PYTHON, "-c", code, BENCH], check=True)
        else:
            ip("link add s0 type veth peer name c0 netns client")
        ip(f"address add {SERVER}/16 dev s0")
        ip("link set s0 up")
        ip(f"-n client address add {client}/16 dev c0")
        ip("-n client link set c0 up")
        ip("-n client link set lo up")
        yield


@contextlib.contextmanager
def process(*command: str | Path, ready: Callable[[], bool] | None = None, **options: object) -> Iterator[int]:
    """Run a server while the block lasts, and give its pid; without ``ready`` it says "ready" itself."""
    pipe = subprocess.DEVNULL if ready else subprocess.PIPE
    running = subprocess.Popen(list(map(str, command)), stdout=pipe, stdin=subprocess.DEVNULL, **options)
    try:
        if running.stdout is not None:
            line = running.stdout.readline()
            if line != b"ready\n":
                raise RuntimeError(f"{command[0]} did not start: {line!r}")
        deadline = time.monotonic() + START_SECONDS
        while ready is not None and not (ready() and is_idle(running.pid)):
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(map(str, command))} does not serve")
            time.sleep(0.02)
        yield running.pid
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def panloom(*, files: Path | None = None, settings: Settings | None = None) -> Iterator[int]:
    """Run our boot services; without ``settings`` they hand out ``files`` and no leases."""
    with directory() as store:
        chosen = settings or Settings(interface="s0", store=str(store / "state.sqlite"), files=str(files))
        with process(PYTHON, BENCH / "boot_server.py", msgspec.json.encode(chosen).decode()) as pid:
            yield pid


def is_idle(pid: int) -> bool:
    """Return whether a process has done nothing for a while: it may listen long before it has read its leases."""

    before = processor_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return processor_seconds(pid) == before


def processor_seconds(pid: int) -> float:
    """Return how long processors have worked for a process and the children that it has waited for or has now."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                _, parent, *numbers = _stat(entry)
                ticks += sum(map(int, numbers[9:11])) if str(pid) in (entry.name, parent) else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(entry: Path) -> list[str]:
    """Return state, parent and the other fields of proc(5), those after the name."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def udp_taken(port: int) -> Callable[[], bool]:
    """Return whether somebody is at a UDP port of this namespace, as a question."""
    return lambda: _taken(socket.SOCK_DGRAM, port)


def tcp_taken(port: int) -> Callable[[], bool]:
    """Return whether somebody is at a TCP port of this namespace, as a question."""
    return lambda: _taken(socket.SOCK_STREAM, port)


def _taken(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as trial:
        try:
            trial.bind((SERVER, port))
        except OSError:
            return True
    return False


def random_file(path: Path, octets: int) -> Path:
    """Make a file that stays for the next run, and is in the page cache."""
    if not path.exists() or path.stat().st_size != octets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(octets))
    path.read_bytes()
    return path
