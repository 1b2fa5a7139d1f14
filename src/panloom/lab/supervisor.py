"""The supervisor: owns the chassis and its machines, and is to them what a BMC is to a server.

    panloom.lab.supervisor --socket power.sock --chassis chassis.json --console DIR

It makes the bridge and the ports, runs the machines that are switched on (a QEMU process each, emulated ones as tasks
of its own), writes down what their serial lines say, and answers on a Unix socket, one JSON line each way:

    {"id": 1, "call": "power", "node": "n1", "action": "on"}   →   {"id": 1, "ok": {"power": "on"}}
    {"id": 2, "call": "watch"}                        →   {"event": "power", "node": "n1", "power": "off", "at": …}
    {"id": 3, "call": "console", "node": "n1"}        →   {"id": 3, "ok": {}}, then its serial line, both ways

What can be done to a machine: ``panloom.lab.bay``.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from panloom.errors import PanloomError
from panloom.fabric.links import Links, changes
from panloom.lab.bay import Bay, ProcessBay
from panloom.lab.board import Bench
from panloom.lab.chassis import Chassis
from panloom.lab.emulated import LoneBay, SharedBay
from panloom.lab.qemu import Machine, command_line, kvm_is_usable
from panloom.values import MacAddress

_log = logging.getLogger("panloom.supervisor")
_MAX_LINE_OCTETS = 1 << 16


class Supervisor:
    """Serves the power socket for all machines of a chassis; an asynchronous context manager.

    On entry the machines' cables are plugged in, on exit every machine is switched off.
    """

    def __init__(self, chassis: Chassis, console: Path) -> None:
        self._chassis = chassis
        self._console = console
        self._watchers: set[asyncio.StreamWriter] = set()
        self._attached: dict[asyncio.StreamWriter, Bay] = {}
        self._bays: dict[str, Bay] = {}
        self._bench = Bench(chassis.bridge, chassis.fabrics)

    async def __aenter__(self) -> Self:
        await self._bench.__aenter__()
        for machine in self._chassis.machines:
            self._bays[machine.name] = await self._bay(machine)
        await self._bench.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(bay.act("kill") for bay in self._bays.values()))
        await self._bench.__aexit__(kind, error, trace)

    async def _bay(self, machine: Machine) -> Bay:
        console = self._console / f"{machine.name}.log"
        if machine.kind == "qemu":
            return ProcessBay(machine, console, self._changed, lambda: command_line(machine, kvm=kvm_is_usable()))
        board = await self._bench.plug_in(machine.tap, MacAddress.parse(machine.mac))
        kind = SharedBay if machine.kind == "shared" else LoneBay
        return kind(machine, console, self._changed, board, self._bench)

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen on a Unix socket that only our own user may use."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._converse, path, limit=_MAX_LINE_OCTETS)
        path.chmod(0o600)
        return server

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line, writer)) + b"\n")
                await writer.drain()
                if writer in self._attached:
                    await _type(reader, self._attached[writer])
        except (ConnectionError, ValueError) as error:
            _log.info("caller=gone why=%r", str(error))
        finally:
            self._watchers.discard(writer)
            if writer in self._attached:
                self._attached.pop(writer).unlisten(writer)
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
                return {"id": number, "ok": {name: "on" if bay.is_on else "off" for name, bay in self._bays.items()}}
            case {"call": "power", "node": str(node), "action": str(action)} if node in self._bays:
                try:
                    on = await self._bays[node].act(action)
                except (PanloomError, OSError) as error:
                    return {"id": number, "error": str(error)}
                return {"id": number, "ok": {"power": "on" if on else "off"}}
            case {"call": "console", "node": str(node)} if node in self._bays:
                self._attached[writer] = self._bays[node]
                asyncio.get_running_loop().call_soon(self._bays[node].listen, writer)  # after the answer
                return {"id": number, "ok": {}}
            case {"call": "power" | "console", "node": node}:
                return {"id": number, "error": f"there is no machine {node!r} in this chassis"}
        return {"id": number, "error": "a request is a call of power, watch or console"}

    def _changed(self, node: str, on: bool) -> None:
        event = {"event": "power", "node": node, "power": "on" if on else "off", "at": time.monotonic()}
        for writer in self._watchers:
            writer.write(msgspec.json.encode(event) + b"\n")


async def _type(reader: asyncio.StreamReader, bay: Bay) -> None:
    """Send all that still comes to the machine's serial line."""
    while octets := await reader.read(_MAX_LINE_OCTETS):
        bay.type(octets)


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
    async with Supervisor(chassis, options.console) as supervisor:
        server = await supervisor.serve(options.socket)
        _log.info("supervisor=ready machines=%d", len(chassis.machines))
        await stop.wait()
        server.close()


if __name__ == "__main__":
    sys.exit(main())
