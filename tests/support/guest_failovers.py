"""A real guest that writes without pause, while the storage process is killed, and then its machine is taken from it.

QEMU ▶ SeaBIOS ▶ iPXE ▶ sanboot ▶ Linux, ext4 and a writer of numbered tags
  stall     the storage process is killed and started again: how long does the writer wait?
  clean     what its file system is in between, its journal replayed, by e2fsck
  moved     the machine is killed, or loses its server while it lives and its power switch is broken: the server comes
            up on the other, with all that was acknowledged, and nothing that the old one writes is added
"""

import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from panloom.lab.image import SECTOR_OCTETS, WRITER_RING
from support.lab import ONE, LabInTest, pan
from support.volume_reader import read_volume
from support.waiting import until

SERVER, VOLUME = "shop/web1", "shop.web1"
MOST_STALL_SECONDS = 10.0
Ring = Mapping[int, tuple[int, int]]
"""Sector → epoch and number of what was written there."""
_ENTRY = struct.Struct("<8xII")  # of a partition: first sector, sectors
_SECOND_PARTITION = 446 + 16
FITS_NOWHERE = pan(servers="web1", address="10.1.0.11", more="needs: {memory: 1TiB}")
"""The server as no machine of the lab can carry it."""
_WRITES = 5  # after which it counts as writing again


def newest(ring: Ring, epoch: int) -> int:
    """Return the last number of an epoch, -1 for none."""
    return max((number for known, number in ring.values() if known == epoch), default=-1)


def gone(read: Callable[[], Ring], epoch: int) -> set[int]:
    """Return the numbers that are not on the disk, though later ones of the epoch are.

    Its writer waits for each write, so none may be missing but the last.  While it writes, one reading is not enough:
    where the writer overtakes the reader, sectors were read before they were written, and later ones after.  What a
    first reading missed like that is there before a second one begins; what is really gone is missing in both.
    """
    return _missing(read(), epoch) & _missing(read(), epoch)


def _missing(ring: Ring, epoch: int) -> set[int]:
    last = newest(ring, epoch)
    wanted = range(max(0, last - len(WRITER_RING) + 2), last)
    place = WRITER_RING.start
    return {number for number in wanted if ring.get(place + number % len(WRITER_RING)) != (epoch, number)}


def added(before: Ring, after: Ring, epoch: int) -> set[int]:
    """Return the numbers of an epoch that stand in a later reading and did not stand in an earlier one."""
    new = (written for sector, written in after.items() if before.get(sector) != written)
    return {number for known, number in new if known == epoch}


