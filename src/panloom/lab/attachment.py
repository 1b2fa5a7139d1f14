"""What a kernel does with a target: log in, and log in again for as long as the machine runs, whatever happens.

    log in ──▶ attached ── the session is over: refused, or away for too long ──▶ log in …
       ▲ └─ refused: again in a second        │ reads and writes wait, and are done then
       └──────────────────────────────────────┘

A shorter outage is the session's own business (``panloom.initiator``).
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from panloom.errors import PanloomError
from panloom.initiator import Session

AGAIN_SECONDS = 1.0
Result = TypeVar("Result")


class Attachment:
    """A target that a machine is attached to; an asynchronous context manager.  ``say`` is the console.

    It begins with ``session``, if there is one already.
    """

    def __init__(
        self,
        target: str,
        log_in: Callable[[], Awaitable[Session]],
        say: Callable[[str], None],
        session: Session | None = None,
    ) -> None:
        self._target = target
        self._log_in = log_in
        self._say = say
        self._session = session

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = await self._logged_in()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.abort()

    async def keep(self) -> None:
        """Come back whenever the session is over, until cancelled."""
        while self._session is not None:
            await self._session.ended()
            self._say(f"PANLOOM lost {self._target}")
            self._session = await self._logged_in()

    async def read(self, lun: int, offset: int, octets: int) -> bytes:
        """Return octets, however long that takes."""
        return await self._insist(lambda session: session.read(lun, offset, octets))

    async def write(self, lun: int, offset: int, data: bytes, *, fua: bool) -> None:
        """Write octets, however long that takes."""
        await self._insist(lambda session: session.write(lun, offset, data, fua=fua))

    async def _logged_in(self) -> Session:
        while True:
            try:
                return await self._log_in()
            except (PanloomError, OSError) as error:
                self._say(f"PANLOOM waits for {self._target}: {error}")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _insist(self, act: Callable[[Session], Awaitable[Result]]) -> Result:
        while True:
            try:
                if self._session is not None:
                    return await act(self._session)
            except PanloomError as error:
                self._say(f"PANLOOM input or output error on {self._target}: {error}")
            await asyncio.sleep(AGAIN_SECONDS)
