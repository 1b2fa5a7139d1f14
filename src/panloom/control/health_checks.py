"""Whether servers are well: what their documents' ``health:`` asks, tried again and again beside all other work.

trouble_of(server …) ──▶ None    not known yet: a try is under way
                         ""      the last try passed
                         text    what the last try met
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable

from panloom.control.programs import run
from panloom.errors import UnavailableError
from panloom.model.resources import Health

CONNECT_SECONDS, COMMAND_SECONDS = 3.0, 20.0
PAUSE_SECONDS = 0.5
_log = logging.getLogger("panloom.control")


class HealthChecks:
    """Tries of checks, one at a time for each subject; ``done`` is called after each."""

    def __init__(self, done: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._done = done
        self._clock = clock
        self._tries: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, str] = {}
        self._tried_at: dict[str, float] = {}

    def trouble_of(self, subject: str, health: Health, server: str, address: str, node: str) -> str | None:
        """Return what the last try for a subject met, and begin another if it is time.

        A subject is one server under one epoch: what was found of an earlier one says nothing.
        """
        last = self._tried_at.get(subject)
        if subject not in self._tries and (last is None or self._clock() - last >= PAUSE_SECONDS):
            self._tries[subject] = asyncio.create_task(self._try(subject, health, server, address, node))
        return self._troubles.get(subject)

    def forget(self, known: frozenset[str]) -> None:
        """Forget all subjects but these."""
        for subject in {*self._tries, *self._troubles} - known:
            task = self._tries.pop(subject, None)
            if task is not None:
                task.cancel()
            self._troubles.pop(subject, None)
            self._tried_at.pop(subject, None)

    async def _try(self, subject: str, health: Health, server: str, address: str, node: str) -> None:
        trouble = ""
        try:
            if health.tcp is not None:
                await _connect(address, health.tcp)
            if health.command is not None:
                await _command(health.command, server, address, node)
        except UnavailableError as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - the top of this task: after a fault of ours it is tried again
            _log.exception("health=%s", subject)
            trouble = f"the check failed ({type(error).__name__}: {error}); see the control process's log"
        self._troubles[subject] = trouble
        self._tried_at[subject] = self._clock()
        self._tries.pop(subject, None)
        self._done()


async def _connect(address: str, port: int) -> None:
    if not address:
        raise UnavailableError("it has no address whose port could be asked")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError) as error:
        why = os.strerror(error.errno) if error.errno else "no answer"  # asyncio has a text of its own
        raise UnavailableError(f"port {port} of {address}: {why}") from error
    writer.close()


async def _command(path: str, server: str, address: str, node: str) -> None:
    code, said = await run((path, server, address, node), path, seconds=COMMAND_SECONDS)
    if code != 0:
        raise UnavailableError(f"{path}: {said.splitlines()[-1][:200] if said else f'exit code {code}'}")
