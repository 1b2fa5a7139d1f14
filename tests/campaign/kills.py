"""kill -9 of the storage process a thousand times under load, and of tgtd, which must pass the same checker."""

import tempfile
import time
from pathlib import Path

from campaign.tally import Tally
from support.kill_rounds import KillRounds
from support.killed_targets import OurStorage, Tgtd

QUESTION = "Is all that was answered there after kill -9 under load?"
OF_ONE_PROCESS = 25  # kills, with one directory
CONTROL = 20  # kills of tgtd


class Kills:
    """The campaign: so many kills, each time at another instant."""

    def __init__(self, wanted, seed, *, fresh=False):
        self._wanted, self._seed = wanted, seed
        self._tally = Tally("kills", {"seed": seed}, fresh=fresh)
        for name in ("panloom", "tgtd"):
            self._tally.done.setdefault(name, {"kills": 0, "commands": {}, "verified": 0, "violations": []})

    @property
    def violations(self):
        """All that was lost, torn or foreign."""
        return [each for name in ("panloom", "tgtd") for each in self._tally.done[name]["violations"]]

    def run(self, until):
        """Kill until there were kills enough, or a monotonic time; return whether there were enough."""
        for name, kind, wanted in (("tgtd", Tgtd, CONTROL), ("panloom", OurStorage, self._wanted)):
            while self._tally.done[name]["kills"] < wanted:
                if time.monotonic() > until:
                    return False
                self._some(name, kind, min(OF_ONE_PROCESS, wanted - self._tally.done[name]["kills"]))
                print(self, flush=True)
        return True

    def _some(self, name, kind, kills):
        done = self._tally.done[name]
        with tempfile.TemporaryDirectory(prefix="panloom-kills-") as directory, kind(Path(directory)) as target:
            rounds = KillRounds(target, self._seed * 1_000_000 + done["kills"])
            for _ in range(kills):
                rounds.round()
        for violation in rounds.violations:
            print(f"VIOLATION {name}: {violation}", flush=True)
        done["kills"] += kills
        done["verified"] += rounds.verified
        done["violations"] += rounds.violations
        counted = {**rounds.done, "blocks answered": rounds.answered, "blocks cut off": rounds.unanswered}
        for what, count in counted.items():
            done["commands"][what] = done["commands"].get(what, 0) + count
        self._tally.save()

    def __str__(self):
        ours, theirs = self._tally.done["panloom"]["kills"], self._tally.done["tgtd"]["kills"]
        return (
            f"{ours:,} of {self._wanted:,} kills, {theirs} of tgtd, {len(self.violations)} violations, "
            f"{self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        self._tally.report(path, QUESTION, {"kills": f">= {self._wanted}", "violations": 0}, self._tally.done)
