"""An emulated machine: the same boot as a machine of QEMU, over the same network, in a fraction of a second.

    power on ─▶ Firmware: DHCP, script, login ─▶ OperatingSystem: personality, disk, page, beacons, load
    power off: its port passes nothing more, and all it knew is forgotten

``SharedBay`` runs it among others in the supervisor's process; this module as a program runs one alone, on namespaces
whose descriptors it inherits, so that it can be killed:

    panloom.lab.emulated --name n1 --mac 52:54:00:77:00:01 --namespaces 7,8 [--load-seconds S] [--memory-octets N]
        [--initiator IQN] [--initiators 1|2]
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from panloom.control.console_log import ConsoleLog
from panloom.lab.bay import Bay, ProcessBay
from panloom.lab.board import Bench, Board
from panloom.lab.emulated_os import OperatingSystem
from panloom.lab.firmware import Firmware
from panloom.lab.qemu import WITH_PARENT, Machine
from panloom.values import MacAddress


async def live(machine: Machine, board: Board, say: Callable[[str], None]) -> None:
    """Be a machine from power-on until cancelled."""
    firmware = Firmware(machine, board, say)
    disk = await firmware.boot()
    system = OperatingSystem(board, disk, say, load_seconds=machine.load_seconds, session=firmware.session())
    await system.run()


class SharedBay(Bay):
    """A machine that is a task of this process while it is on."""

    def __init__(
        self, machine: Machine, console: Path, changed: Callable[[str, bool], None], board: Board, bench: Bench
    ) -> None:
        super().__init__(machine, console, changed)
        self._board = board
        self._bench = bench
        self._task: asyncio.Task[None] | None = None

    @property
    def _runs(self) -> bool:
        return self._task is not None

    async def _on(self) -> None:
        if not self.is_on:
            await self._board.forget()
            await self._bench.open(self.machine.tap)
            self._task = asyncio.create_task(self._live(), name=f"machine {self.machine.name}")
            self._changed(self.machine.name, True)

    async def _live(self) -> None:
        with ConsoleLog(self.console) as console:

            def say(line: str) -> None:
                octets = f"{line}\r\n".encode()
                self._said(octets)
                console.write(octets, time.time())

            try:
                await live(self.machine, self._board, say)
            except Exception as error:  # noqa: BLE001 - the task's top guard: a machine that crashes stays on, and silent
                for cause in _causes(error):
                    say(f"PANLOOM failed={type(cause).__name__}: {cause}")

    async def _off(self) -> None:
        if self._task is not None:
            await self._bench.close(self.machine.tap)
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            self._changed(self.machine.name, False)

    async def _hang(self, *, hangs: bool) -> None:
        await (self._bench.close if hangs else self._bench.open)(self.machine.tap)


def _causes(error: Exception) -> list[Exception]:
    """Return what is wrong, of what went wrong in several tasks."""
    if isinstance(error, ExceptionGroup):
        return [cause for member in error.exceptions for cause in _causes(member)]
    return [error]


class LoneBay(ProcessBay):
    """A machine that is a process of its own while it is on, for tests that kill it."""

    def __init__(
        self, machine: Machine, console: Path, changed: Callable[[str, bool], None], board: Board, bench: Bench
    ) -> None:
        super().__init__(machine, console, changed, self._command_line, keep=board.descriptors)
        self._board = board
        self._bench = bench

    def _command_line(self) -> Sequence[str]:
        return (
            *(*WITH_PARENT, sys.executable, "-m", "panloom.lab.emulated"),
            *("--name", self.machine.name, "--mac", self.machine.mac),
            *("--namespaces", ",".join(map(str, self._board.descriptors))),
            *("--load-seconds", str(self.machine.load_seconds)),
            *("--memory-octets", str(self.machine.memory_octets), "--initiator", self.machine.initiator),
            *("--initiators", str(self.machine.initiators)),
        )

    async def _on(self) -> None:
        if not self.is_on:
            await self._board.forget()
            await self._bench.open(self.machine.tap)
            await super()._on()

    async def _off(self) -> None:
        await self._bench.close(self.machine.tap)
        await super()._off()

    async def _died(self) -> None:
        await self._bench.close(self.machine.tap)

    async def _hang(self, *, hangs: bool) -> None:
        await (self._bench.close if hangs else self._bench.open)(self.machine.tap)
        await super()._hang(hangs=hangs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one machine until killed."""
    parser = argparse.ArgumentParser(prog="panloom.lab.emulated", description="Be one machine of a chassis.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--mac", type=MacAddress.parse, required=True)
    parser.add_argument("--namespaces", required=True)
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--memory-octets", type=int, default=192 << 20)
    parser.add_argument("--initiator", default="")
    parser.add_argument("--initiators", type=int, choices=(1, 2), default=2)
    options = parser.parse_args(arguments)
    firmware, system = map(int, options.namespaces.split(","))
    board = Board(options.mac, (firmware, system))
    machine = Machine(
        name=options.name,
        mac=str(options.mac),
        tap="",
        memory_octets=options.memory_octets,
        load_seconds=options.load_seconds,
        initiator=options.initiator,
        initiators=options.initiators,
    )
    asyncio.run(live(machine, board, _say))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
