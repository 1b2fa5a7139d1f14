"""How far each machine's boot has come, told by the services that it passes on its way.

    power ─▶ dhcp ─▶ script ─▶ login ─▶ first read ─▶ kernel ─▶ userland

A boot begins with a power-on, or with a DHCP request later than the stages known (a machine that restarts itself).
``kernel`` is the login of the operating system's own initiator, ``userland`` the first beacon.  The last boot of each
machine is kept in the store, so that a new control process goes on where the last one saw it.
"""

import time

import msgspec

from panloom.decide.boot_progress import BootProgress
from panloom.decide.records import STAGES, BootRecord
from panloom.state.contract import Store

PREFIX = "/record/boot/"


class Boot:
    """One boot under way; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.began_wall = time.time()
        self.stages: list[tuple[str, float]] = []
        self.server: str | None = None
        self.epoch = 0

    @classmethod
    def of_record(cls, record: BootRecord) -> "Boot":
        """Return a boot as it was kept; by no wall clock, wherever it was set meanwhile, does it lie in the future."""
        now = time.monotonic()
        boot = cls(now - max(0.0, time.time() - record.at))
        boot.began_wall = record.at
        boot.stages = [(stage, boot.began + seconds) for stage, seconds in record.stages]
        boot.server, boot.epoch = record.server, record.epoch
        return boot

    def record(self) -> BootRecord:
        """Return it as it is kept."""
        stages = tuple((stage, round(at - self.began, 3)) for stage, at in self.stages)
        return BootRecord(at=self.began_wall, stages=stages, server=self.server, epoch=self.epoch)


class Boots:
    """The last boot of every machine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._boots: dict[str, Boot] = {}
        self._unwritten: set[str] = set()
        self.progress = BootProgress(STAGES)

    async def load(self) -> None:
        """Read what an earlier process wrote; call it once, before anything is reached."""
        for entry in (await self._store.range(PREFIX)).entries:
            record = msgspec.json.decode(entry.value, type=BootRecord)
            self._boots[entry.key.removeprefix(PREFIX)] = Boot.of_record(record)

    def reached(self, node: str, stage: str, at: float, *, server: str | None = None, epoch: int = 0) -> bool:
        """Note that a machine reached a stage at ``at``; False if that was known already."""
        self.progress.reached(node, stage, at)
        boot = self._boots.get(node)
        position = STAGES.index(stage)
        passed = max((STAGES.index(known) for known, _ in boot.stages), default=-1) if boot else -1
        if boot is None or stage == "power" or (stage == "dhcp" and passed > STAGES.index("dhcp") + 1):
            boot = self._boots[node] = Boot(at)
        elif position <= passed:
            return False
        boot.stages.append((stage, at))
        boot.server = server or boot.server
        boot.epoch = epoch or boot.epoch
        self._unwritten.add(node)
        return True

    def passed(self, node: str, stage: str) -> bool:
        """Whether a machine's boot under way has reached a stage."""
        boot = self._boots.get(node)
        return boot is not None and any(known == stage for known, _ in boot.stages)

    def of(self, node: str) -> BootRecord | None:
        """Return a machine's last boot, None if none was seen."""
        boot = self._boots.get(node)
        return boot.record() if boot else None

    async def write(self) -> None:
        """Write down the boots that have come further; UnavailableError leaves them to the next call."""
        records = {node: self._boots[node].record() for node in self._unwritten}
        if records:
            await self._store.commit(
                put={PREFIX + node: msgspec.json.encode(record) for node, record in records.items()}
            )
            # Some may have come further while it was written.
            self._unwritten -= {node for node, record in records.items() if record == self._boots[node].record()}
