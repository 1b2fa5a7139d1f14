"""A bay: one machine's place in the chassis, with its power switch, its faults and its serial line.

                  ┌ ProcessBay    a process of its own: QEMU, or an emulated machine that tests kill
act("off") ─▶ Bay ┤
                  └ SharedBay     an emulated machine among others in the supervisor's own process

on · off · reset · status      what any power driver asks; ``off`` answers when the machine is gone
kill · stop · continue         faults: the power fails; the machine hangs; it goes on
break · mend                   the machine dies, and when it has power again nothing runs on it; it is repaired
refuse · obey                  the power switch is broken, and is mended: ``off`` and ``reset`` fail in between
"""

import asyncio
import contextlib
import logging
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from panloom.control.console_log import ConsoleLog
from panloom.errors import UnavailableError
from panloom.lab.qemu import Machine

MAX_UNREAD_OCTETS = 1 << 20
_log = logging.getLogger("panloom.supervisor")


class Bay(ABC):
    """One machine's place in the chassis; ``changed(name, is_on)`` is called when its power changes."""

    def __init__(self, machine: Machine, console: Path, changed: Callable[[str, bool], None]) -> None:
        self.machine = machine
        self.console = console
        self._changed = changed
        self._refuses = False
        self._is_broken = False
        self._is_dark = False  # it has power, and nothing runs
        self._listeners: set[asyncio.StreamWriter] = set()
        self._lock = asyncio.Lock()

    @property
    def is_on(self) -> bool:
        """Whether the machine has power; one that crashed or is broken may have."""
        return self._is_dark or self._runs

    @property
    @abstractmethod
    def _runs(self) -> bool: ...

    def listen(self, writer: asyncio.StreamWriter) -> None:
        """Send what the serial line says from now on, until ``unlisten``."""
        self._listeners.add(writer)

    def unlisten(self, writer: asyncio.StreamWriter) -> None:
        """Send it no more."""
        self._listeners.discard(writer)

    def type(self, octets: bytes) -> bool:  # noqa: ARG002
        """Send octets to the serial line; False where there is none, or nobody to read them."""
        return False

    def _said(self, octets: bytes) -> None:
        for writer in self._listeners:
            if writer.transport.get_write_buffer_size() < MAX_UNREAD_OCTETS:  # whoever does not read misses some
                writer.write(octets)

    async def act(self, action: str) -> bool:
        """Do what is asked; return whether the machine is on then.  UnavailableError if it cannot be done."""
        async with self._lock:
            match action:
                case "on":
                    await self._give_power()
                case "off" | "kill" | "break":
                    self._check_switch(action)
                    await self._take_power()
                    self._is_broken |= action == "break"
                case "mend":
                    self._is_broken = False
                case "reset":
                    self._check_switch(action)
                    await self._take_power()
                    await self._give_power()
                case "stop" | "continue":
                    if not self._runs:
                        raise UnavailableError(f"{self.machine.name} is {'broken' if self._is_dark else 'off'}")
                    await self._hang(hangs=action == "stop")
                case "refuse" | "obey":
                    self._refuses = action == "refuse"
                case "status":
                    pass
                case _:
                    raise UnavailableError(f"a power socket does not know {action!r}")
        return self.is_on

    def _check_switch(self, action: str) -> None:
        if self._refuses and action in ("off", "reset"):
            raise UnavailableError(f"the power switch of {self.machine.name} is broken")

    async def _give_power(self) -> None:
        if not self._is_broken:
            await self._on()
        elif not self.is_on:
            self._is_dark = True
            self._changed(self.machine.name, True)

    async def _take_power(self) -> None:
        if self._is_dark:
            self._is_dark = False
            self._changed(self.machine.name, False)
        await self._off()

    @abstractmethod
    async def _on(self) -> None: ...

    @abstractmethod
    async def _off(self) -> None: ...

    @abstractmethod
    async def _hang(self, *, hangs: bool) -> None: ...


class ProcessBay(Bay):
    """A machine that is a process while it is on; its standard input and output are the serial line.

    It inherits the descriptors ``keep``.
    """

    def __init__(
        self,
        machine: Machine,
        console: Path,
        changed: Callable[[str, bool], None],
        command: Callable[[], Sequence[str]],
        *,
        keep: Sequence[int] = (),
    ) -> None:
        super().__init__(machine, console, changed)
        self._command = command
        self._keep = keep
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def _runs(self) -> bool:
        return self._process is not None

    async def _hang(self, *, hangs: bool) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)

    def type(self, octets: bytes) -> bool:
        """Send octets to the serial line; False if the machine is off."""
        if self._process is None or self._process.stdin is None:
            return False
        self._process.stdin.write(octets)
        return True

    async def _on(self) -> None:
        if self._runs or self._is_dark:
            return
        # A boot ROM gives up for good when its line is dead, so the line comes before the power.
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=self._keep,
        )
        self._ending = asyncio.create_task(self._attend(self._process), name=f"machine {self.machine.name}")
        _log.info("node=%s power=on pid=%d", self.machine.name, self._process.pid)
        self._changed(self.machine.name, True)

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        with ConsoleLog(self.console) as console:
            while process.stdout is not None and (octets := await process.stdout.read(4096)):
                self._said(octets)
                console.write(octets, time.time())
        status = await process.wait()
        await self._died()
        self._process = None
        _log.info("node=%s power=off status=%d", self.machine.name, status)
        self._changed(self.machine.name, False)

    async def _died(self) -> None:
        """Do what the end of the process leaves to do; the machine counts as on until then."""

    async def _off(self) -> None:
        if self._process is None or self._ending is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._ending
