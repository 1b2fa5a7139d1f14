"""The supervisor: owns the chassis and its machines, and is to them what a BMC is to a server.

    panloom.lab.supervisor --socket power.sock --chassis chassis.json --console DIR

It makes the bridge and the ports, starts a QEMU process for each machine that is switched on, writes down what its
serial line says, and answers on a Unix socket, one JSON line each way:

    {"id": 1, "call": "power", "node": "n1", "action": "on"}   →   {"id": 1, "ok": {"power": "on"}}
    {"id": 2, "call": "watch"}                        →   {"event": "power", "node": "n1", "power": "off", "at": …}

    on · off · reset · status      what any power driver asks; ``off`` answers when the process is gone
    kill · stop · continue         faults for tests: the power fails; the machine hangs; it goes on
    refuse · obey                  the power switch is broken, and is mended: ``off`` and ``reset`` fail in between
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from panloom.errors import PanloomError, UnavailableError
from panloom.fabric.links import Links, changes
from panloom.lab.chassis import Chassis
from panloom.lab.console import ConsoleLog
from panloom.lab.qemu import Machine, command_line, kvm_is_usable

_log = logging.getLogger("panloom.supervisor")
_MAX_LINE_OCTETS = 1 << 16


class Socket:
    """One machine's place in the chassis: a QEMU process while it is on."""

    def __init__(self, machine: Machine, console: Path, changed: Callable[[str, bool], None]) -> None:
        self.machine = machine
        self._console = console
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._refuses = False
        self._lock = asyncio.Lock()

    @property
    def is_on(self) -> bool:
        """Whether its process lives."""
        return self._process is not None

    async def act(self, action: str) -> bool:
        """Do what is asked; return whether the machine is on then.  UnavailableError if it cannot be done."""
        async with self._lock:
            match action:
                case "on":
                    await self._on()
                case "off" | "kill":
                    self._check_switch(action)
                    await self._off()
                case "reset":
                    self._check_switch(action)
                    await self._off()
                    await self._on()
                case "stop":
                    self._send(signal.SIGSTOP)
                case "continue":
                    self._send(signal.SIGCONT)
                case "refuse" | "obey":
                    self._refuses = action == "refuse"
                case "status":
                    pass
                case _:
                    raise UnavailableError(f"a power socket does not know {action!r}")
        return self.is_on

    def _check_switch(self, action: str) -> None:
        if self._refuses and action != "kill":
            raise UnavailableError(f"the power switch of {self.machine.name} is broken")

    def _send(self, number: signal.Signals) -> None:
        if self._process is None:
            raise UnavailableError(f"{self.machine.name} is off")
        self._process.send_signal(number)

    async def _on(self) -> None:
        if self._process is not None:
            return
        # A boot ROM gives up for good when its line is dead, so the line comes before the power.
        self._process = await asyncio.create_subprocess_exec(
            *command_line(self.machine, kvm=kvm_is_usable()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._ending = asyncio.create_task(self._attend(self._process), name=f"machine {self.machine.name}")
        _log.info("node=%s power=on pid=%d", self.machine.name, self._process.pid)
        self._changed(self.machine.name, True)

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        with ConsoleLog(self._console) as console:
            while process.stdout is not None and (octets := await process.stdout.read(4096)):
                console.write(octets, time.time())
        status = await process.wait()
        self._process = None
        _log.info("node=%s power=off status=%d", self.machine.name, status)
        self._changed(self.machine.name, False)

    async def _off(self) -> None:
        if self._process is None or self._ending is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._ending


class Supervisor:
    """Serves the power socket for all machines of a chassis."""

    def __init__(self, chassis: Chassis, console: Path) -> None:
        self._watchers: set[asyncio.StreamWriter] = set()
        self._sockets = {
            machine.name: Socket(machine, console / f"{machine.name}.log", self._changed)
            for machine in chassis.machines
        }

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen on a Unix socket that only our own user may use."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._converse, path, limit=_MAX_LINE_OCTETS)
        path.chmod(0o600)
        return server

    async def stop(self) -> None:
        """Switch every machine off."""
        await asyncio.gather(*(socket.act("kill") for socket in self._sockets.values()))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line, writer)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError) as error:
            _log.info("caller=gone why=%r", str(error))
        finally:
            self._watchers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            return {"id": None, "error": f"no JSON object in the line: {error}"}
        number = request.get("id")
        match request:
            case {"call": "watch"}:
                self._watchers.add(writer)
                return {"id": number, "ok": {name: "on" if s.is_on else "off" for name, s in self._sockets.items()}}
            case {"call": "power", "node": str(node), "action": str(action)} if node in self._sockets:
                try:
                    on = await self._sockets[node].act(action)
                except (UnavailableError, OSError) as error:
                    return {"id": number, "error": str(error)}
                return {"id": number, "ok": {"power": "on" if on else "off"}}
            case {"call": "power", "node": node}:
                return {"id": number, "error": f"there is no machine {node!r} in this chassis"}
        return {"id": number, "error": "a request is a call of power or watch"}

    def _changed(self, node: str, on: bool) -> None:
        event = {"event": "power", "node": node, "power": "on" if on else "off", "at": time.monotonic()}
        for writer in self._watchers:
            writer.write(msgspec.json.encode(event) + b"\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; then switch everything off and return the exit status."""
    parser = argparse.ArgumentParser(prog="panloom.lab.supervisor", description="Own the machines of a chassis.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--chassis", type=Path, required=True)
    parser.add_argument("--console", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    try:
        asyncio.run(_serve(options))
    except (PanloomError, OSError, msgspec.DecodeError) as error:
        print(f"panloom.lab.supervisor: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    chassis = msgspec.json.decode(options.chassis.read_bytes(), type=Chassis)
    options.console.mkdir(parents=True, exist_ok=True)
    wanted, names = chassis.links(), chassis.link_names()
    async with Links() as links:
        await links.apply(changes(await links.observe(names), wanted))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervisor = Supervisor(chassis, options.console)
    server = await supervisor.serve(options.socket)
    _log.info("supervisor=ready machines=%d", len(chassis.machines))
    try:
        await stop.wait()
    finally:
        server.close()
        await supervisor.stop()


if __name__ == "__main__":
    sys.exit(main())
