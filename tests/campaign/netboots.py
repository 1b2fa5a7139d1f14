"""One to 64 machines boot from the network at once, a twentieth of the packets lost, the server killed mid-TFTP."""

import statistics
import tempfile
import time
from pathlib import Path

from campaign.tally import Tally
from support.boot_process import MOST
from support.netboots import LOSS_PERCENT, netboots

QUESTION = "Do all machines boot, each under its own address, while packets are lost and the server is killed?"
_OCTETS = 1 << 20  # of the file that each fetches
_SIZES = (1, 2, 4, 8, 16, 32, MOST)
_KILLS = 2  # of a round, while files are on their way
_SECONDS = 300.0  # for a round


class NetBoots:
    """The campaign: so many boots."""

    def __init__(self, wanted, seed, *, fresh=False):
        self._wanted, self._seed = wanted, seed
        self._tally = Tally("netboots", {"seed": seed}, fresh=fresh)
        beginning = {"boots": 0, "attempts": 0, "kills": 0, "rounds": 0, "seconds of boots": {}, "violations": []}
        self._done = self._tally.done
        for what, nothing in beginning.items():
            self._done.setdefault(what, nothing)

    @property
    def violations(self):
        """Wrong octets, and addresses that two machines had."""
        return self._done["violations"]

    def run(self, until):
        """Boot until there were boots enough, or a monotonic time; return whether there were enough."""
        with tempfile.TemporaryDirectory(prefix="panloom-netboots-") as directory:
            seed = self._seed * 1_000_000 + self._done["rounds"]
            with netboots(Path(directory), MOST, octets=_OCTETS, seed=seed) as boots:
                while self._done["boots"] < self._wanted:
                    if time.monotonic() > until:
                        return False
                    self._round(boots, _SIZES[self._done["rounds"] % len(_SIZES)])
                    print(self, flush=True)
        return True

    def _round(self, boots, number):
        before = boots.boots, boots.attempts, boots.kills, len(boots.seconds), len(boots.violations)
        boots.round(number, kills=_KILLS, seconds=_SECONDS)
        for violation in boots.violations[before[4] :]:
            print(f"VIOLATION: {violation}", flush=True)
        self._done["rounds"] += 1
        self._done["boots"] += boots.boots - before[0]
        self._done["attempts"] += boots.attempts - before[1]
        self._done["kills"] += boots.kills - before[2]
        self._done["violations"] += boots.violations[before[4] :]
        took = self._done["seconds of boots"].setdefault(str(number), [])
        took += (round(seconds, 2) for seconds in boots.seconds[before[3] :])
        self._tally.save()

    def __str__(self):
        return (
            f"{self._done['boots']:,} of {self._wanted:,} boots, {self._done['kills']:,} kills, "
            f"{len(self.violations)} violations, {self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        took = self._done["seconds of boots"]
        seconds = {
            f"{number} at once": {"median": statistics.median(each), "longest": max(each)}
            for number, each in took.items()
        }
        result = {
            **self._done,
            "packets lost, in a hundred": LOSS_PERCENT,
            "octets": _OCTETS,
            "seconds of boots": seconds,
        }
        self._tally.report(path, QUESTION, {"boots": f">= {self._wanted}, all of them", "violations": 0}, result)
