"""Recovery runs on what crashes leave, until so many states were seen, no two of a story alike."""

import shutil
import time
from dataclasses import asdict

from campaign.tally import PROGRESS, Tally
from support.crash.chapter import Examination, in_memory
from support.crash.state_story import StateStory
from support.crash.volume_story import VolumeStory

QUESTION = "Does all that was acknowledged survive every crash?"
KINDS = {
    "volumes": (VolumeStory, 0.7),  # images, volumes, exports
    "state": (StateStory, 0.3),  # documents, records, leases, the MAC counter
}
"""Of each kind of story its share of the states."""
LIMIT = 4  # states that a power cut may leave, of one moment


def examine(name, seed):
    """Return what the examination of one story has seen; what broke a promise is kept as files."""
    kind, _ = KINDS[name]
    with in_memory() as directory:
        examination = Examination(directory)
        examination.tell(kind, seed, limit=LIMIT)
    if examination.broken:
        kept = PROGRESS / f"{name}-{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        examination.broken.write_to(kept)
        print(f"what was left there is kept in {kept}", flush=True)
    return examination


class States:
    """The campaign: stories of each kind in turn, from a first seed on."""

    def __init__(self, wanted, seed, *, fresh=False):
        self._wanted = wanted
        self._tally = Tally("states", {"seed": seed, "limit": LIMIT}, fresh=fresh)
        self._seed = seed
        for name in KINDS:
            self._tally.done.setdefault(name, {"stories": 0, "states": {}, "violations": []})

    @property
    def total(self):
        """How many states were seen."""
        return sum(sum(each["states"].values()) for each in self._tally.done.values())

    @property
    def violations(self):
        """All that went wrong, with the command that shows it again."""
        return [violation for each in self._tally.done.values() for violation in each["violations"]]

    def run(self, until):
        """Tell stories until there are states enough, or a monotonic time; return whether there are enough."""
        shown = time.monotonic()
        while self.total < self._wanted:
            if time.monotonic() > until:
                return False
            self._one(min(KINDS, key=self._progress))
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(self, flush=True)
        return True

    def _progress(self, name):
        return sum(self._tally.done[name]["states"].values()) / KINDS[name][1]

    def _one(self, name):
        done = self._tally.done[name]
        seed = self._seed + done["stories"]
        examination = examine(name, seed)
        for violation in examination.violations:
            again = f"python tests/campaign --again {name}:{seed}"
            done["violations"].append({"kind": name, **asdict(violation), "again": again})
            print(f"VIOLATION {name}: {violation}\n  again: scripts/run {again}", flush=True)
        done["stories"] += 1
        for crash, count in examination.states.items():
            done["states"][crash] = done["states"].get(crash, 0) + count
        self._tally.save()

    def __str__(self):
        return (
            f"{self.total:,} of {self._wanted:,} states, {len(self.violations)} violations, {self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        result = {
            "states": self.total,
            "violations": self.violations,
            "seed": self._seed,
            "by_kind": {
                name: {"stories": each["stories"], "states": each["states"]} for name, each in self._tally.done.items()
            },
        }
        self._tally.report(path, QUESTION, {"states": f">= {self._wanted}", "violations": 0}, result)
