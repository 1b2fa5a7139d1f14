"""Network namespaces standing for machines, joined by cables, on the machine that runs the tests.

     ┌── control ──────────┐         ┌── n1 ─────┐
     │  br0 10.77.0.1/24   │         │           │
     │   ├── port-n1 ══════╪═ veth ══╪═ eth0     │     with machines(...) as chassis: chassis.control, chassis["n1"]
     │   └── port-n2 ══════╪═ veth ══╪═ ...      │
     └─────────────────────┘         └───────────┘

Their names carry the pid of the test; processes started in them are ended by their own pids.
"""

import asyncio
import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Namespace:
    """One network namespace; ``run`` and ``start`` execute programs in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *argv: str | Path) -> list[str]:
        """Return the command that executes ``argv`` in here."""
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def run(self, *argv: str | Path, seconds: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end; AssertionError with its output if it fails."""
        done = subprocess.run(self.command(*argv), capture_output=True, timeout=seconds, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode} {done.stdout!r} {done.stderr!r}"
        return done

    def start(self, *argv: str | Path, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a program; it is killed with the namespace at the latest."""
        process = subprocess.Popen(self.command(*argv), **options)
        self._started.append(process)
        return process

    def ip(self, words: str) -> None:
        """Run ``ip WORDS``."""
        self.run("ip", *words.split())

    def mac(self, interface: str) -> str:
        """Return the MAC of an interface."""
        return self.run("cat", f"/sys/class/net/{interface}/address").stdout.decode().strip()

    def enter(self) -> None:
        """Move the calling thread in here, for good."""
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def socket(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Return the socket that ``make`` makes in here."""
        made: Future[socket.socket] = Future()

        def work() -> None:
            try:
                self.enter()
                made.set_result(make())
            except OSError as error:
                made.set_exception(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made.result()

    def end_processes(self) -> None:
        """Kill what ``start`` started and is still alive."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """Make a namespace with loopback up, and remove it."""
    made = Namespace(f"panloom-{os.getpid()}-{next(_numbers)}-{label}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.ip("link set lo up")
        yield made
    finally:
        made.end_processes()
        subprocess.run(["ip", "netns", "del", made.name], check=True)


class Chassis:
    """A control node's namespace with a bridge ``br0``, and machines whose cables end there."""

    def __init__(self, control: Namespace, nodes: Mapping[str, Namespace]) -> None:
        self.control = control
        self.nodes = nodes

    def __getitem__(self, name: str) -> Namespace:
        return self.nodes[name]


@contextmanager
def machines(macs: Mapping[str, str], *, address: str = "10.77.0.1/24") -> Iterator[Chassis]:
    """Make a chassis; ``macs`` names the machines and gives the MAC of each one's ``eth0``.

    No machine speaks by itself, not even IPv6: the bridge would look for its MAC at its port, while a test may well
    speak as that MAC at another.
    """
    with ExitStack() as stack:
        control = stack.enter_context(namespace("control"))
        control.ip("link add br0 type bridge stp_state 0 forward_delay 0")
        control.ip(f"address add {address} dev br0")
        control.ip("link set br0 up")
        nodes = {}
        for name, mac in macs.items():
            node = nodes[name] = stack.enter_context(namespace(name))
            control.ip(f"link add port-{name} type veth peer name eth0 address {mac} netns {node.name}")
            control.ip(f"link set port-{name} master br0 up")
            node.ip("link set eth0 addrgenmode none up")
        yield Chassis(control, nodes)


class LoopInside:
    """An asyncio loop in a thread whose sockets belong to a namespace."""

    def __init__(self, inside: Namespace) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(inside,), name=f"loop in {inside.name}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, Result], *, seconds: float = 20.0) -> Result:
        """Run a coroutine in there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def _run(self, inside: Namespace) -> None:
        inside.enter()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