class GuestFailovers:
    """One guest on one of two machines; ``round`` takes its disk away, and then its machine."""

    def __init__(self, lab: LabInTest, directory: Path) -> None:
        self._lab = lab
        self._copy = directory / "partition.img"
        self._boots = 0
        self.stalls: list[float] = []
        self.moves: list[float] = []
        self.violations: list[str] = []
        self._epoch = 1

    def begin(self) -> None:
        """Boot the guest, and wait until it writes."""
        self._lab.apply(ONE)
        self._settle(set())

    def round(self, *, seconds: float, lives: bool) -> None:
        """Take away the disk, and then the machine, which ``lives`` on or not; wait up to ``seconds`` for each."""
        self.lose_the_disk(seconds=seconds)
        self.lose_the_machine(seconds=seconds, lives=lives)

    def lose_the_disk(self, *, seconds: float) -> None:
        """Kill the storage process and start it again."""
        lab = self._lab
        before = self._newest()
        lab.call(lab.lab.kill("storage"))
        began, at_kill = time.monotonic(), self._newest()
        if at_kill < before:
            self.violations.append(f"the storage process was killed, and writes {at_kill + 1} to {before} are gone")
        self._check_ring("after the storage process was killed")
        self._check_file_system()
        down = time.monotonic()
        lab.call(lab.lab.start_storage())
        until(lambda: self._newest() > at_kill + _WRITES, "the guest writes again", seconds=seconds)
        self.stalls.append(time.monotonic() - down)
        if self.stalls[-1] > MOST_STALL_SECONDS:
            self.violations.append(
                f"the guest waited {self.stalls[-1]:.1f} s for its disk, {down - began:.1f} s before"
            )
        self._check_ring("after the storage process came back")

    def lose_the_machine(self, *, seconds: float, lives: bool) -> None:
        """Kill the guest's machine, or take the server from it by a fail-over that cannot switch it off."""
        lab = self._lab
        node = lab.server(SERVER)["node"]
        lab.until_adopted(node)
        before, since = self._newest(), lab.last_event()
        if lives:
            lab.apply(FITS_NOWHERE)
            lab.power(node, "refuse")
            lab.call(lab.lab.post("servers", *SERVER.split("/"), "failover"))
        else:
            lab.power(node, "kill")
        lost = time.monotonic()
        lab.until_event("fenced", after=since, seconds=seconds, text="drain writes", server=SERVER)
        at_fence, old = lab.tags(VOLUME), self._epoch
        if newest(at_fence, old) < before:
            self.violations.append(f"the machine was fenced, and writes after {newest(at_fence, old)} are gone")
        if missing := _missing(at_fence, old):
            self.violations.append(f"the machine was fenced, and writes {sorted(missing)} of epoch {old} are gone")
        if lives:
            self._shut_out(node, at_fence, since, seconds)
            lab.apply(ONE)
            lost = time.monotonic()
        self._settle({node}, seconds=seconds)
        self.moves.append(time.monotonic() - lost)
        if lives:
            self._switch_off(node, seconds)
        if late := added(at_fence, lab.tags(VOLUME), old):
            self.violations.append(f"{node} was fenced, and its writes {sorted(late)} of epoch {old} came after that")
        self._check_ring("after the machine was lost")

    def _shut_out(self, node: str, at_fence: Ring, since: int, seconds: float) -> None:
        """Wait until the old machine was refused its disk, for which it asks while it lives."""
        lab, epoch = self._lab, self._epoch

        def ends() -> bool:
            refused = lab.events("login refused", after=since, node=node)
            return bool(refused or added(at_fence, lab.tags(VOLUME), epoch))

        until(ends, f"{node} is refused its disk, or writes to it", seconds=seconds)
        if sessions := lab.call(lab.lab.sessions_of(node)):
            self.violations.append(f"{node} was fenced and has sessions: {sessions}")

    def _switch_off(self, node: str, seconds: float) -> None:
        lab = self._lab
        lab.power(node, "obey")
        lab.power(node, "kill")
        until(lambda: lab.node(node)["state"] == "spare", f"{node} is a spare again", seconds=seconds)

    def _settle(self, not_on: set[str], *, seconds: float = 120.0) -> None:
        lab = self._lab
        row = lab.until_up(SERVER, not_on=not_on, seconds=seconds)
        node, self._epoch = row["node"], row["epoch"]
        page = lab.until_answers(SERVER, epoch=self._epoch, seconds=seconds)
        self._boots += 1
        if int(page["boots"]) != self._boots:
            self.violations.append(f"the disk knows of {page['boots']} boots, and there were {self._boots}")
            self._boots = int(page["boots"])
        lab.until_adopted(node)
        until(lambda: self._newest() > _WRITES, "the guest writes", seconds=seconds)

    def _newest(self) -> int:
        return newest(self._lab.tags(VOLUME), self._epoch)

    def _check_ring(self, when: str) -> None:
        """None that was written is gone, but the one under way, and none is of an epoch to come."""
        missing = gone(lambda: self._lab.tags(VOLUME), self._epoch)
        if missing:
            self.violations.append(f"{when}: writes {sorted(missing)} of epoch {self._epoch} are gone")
        if any(epoch > self._epoch for epoch, _ in self._lab.tags(VOLUME).values()):
            self.violations.append(f"{when}: writes of an epoch that is not yet")

    def _check_file_system(self) -> None:
        """Copy the guest's file system while nobody can write to it, replay its journal, and have e2fsck look."""
        directory = self._lab.lab.directory / "volumes"
        first, sectors = _ENTRY.unpack(read_volume(directory, VOLUME, range(512))[_SECOND_PARTITION:][:16])
        octets = range(first * SECTOR_OCTETS, (first + sectors) * SECTOR_OCTETS)
        self._copy.write_bytes(read_volume(directory, VOLUME, octets))
        subprocess.run(["e2fsck", "-y", "-E", "journal_only", self._copy], capture_output=True, check=False)
        looked = subprocess.run(["e2fsck", "-f", "-n", self._copy], capture_output=True, check=False)
        if looked.returncode:
            said = looked.stdout.decode(errors="replace").strip().splitlines()
            self.violations.append(f"the guest's file system is not clean: {said[-5:]}")
