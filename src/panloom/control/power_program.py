"""Power drivers that run a program for each act: one of the administrator's, or ipmitool.

    ScriptDriver    PATH on|off|reset|status NAME        status prints ``on`` or ``off``
    IpmiDriver      ipmitool -I lanplus … chassis power on|off|reset|status

Exit code 0 means done; with any other the last line of what the program said is the reason.  That a machine is off, or
on, is believed only when its status says so afterwards: a management controller answers ``off`` before it is.
A program that does not end in time, or keeps its output open, has failed; it is killed with all that it started.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from panloom.control.programs import run
from panloom.errors import UnavailableError
from panloom.model.resources import IpmiPower, ScriptPower

CALL_SECONDS = 20.0
REACH_SECONDS = 20.0
"""How long a machine may take to be off, or on, once it was told to."""
ASK_SECONDS = 0.5


class ProgramDriver(ABC):
    """Four verbs, each a run of a program; ``arguments`` gives it for an action."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def arguments(self, action: str) -> Sequence[str]:
        """Return the program and its arguments for ``on``, ``off``, ``reset`` or ``status``."""

    async def on(self) -> None:
        """Switch the machine on and return when it is on."""
        await self._reach(True)

    async def off(self) -> None:
        """Switch the machine off and return when its status says that it is off."""
        await self._reach(False)

    async def reset(self) -> None:
        """Make the machine start from its firmware again."""
        await self._run("reset")

    async def status(self) -> bool:
        """Return whether the machine is on."""
        said = (await self._run("status")).lower().split()
        state = said[-1] if said else ""
        if state not in ("on", "off"):
            raise UnavailableError(f"{self.name}: its power status is {' '.join(said)[:80]!r}, neither on nor off")
        return state == "on"

    async def _reach(self, on: bool) -> None:
        word = "on" if on else "off"
        await self._run(word)
        try:
            async with asyncio.timeout(REACH_SECONDS):
                while True:
                    if await self.status() is on:
                        return
                    await asyncio.sleep(ASK_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                f"{self.name} was told to go {word} and is not {word} after {REACH_SECONDS:g} s"
            ) from None

    async def _run(self, action: str) -> str:
        arguments = self.arguments(action)
        code, text = await run(arguments, f"{arguments[0]} {action}", seconds=CALL_SECONDS)
        if code != 0:
            why = text.splitlines()[-1][:200] if text else f"exit code {code}"
            raise UnavailableError(f"{self.name}: power {action} failed: {why}")
        return text


class ScriptDriver(ProgramDriver):
    """A machine that a program of the administrator's switches."""

    def __init__(self, power: ScriptPower) -> None:
        super().__init__(power.name)
        self._path = power.path

    def arguments(self, action: str) -> Sequence[str]:
        """Return the program, the action and the machine's name."""
        return (self._path, action, self.name)


class IpmiDriver(ProgramDriver):
    """A machine with a management controller; the password never stands among the arguments."""

    def __init__(self, power: IpmiPower) -> None:
        super().__init__(f"{power.address}:{power.port}")
        self._power = power

    def arguments(self, action: str) -> Sequence[str]:
        """Return ipmitool's arguments; UnavailableError if others than the owner can read the password."""
        power = self._power
        try:
            mode = Path(power.password_file).stat().st_mode
        except OSError as error:
            raise UnavailableError(f"{power.password_file} cannot be read: {error.strerror}") from error
        if mode & 0o077:
            raise UnavailableError(f"{power.password_file} can be read by others; mend it: chmod 600")
        where = ("-I", "lanplus", "-H", str(power.address), "-p", str(power.port), "-N", "2", "-R", "3")
        cipher = () if power.cipher_suite is None else ("-C", str(power.cipher_suite))
        return ("ipmitool", *where, *cipher, "-U", power.user, "-f", power.password_file, "chassis", "power", action)
