"""The node's side of the virtual LANs over the fabrics: it holds its kernel to what the control node says.

datagram ─▶ hear: under the key of this epoch, and newer than the last? ─▶ LanNews ─▶ hold: observe, change, observe
"""

import logging
from pathlib import Path

from panloom.decide.fabric_plan import changes
from panloom.decide.lan_news import LanNews
from panloom.errors import KernelError, PeerError
from panloom.fabric.virtual_lans import VirtualLans

_log = logging.getLogger("panloom.lan_agent")


class LanAgent:
    """One boot of a server.  ``namespace``: its system's, None for this one; ``key``: the beacon key of its epoch."""

    def __init__(self, namespace: Path | None, *, server: str, epoch: int, key: str) -> None:
        self._namespace = namespace
        self._server, self._epoch, self._key = server, epoch, key
        self._counter = 0

    def hear(self, octets: bytes) -> LanNews | None:
        """Return the news that a datagram brings, None if it is not for this boot, not true, or not new."""
        try:
            news = LanNews.decode(octets, self._key)
        except PeerError as error:
            _log.info("news=dropped why=%r", str(error))
            return None
        if (news.server, news.epoch) != (self._server, self._epoch) or news.counter <= self._counter:
            return None
        self._counter = news.counter
        return news

    def hold(self, news: LanNews) -> int:
        """Make the kernel what was told, and return after how many changes; KernelError if it is not so then."""
        with VirtualLans(self._namespace) as kernel:
            plan = changes(kernel.observe(), news.items)
            kernel.apply(plan)
            if plan and (left := changes(kernel.observe(), news.items)):
                raise KernelError(f"the virtual LANs are not what was told: {left[0]}")
            return len(plan)
