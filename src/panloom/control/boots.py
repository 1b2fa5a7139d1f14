"""How far each machine's boot has come, told by the services that it passes on its way.

    power ─▶ dhcp ─▶ script ─▶ login ─▶ first read ─▶ kernel ─▶ userland

A boot begins with a power-on, or with a DHCP request later than the stages known (a machine that restarts itself).
``kernel`` is the login of the operating system's own initiator, ``userland`` the first beacon.  The last boot of each
machine is kept in the store when it reaches userland; one under way lives in memory, since a machine half-way says
its next stage soon enough.
"""

import time

import msgspec

from panloom.decide.records import BootRecord
from panloom.errors import UnavailableError
from panloom.state.contract import Store

STAGES = ("power", "dhcp", "script", "login", "first read", "kernel", "userland")
PREFIX = "/record/boot/"


class Boot:
    """One boot under way; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.began_wall = time.time()
        self.stages: list[tuple[str, float]] = []
        self.progress_at = now
        self.server: str | None = None
        self.epoch = 0

    def record(self) -> BootRecord:
        """Return it as it is kept."""
        stages = tuple((stage, round(at - self.began, 3)) for stage, at in self.stages)
        return BootRecord(at=self.began_wall, stages=stages, server=self.server, epoch=self.epoch)


class Boots:
    """The last boot of every machine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._boots: dict[str, Boot] = {}

    def reached(self, node: str, stage: str, at: float, *, server: str | None = None, epoch: int = 0) -> bool:
        """Note that a machine reached a stage at ``at``; False if that was known already."""
        boot = self._boots.get(node)
        position = STAGES.index(stage)
        passed = max((STAGES.index(known) for known, _ in boot.stages), default=-1) if boot else -1
        if boot is None or stage == "power" or (stage == "dhcp" and passed > STAGES.index("dhcp") + 1):
            boot = self._boots[node] = Boot(at)
        elif position <= passed:
            boot.progress_at = max(boot.progress_at, at) if stage == "dhcp" else boot.progress_at
            return False
        boot.stages.append((stage, at))
        boot.progress_at = max(boot.progress_at, at)
        boot.server = server or boot.server
        boot.epoch = epoch or boot.epoch
        return True

    def passed(self, node: str, stage: str) -> bool:
        """Whether a machine's boot under way has reached a stage."""
        boot = self._boots.get(node)
        return boot is not None and any(known == stage for known, _ in boot.stages)

    def stalled_seconds(self, node: str, since: float, now: float) -> float:
        """Return for how long a machine has reached no stage, counted from ``since`` at the earliest."""
        boot = self._boots.get(node)
        return now - max(since, boot.progress_at if boot else since)

    async def of(self, node: str) -> BootRecord | None:
        """Return a machine's last boot, None if none was seen."""
        if node in self._boots:
            return self._boots[node].record()
        entry = await self._store.get(PREFIX + node)
        return msgspec.json.decode(entry.value, type=BootRecord) if entry else None

    async def keep(self, node: str) -> None:
        """Write a machine's last boot down; a store that is not there loses nothing but history."""
        if node in self._boots:
            try:
                await self._store.commit(put={PREFIX + node: msgspec.json.encode(self._boots[node].record())})
            except UnavailableError:
                return
