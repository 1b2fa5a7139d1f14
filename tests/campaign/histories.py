"""Histories of several initiators at one unit, with kills in between: is there an order that explains each answer?"""

import random
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from campaign.tally import Tally
from panloom.storage.volume_store import VolumeStore
from panloom.values import Iqn
from support import slow_file_system
from support.shared_unit import Registers, Reservations, play
from support.target_process import TargetProcess

QUESTION = "Is every history of COMPARE AND WRITE and of reservations that of one unit, kills included?"
CALLS = 2000  # of one history
KILLS = 3  # in one history
OCTETS = 1 << 20
SECONDS = 0.15  # of calls before a kill, at most


class SharedTarget:
    """``panloom target`` with one volume, killed and started again; ``slow``: a file on a disk that takes long."""

    def __init__(self, directory, *, slow=False):
        self._directory, self._slow = directory, slow
        store = VolumeStore(directory / "store")
        store.create("v", None, OCTETS)
        store.shut_down()
        with (directory / "disk").open("wb") as file:
            file.truncate(OCTETS)
        (directory / "delay").write_text("0.002")
        self._process = None

    def start(self):
        """Start it, on whatever port is free."""
        if self._slow:
            prefix = slow_file_system.command(self._directory)
            self._process = TargetProcess(self._directory, "--lun", f"1={self._directory}/slow/disk", prefix=prefix)
        else:
            arguments = ("--store", str(self._directory / "store"), "--lun", "1=volume:v")
            self._process = TargetProcess(self._directory, *arguments)
        self.portal = "127.0.0.1", self._process.ports[0]
        self.target = Iqn(self._process.iqn)

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self._process.process.kill()
        self._process.process.wait()


@contextmanager
def serving(*, slow=False):
    """Lend a target."""
    with tempfile.TemporaryDirectory(prefix="panloom-histories-") as directory:
        target = SharedTarget(Path(directory), slow=slow)
        target.start()
        try:
            yield target
        finally:
            target.kill()


def examine(kind, seed, *, calls=CALLS, kills=KILLS, slow=False):
    """Play a history of a kind, "registers" or "reservations"; return it, and the first answer that is wrong."""
    chance = random.Random(seed)
    with serving(slow=slow) as target:
        played = Registers(1, chance) if kind == "registers" else Reservations(1, chance, durable=True)
        for _ in range(kills):
            play(played, target, calls, kill_after=chance.uniform(0.01, SECONDS))
            target.start()
        play(played, target, max(1, calls - len(played.history.calls)))
        return played.history, played.wrong()


class Histories:
    """The campaign: so many histories, half of each kind."""

    def __init__(self, wanted, seed, *, fresh=False):
        self._wanted, self._seed = wanted, seed
        self._tally = Tally("histories", {"seed": seed, "calls": CALLS, "kills": KILLS}, fresh=fresh)
        for kind in ("registers", "reservations"):
            self._tally.done.setdefault(kind, {"histories": 0, "calls": {}, "cut_off": 0, "wrong": []})

    @property
    def violations(self):
        """The answers that no order explains."""
        return [each for kind in self._tally.done.values() for each in kind["wrong"]]

    def _count(self):
        return sum(kind["histories"] for kind in self._tally.done.values())

    def run(self, until):
        """Play them all, or until a monotonic time; return whether all were."""
        while (number := self._count()) < self._wanted:
            if time.monotonic() > until:
                return False
            kind = ("registers", "reservations")[number % 2]
            history, wrong = examine(kind, self._seed * 1_000_000 + number)
            done = self._tally.done[kind]
            done["histories"] += 1
            done["cut_off"] += sum(call.result is None for call in history.calls)
            for what, count in history.done.items():
                done["calls"][what] = done["calls"].get(what, 0) + count
            if wrong:
                done["wrong"].append({"history": number, "call": repr(wrong)})
                print(f"VIOLATION history {number} of {kind}: {wrong}", flush=True)
            self._tally.save()
            if number % 10 == 9:
                print(self, flush=True)
        return True

    def __str__(self):
        wrong = len(self.violations)
        return f"{self._count()} of {self._wanted} histories, {wrong} wrong, {self._tally.seconds:.0f} s"

    def report(self, path):
        """Write the result down."""
        goals = {"histories": f">= {self._wanted}", "wrong": 0}
        self._tally.report(path, QUESTION, goals, self._tally.done)
