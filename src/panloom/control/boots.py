"""How far each machine's boot has come, told by the services that it passes on its way.

    power ─▶ dhcp ─▶ script ─▶ login ─▶ first read ─▶ kernel ─▶ userland

A boot begins with a power-on, or with a DHCP request later than the stages known: a machine that restarts itself.
``kernel`` is what only a kernel prints on the console, or the login of the operating system's own initiator;
``userland`` is a login prompt or the first beacon.  The last boot of each machine is kept in the store, so that a new
control process goes on where the last one saw it.
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
        self.tries = 0
        self.furthest = -1
        """Position of the furthest stage that was reached since the power-on."""

    @property
    def position(self) -> int:
        """Position of the last stage that was reached, -1 for none."""
        return max((STAGES.index(stage) for stage, _ in self.stages), default=-1)

    @classmethod
    def of_record(cls, record: BootRecord) -> "Boot":
        """Return a boot as it was kept; by no wall clock, wherever it was set meanwhile, does it lie in the future."""
        now = time.monotonic()
        boot = cls(now - max(0.0, time.time() - record.at))
        boot.began_wall = record.at
        boot.stages = [(stage, boot.began + seconds) for stage, seconds in record.stages]
        boot.server, boot.epoch, boot.tries = record.server, record.epoch, record.tries
        boot.furthest = boot.position
        return boot

    def record(self) -> BootRecord:
        """Return it as it is kept."""
        stages = tuple((stage, round(at - self.began, 3)) for stage, at in self.stages)
        return BootRecord(self.began_wall, stages, server=self.server, epoch=self.epoch, tries=self.tries)


def _begun_again(before: Boot, at: float) -> Boot:
    """Return a boot of a machine that restarted itself: anew when it had come up, else one more try."""
    boot = Boot(at)
    if before.position < len(STAGES) - 1:
        boot.tries, boot.furthest = before.tries + 1, before.furthest
    return boot


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
        """Note that a machine reached a stage at ``at``; False if that is no news, nor was it in an earlier try."""
        self.progress.reached(node, stage, at)
        boot = self._boots.get(node)
        position = STAGES.index(stage)
        if boot is None or stage == "power":
            boot = self._boots[node] = Boot(at)
        elif stage == "dhcp" and boot.position > position + 1:
            boot = self._boots[node] = _begun_again(boot, at)
        elif position <= boot.position:
            return self._fill_in(node, boot, stage, at)
        boot.stages.append((stage, at))
        boot.server = server or boot.server
        boot.epoch = epoch or boot.epoch
        is_news = position > boot.furthest
        boot.furthest = max(boot.furthest, position)
        self._unwritten.add(node)
        return is_news

    def _fill_in(self, node: str, boot: Boot, stage: str, at: float) -> bool:
        """Note a stage whose news was overtaken by that of a later one: two witnesses are not heard in order."""
        position = STAGES.index(stage)
        later = next(i for i, (known, _) in enumerate(boot.stages) if STAGES.index(known) >= position)
        if boot.stages[later][0] == stage or at > boot.stages[later][1]:
            return False
        boot.stages.insert(later, (stage, at))
        self._unwritten.add(node)
        return boot.tries == 0

    def passed(self, node: str, stage: str) -> bool:
        """Whether a machine's boot under way has reached a stage."""
        boot = self._boots.get(node)
        return boot is not None and any(known == stage for known, _ in boot.stages)

    def reached_by_console(self, node: str, stage: str, at: float) -> bool:
        """Note a stage that the console tells of; the last words of the boot before this one tell of none."""
        boot = self._boots.get(node)
        return boot is not None and boot.position > STAGES.index("dhcp") and self.reached(node, stage, at)

    def under_way(self, node: str) -> Boot | None:
        """Return a machine's last boot with its times on our own clock, None if none was seen."""
        return self._boots.get(node)

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
