"""A lab at work: the processes of a chassis and its control node, started in order and ended together.

    supervisor        owns bridge, ports and machines; power socket
    storage process   volumes, iSCSI
    control process   boot services, fail-over, API

All run where the caller runs, or behind a prefix such as ``ip netns exec NAME``.  Everything they write lies in one directory:

    panloom.sock  storage.sock  power.sock     where they are asked
    state/  volumes/                           what they keep
    console/NODE.log  *.log                    what machines and processes say
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from panloom.command.client import Client
from panloom.control.power import call
from panloom.decide.records import initiator_of
from panloom.errors import UnavailableError
from panloom.lab.chassis import Chassis, documents
from panloom.lab.enclosure import Enclosure
from panloom.storage.client import StorageClient

START_SECONDS = 20.0
STOP_SECONDS = 5.0
HTTP_SECONDS = 1.0


class RunningLab:
    """One chassis with its control node."""

    def __init__(self, directory: Path, *, chassis: Chassis | None = None, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.chassis = chassis or Chassis.of(nodes=3)
        self.control_socket = directory / "panloom.sock"
        self.storage_socket = directory / "storage.sock"
        self.power_socket = directory / "power.sock"
        self._prefix = tuple(prefix)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._client = Client(str(self.control_socket))

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, image: Path, *, waiting: Callable[[str], None] = lambda what: None) -> None:
        """Start everything and declare the chassis: platform, nodes and the image ``web@1``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        waiting("the supervisor")
        await self.start_supervisor()
        waiting("the storage process")
        await self.start_storage()
        waiting("the control process")
        await self.start_control()
        waiting("the documents of the chassis")
        text = documents(self.chassis, power_socket=self.power_socket, image=image)
        await self.apply_text("chassis.yaml", text)

    async def start_supervisor(self) -> None:
        """Build the chassis and start the supervisor of its machines."""
        chassis = self.directory / "chassis.json"
        chassis.write_bytes(msgspec.json.encode(self.chassis))
        await self._spawn(
            "supervisor",
            ("-m", "panloom.lab.supervisor", "--socket", str(self.power_socket), "--chassis", str(chassis))
            + ("--console", str(self.directory / "console")),
            self.power_socket,
        )

    async def start_storage(self) -> None:
        """Start the storage process, or start it again."""
        portal = f"{self.chassis.address}:3260"
        await self._spawn(
            "storage",
            ("-m", "panloom.storage", "--directory", str(self.directory / "volumes"))
            + ("--socket", str(self.storage_socket), "--portal", portal),
            self.storage_socket,
        )

    async def start_control(self, **environment: str) -> None:
        """Start the control process, or start it again."""
        await self._spawn(
            "control",
            ("-m", "panloom.control", "--directory", str(self.directory / "state"))
            + ("--socket", str(self.control_socket), "--storage", str(self.storage_socket)),
            self.control_socket,
            environment,
        )

    async def _spawn(
        self, name: str, arguments: Sequence[str], socket: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._prefix,
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        finally:
            log.close()
        self._processes[name] = process
        deadline = time.monotonic() + START_SECONDS
        while not await _listens(socket):
            if process.returncode is not None or time.monotonic() > deadline:
                tail = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()[-5:]
                raise UnavailableError(f"the {name} process did not start: " + " / ".join(tail))
            await asyncio.sleep(0.02)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of our processes."""
        self._processes[name].send_signal(number)

    async def kill(self, name: str) -> None:
        """Kill one of our processes as a power cut would, and wait until it is gone."""
        process = self._processes.pop(name)
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def ended(self, name: str) -> int:
        """Wait until one of our processes has ended by itself; return its exit status."""
        return await self._processes[name].wait()

    async def stop(self) -> None:
        """End all processes, the machines with them."""
        for name in ("control", "storage", "supervisor"):
            process = self._processes.pop(name, None)
            if process is None or process.returncode is not None:
                continue
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def let_go(self, enclosure: Enclosure) -> None:
        """Let the outer process return to its prompt, and go on until a process of the lab ends or we are told to."""
        enclosure.let_go()
        waits = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    # ── asking it ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, path: Path) -> Mapping[str, Any]:
        """Apply a file."""
        return await self.apply_text(path.name, path.read_text())

    async def apply_text(self, name: str, text: str) -> Mapping[str, Any]:
        """Apply documents."""
        body = {"files": [{"name": name, "text": text, "origin": f"/lab/{name}"}]}
        outcome: Mapping[str, Any] = await asyncio.to_thread(lambda: self._client.post("apply", body=body))
        return outcome

    async def get(self, *path: str, **query: object) -> Any:  # noqa: ANN401 -- JSON
        """Ask the API."""
        return await asyncio.to_thread(lambda: self._client.get(*path, **query))

    async def post(self, *path: str, body: object = None) -> Any:  # noqa: ANN401 -- JSON
        """Ask the API to do something."""
        return await asyncio.to_thread(lambda: self._client.post(*path, body=body))

    async def power(self, node: str, action: str) -> bool:
        """Do something to a machine behind Panloom's back: on, off, kill, stop, continue, status; return whether it is on."""
        answer = await call(str(self.power_socket), {"call": "power", "node": node, "action": action})
        return bool(answer["power"] == "on")

    async def sessions_of(self, node: str) -> list[str]:
        """Return the targets that a node is logged in to."""
        client = StorageClient(self.storage_socket)
        try:
            status = await client.status()
        finally:
            await client.close()
        return [session.target for session in status.sessions if session.initiator == str(initiator_of(node))]

    async def page(self, address: str) -> Mapping[str, str] | None:
        """Return what the server at an address says of itself, None if it does not answer."""
        octets = await self._http_get(address, "/facts.txt")
        if octets is None:
            return None
        lines = octets.decode(errors="replace").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    async def _http_get(self, address: str, path: str) -> bytes | None:
        if self._prefix:
            return await self._http_get_behind_prefix(address, path)
        try:
            async with asyncio.timeout(HTTP_SECONDS):
                reader, writer = await asyncio.open_connection(address, 80)
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None
        return body if head.split(b" ", 2)[1:2] == [b"200"] else None

    async def _http_get_behind_prefix(self, address: str, path: str) -> bytes | None:
        program = "import sys,urllib.request as r;sys.stdout.buffer.write(r.urlopen(sys.argv[1],timeout=float(sys.argv[2])).read())"
        process = await asyncio.create_subprocess_exec(
            *self._prefix,
            sys.executable,
            "-c",
            program,
            f"http://{address}{path}",
            str(HTTP_SECONDS),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        return output if process.returncode == 0 else None

    def console_tail(self, node: str, lines: int) -> list[str]:
        """Return the last lines of a machine's console."""
        path = self.directory / "console" / f"{node}.log"
        return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
