"""A real guest that writes without pause, while the storage process is killed, and then its machine.

QEMU ▶ SeaBIOS ▶ iPXE ▶ sanboot ▶ Linux, ext4 and a writer of numbered tags
  stall     the storage process is killed and started again: how long does the writer wait?
  clean     what its file system is in between, its journal replayed, by e2fsck
  moved     the machine is killed: the server comes up on the other, with all that was acknowledged
"""

import struct
import subprocess
import time
from pathlib import Path

from panloom.lab.image import SECTOR_OCTETS, WRITER_RING
from support.lab import ONE, LabInTest
from support.volume_reader import read_volume
from support.waiting import until

SERVER, VOLUME = "shop/web1", "shop.web1"
MOST_STALL_SECONDS = 10.0
_ENTRY = struct.Struct("<8xII")  # of a partition: first sector, sectors
_SECOND_PARTITION = 446 + 16
_WRITES = 5  # after which it counts as writing again


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

    def round(self, *, seconds: float) -> None:
        """Kill the storage process and start it again, then kill the machine; wait up to ``seconds`` for each."""
        lab = self._lab
        node = lab.server(SERVER)["node"]
        lab.call(lab.lab.kill("storage"))
        began, at_kill = time.monotonic(), self._newest()
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
        lab.until_adopted(node)
        lab.power(node, "kill")
        killed = time.monotonic()
        self._settle({node}, seconds=seconds)
        self.moves.append(time.monotonic() - killed)
        self._check_ring("after the machine was killed")

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
        """Return the last counter of this epoch on the disk, -1 for none."""
        return max((count for epoch, count in self._lab.tags(VOLUME).values() if epoch == self._epoch), default=-1)

    def _check_ring(self, when: str) -> None:
        """The writer waits for each write, so only the last one may be missing, and none is of an epoch to come.

        It may write while the ring is read: what is gone must be gone the second time, too.
        """
        gone = self._gone() & self._gone()
        if gone:
            self.violations.append(f"{when}: writes {sorted(gone)} of epoch {self._epoch} are gone")
        if any(epoch > self._epoch for epoch, _ in self._lab.tags(VOLUME).values()):
            self.violations.append(f"{when}: writes of an epoch that is not yet")

    def _gone(self) -> set[int]:
        """Return the numbers that are not on the disk, though later ones are."""
        tags = self._lab.tags(VOLUME)
        last = max((count for epoch, count in tags.values() if epoch == self._epoch), default=-1)
        wanted = range(max(0, last - len(WRITER_RING) + 2), last)
        place = WRITER_RING.start
        return {count for count in wanted if tags.get(place + count % len(WRITER_RING)) != (self._epoch, count)}

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
