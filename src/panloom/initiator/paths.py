"""Several ways to one unit: portals of targets that serve the same device, so that one goes on where another ends.

connection breaks ──▶ the next portal ──▶ takes a connection? ──▶ login; what was not answered is sent again
                          ▲                    no │
                          └──── the one after ◀───┘
"""

import asyncio
import socket
from collections import deque
from contextlib import ExitStack

from panloom.errors import UnavailableError


class Paths:
    """The ``connect`` of a ``Session`` that has several portals, (address, port) each; the first one is asked first.

    A portal that took the connection and broke it, or answered no login, is asked last the next time.  Where a target
    sends the session on to is no portal of these, and is gone to as it is.
    """

    def __init__(self, *portals: tuple[str, int]) -> None:
        """ValueError without a portal."""
        if not portals:
            raise ValueError("name a portal")
        self._turns = deque(portals)
        self.here: tuple[str, int] | None = None  # the portal that took the last connection

    async def __call__(self, address: str, port: int) -> socket.socket:
        """Return a connection to whichever takes one; UnavailableError says why none does."""
        if (address, port) not in self._turns:
            self.here = None
            return await _connection((address, port))
        troubles = []
        for _ in range(len(self._turns)):
            portal = self._turns[0]
            self._turns.rotate(-1)  # however it ends, also by the time that the session gives it
            try:
                made = await _connection(portal)
            except OSError as error:
                troubles.append(f"{portal[0]}:{portal[1]}: {error.strerror or error}")
            else:
                self.here = portal
                return made
        raise UnavailableError("; ".join(troubles))


async def _connection(portal: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in portal[0] else socket.AF_INET)
    made.setblocking(False)
    with ExitStack() as opened:
        opened.callback(made.close)
        await asyncio.get_running_loop().sock_connect(made, portal)
        opened.pop_all()
    return made
