"""A lab at work: the processes of a chassis and its control node, started in order and ended together.

    supervisor        owns bridge, ports and machines; power socket
    storage process   volumes, iSCSI
    control process   boot services, fail-over, API

All run in the network namespace of the thread that starts them.  Everything they write lies in one directory:

    panloom.sock  storage.sock  power.sock     where they are asked
    state/  volumes/                           what they keep
    files/                                     what TFTP hands out, if a machine's firmware asks for it
    console/NODE.log  *.log                    what machines and processes say
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from panloom.control.client import Client
from panloom.control.power import call
from panloom.decide.records import initiator_of
from panloom.errors import UnavailableError
from panloom.lab.chassis import Chassis, documents
from panloom.lab.enclosure import Enclosure
from panloom.lab.firmware_files import LOADER, loader, ovmf
from panloom.lab.qemu import FETCHES_LOADER
from panloom.storage.client import StorageClient

START_SECONDS = 20.0
STOP_SECONDS = 5.0
HTTP_SECONDS = 1.0


class RunningLab:
    """One chassis with its control node."""

    def __init__(self, directory: Path, *, chassis: Chassis | None = None) -> None:
        self.directory = directory
        self.chassis = chassis or Chassis.of(nodes=3)
        self.control_socket = directory / "panloom.sock"
        self.storage_socket = directory / "storage.sock"
        self.power_socket = directory / "power.sock"
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._client = Client(str(self.control_socket))

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, image: Path, *, waiting: Callable[[str], None] | None = None) -> None:
        """Start everything and declare the chassis: platform, nodes and the image ``web@1``."""
        say = waiting or _say_nothing
        self.directory.mkdir(parents=True, exist_ok=True)
        say("the supervisor")
        await self.start_supervisor()
        say("the storage process")
        await self.start_storage()
        say("the control process")
        await self.start_control()
        say("the documents of the chassis")
        await self.declare(image)

    async def declare(self, image: Path) -> None:
        """Apply the documents of the chassis: its platform, its nodes and an image."""
        await self.apply_text("chassis.yaml", documents(self.chassis, power_socket=self.power_socket, image=image))

    async def start_supervisor(self) -> None:
        """Build the chassis and start the supervisor of its machines; UnavailableError if firmware is missing."""
        if not self.chassis.firmware <= {"bios"}:
            ovmf()
        chassis, console = self.directory / "chassis.json", self.directory / "console"
        chassis.write_bytes(msgspec.json.encode(self.chassis))
        options = ("--socket", self.power_socket, "--chassis", chassis, "--console", console)
        await self._spawn("supervisor", "panloom.lab.supervisor", options, self.power_socket)

    async def start_storage(self, *portals: str, **environment: str) -> None:
        """Start the storage process, or start it again, with more portals and in its environment if need be."""
        options: list[str | Path] = ["--directory", self.directory / "volumes", "--socket", self.storage_socket]
        for portal in (f"{self.chassis.address}:3260", *portals):
            options += ["--portal", portal]
        await self._spawn("storage", "panloom.storage", options, self.storage_socket, environment)

    async def start_control(self, **environment: str) -> None:
        """Start the control process, or start it again, with more in its environment if need be."""
        options = ("--directory", self.directory / "state", "--socket", self.control_socket)
        storage = ("--storage", self.storage_socket)
        given = self.directory / "files"
        files = ("--files", self._make_files()) if self.chassis.firmware & FETCHES_LOADER or given.exists() else ()
        await self._spawn("control", "panloom.control", (*options, *storage, *files), self.control_socket, environment)

    def _make_files(self) -> Path:
        """Return a directory with the loader that machines fetch whose firmware has no iPXE, and what is there."""
        files = self.directory / "files"
        files.mkdir(exist_ok=True)
        if self.chassis.firmware & FETCHES_LOADER:
            shutil.copyfile(loader(), files / LOADER)
        return files

    async def _spawn(
        self,
        name: str,
        module: str,
        options: Sequence[str | Path],
        socket: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *map(str, options)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        self._processes[name] = process
        deadline = time.monotonic() + START_SECONDS
        while not await _listens(socket):
            if process.returncode is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").splitlines()[-5:]
                raise UnavailableError(f"the {name} process did not start: " + " / ".join(tail))
            await asyncio.sleep(0.02)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of our processes."""
        self._processes[name].send_signal(number)

    def pid(self, name: str) -> int:
        """Return the number of one of our processes."""
        return self._processes[name].pid

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
        """Do something to a machine behind Panloom's back, as the supervisor knows it; return whether it is on."""
        answer = await call(str(self.power_socket), {"call": "power", "node": node, "action": action})
        return bool(answer["power"] == "on")

    async def sessions_of(self, node: str) -> list[str]:
        """Return the targets that a node is logged in to, by the name that is made of its own."""
        return await self.sessions_by(str(initiator_of(node)))

    async def sessions_by(self, initiator: str) -> list[str]:
        """Return the targets that an initiator is logged in to."""
        client = StorageClient(self.storage_socket)
        try:
            status = await client.status()
        finally:
            await client.close()
        return [session.target for session in status.sessions if session.initiator == initiator]

    async def page(self, address: str) -> Mapping[str, str] | None:
        """Return what the server at an address says of itself, None if it does not answer."""
        octets = await self._http_get(address, "/facts.txt")
        if octets is None:
            return None
        lines = octets.decode(errors="replace").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    async def _http_get(self, address: str, path: str) -> bytes | None:
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


def _say_nothing(_what: str) -> None:
    return
