"""A real guest's disk and machine are taken away again and again: nothing is lost, and its file system stays clean.

Every other time the machine lives on, and its power switch is broken.
"""

import statistics
import tempfile
import time
from pathlib import Path

from campaign.tally import Tally
from support.guest_failovers import MOST_STALL_SECONDS, GuestFailovers
from support.lab import running_lab

QUESTION = "Does a guest keep its disk and its file system when storage process and machine are killed under it?"
_OF_ONE_LAB = 10  # rounds
_SECONDS = 240.0  # for each thing that is waited for


class Failovers:
    """The campaign: so many rounds of both kills."""

    def __init__(self, wanted, seed, *, fresh=False):
        self._wanted = wanted
        self._tally = Tally("failovers", {"seed": seed}, fresh=fresh)
        self._done = self._tally.done
        for what, nothing in {"rounds": 0, "stalls": [], "moves": [], "violations": []}.items():
            self._done.setdefault(what, nothing)

    @property
    def violations(self):
        """Lost writes, file systems that are not clean, and waits that took too long."""
        return self._done["violations"]

    def run(self, until):
        """Go on until there were rounds enough, or a monotonic time; return whether there were enough."""
        while self._done["rounds"] < self._wanted:
            if not self._some(until):
                return False
        return True

    def _some(self, until):
        """Do the rounds of one lab; return whether there is time for more."""
        with tempfile.TemporaryDirectory(prefix="panloom-failovers-") as name:
            directory = Path(name)
            with running_lab(directory / "lab", nodes=2, writer=True) as lab:
                guest = GuestFailovers(lab, directory)
                guest.begin()
                for _ in range(_OF_ONE_LAB):
                    if self._done["rounds"] >= self._wanted or time.monotonic() > until:
                        break
                    guest.round(seconds=_SECONDS, lives=self._done["rounds"] % 2 == 1)
                    self._note(guest)
        return time.monotonic() <= until

    def _note(self, guest):
        self._done["rounds"] += 1
        self._done["stalls"].append(round(guest.stalls[-1], 2))
        self._done["moves"].append(round(guest.moves[-1], 2))
        for violation in guest.violations:
            print(f"VIOLATION: {violation}", flush=True)
        self._done["violations"] += guest.violations
        guest.violations.clear()
        self._tally.save()
        print(self, flush=True)

    def __str__(self):
        return (
            f"{self._done['rounds']:,} of {self._wanted:,} guests moved, {len(self.violations)} violations, "
            f"{self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        seconds = {
            what: {"median": statistics.median(self._done[what]), "longest": max(self._done[what])}
            for what in ("stalls", "moves")
        }
        result = {
            "rounds": self._done["rounds"],
            "violations": self.violations,
            "seconds until it writes again, storage process restarted": seconds["stalls"],
            "seconds until it answers and writes on the other machine": seconds["moves"],
        }
        goals = {"rounds": f">= {self._wanted}", "violations": 0, "longest stall, seconds": MOST_STALL_SECONDS}
        self._tally.report(path, QUESTION, goals, result)
