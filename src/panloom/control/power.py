"""Power drivers: four verbs towards whatever switches a machine on and off.

    on · off · reset · status        ``off`` returns only when the machine is known to be off

``SocketDriver`` speaks JSON lines over a Unix socket to a supervisor that owns the machines, one line each way:

    {"id": 1, "call": "power", "node": "n1", "action": "off"}   ->   {"id": 1, "ok": {"power": "off"}}

A driver raises ``UnavailableError`` when it cannot say that the act was done.  It never guesses.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from panloom.errors import UnavailableError

CALL_SECONDS = 10.0


class PowerDriver(Protocol):
    """How one machine is switched."""

    async def on(self) -> None:
        """Switch the machine on; nothing happens if it is on."""
        ...

    async def off(self) -> None:
        """Switch the machine off and return when it is off."""
        ...

    async def reset(self) -> None:
        """Make the machine start from its firmware again."""
        ...

    async def status(self) -> bool:
        """Return whether the machine is on."""
        ...


class SocketDriver:
    """A machine whose power is in the hands of a supervisor behind a Unix socket."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name

    async def on(self) -> None:
        """Switch the machine on."""
        await self._act("on")

    async def off(self) -> None:
        """Switch the machine off; the supervisor answers when its process is gone."""
        if await self._act("off"):
            raise UnavailableError(f"{self.name} is still on after its power was cut")

    async def reset(self) -> None:
        """Make the machine start from its firmware again."""
        await self._act("reset")

    async def status(self) -> bool:
        """Return whether the machine is on."""
        return await self._act("status")

    async def kill(self) -> None:
        """Let the machine's power fail, as a supervisor of a lab can: a broken switch does not keep it from that."""
        await self._act("kill")

    async def _act(self, action: str) -> bool:
        answer = await call(self.path, {"call": "power", "node": self.name, "action": action})
        power = answer.get("power")
        if power not in ("on", "off"):
            raise UnavailableError(f"{self.path}: no power state in the answer for {self.name}")
        return bool(power == "on")


async def call(path: str, request: Mapping[str, object]) -> Mapping[str, Any]:
    """Ask a supervisor and return its answer's ``ok``; UnavailableError with its reason, or when it does not answer."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(msgspec.json.encode({"id": 1, **request}) + b"\n")
                answer = msgspec.json.decode(await reader.readline())
            finally:
                writer.close()
    except (OSError, ValueError) as error:  # a time-out is the one, no JSON and an endless line the other
        raise UnavailableError(f"the power supervisor at {path} does not answer: {error!r}") from error
    ok = answer.get("ok") if isinstance(answer, dict) else None
    if not isinstance(ok, dict):
        why = answer.get("error") if isinstance(answer, dict) else answer
        raise UnavailableError(f"{request.get('node')}: {request.get('action')} failed: {why}")
    return ok


async def watch_power(path: str, changed: Callable[[str, bool, float], None]) -> None:
    """Call ``changed(node, on, monotonic seconds)`` for each change a supervisor tells of, until the connection ends.

    ``UnavailableError`` when it cannot be reached or goes away.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(b'{"id":1,"call":"watch"}\n')
            while line := await reader.readline():
                event = msgspec.json.decode(line)
                if isinstance(event, dict) and event.get("event") == "power":
                    changed(str(event["node"]), event["power"] == "on", float(event["at"]))
        finally:
            writer.close()
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UnavailableError(f"the power supervisor at {path} cannot be watched: {error!r}") from error
    raise UnavailableError(f"the power supervisor at {path} went away")
