"""Every place that makes something durable is taken out, one at a time, and stories are told until one fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

from campaign.states import KINDS
from campaign.survivors import REASONS
from campaign.tally import Tally
from support.crash.chapter import Examination, in_memory
from support.crash.mutants import noting, without_syncs_under
from support.crash.places import in_source, named_calls

QUESTION = "Would a sync that was forgotten be noticed?"
SHARE = 0.95
LIMIT = 4
MOMENTS = 0.1  # share of those at which nothing is promised: another story shows more than the rest of this one
FIRST_SEED = 500
STORIES = 60  # of each kind, to see which places they come by


def survey(stories=STORIES):
    """Return which stories come by which call, as kind and seed."""
    where = {}
    with in_memory() as directory:
        for name, (kind, _) in KINDS.items():
            for seed in range(FIRST_SEED, FIRST_SEED + stories):
                seen, place = set(), directory / f"{name}-{seed}"
                place.mkdir()
                with noting(seen):
                    kind(place, seed, steps=10).tell()
                for call in seen:
                    where.setdefault(call, []).append((name, seed))
    return where


def hunt(place, stories, seconds):
    """Take a call's syncs out and tell some stories; return what was seen first, or None."""
    begun = time.monotonic()
    with in_memory() as directory:
        examination = Examination(directory)
        for name, seed in stories:
            if time.monotonic() - begun > seconds:
                return None
            with without_syncs_under(place):
                examination.tell(KINDS[name][0], seed, limit=LIMIT, share=MOMENTS)
            if examination.violations:
                return f"{name}: {examination.violations[0]}"
    return None


def hunt_by_kind(names, seconds):
    """Tell stories of some kinds, of code that is changed already; return what was seen first, or None."""
    begun = time.monotonic()
    with in_memory() as directory:
        examination = Examination(directory)
        for seed in range(FIRST_SEED, FIRST_SEED + STORIES):
            for name in names:
                if time.monotonic() - begun > seconds:
                    return None
                examination.tell(KINDS[name][0], seed, limit=LIMIT, share=MOMENTS)
                if examination.violations:
                    return f"{name}: {examination.violations[0]}"
    return None


class Mutants:
    """The campaign; a place that nothing is seen of in so many seconds survives."""

    violations = ()

    def __init__(self, seconds_each, *, fresh=False):
        self._seconds_each = seconds_each
        self._tally = Tally("mutants", {"seconds_each": seconds_each, "limit": LIMIT, "share": MOMENTS}, fresh=fresh)
        self._where = {}
        self._places = []

    def run(self, until):
        """Hunt them all, or until a monotonic time; return whether all were."""
        self._where = survey()
        calls = sorted({*self._where, *named_calls()})
        self._places = [*calls, *in_source()]
        for place in self._places:
            name = f"{place.kind} {place}"
            if name in self._tally.done:
                continue
            if time.monotonic() > until:
                return False
            begun = time.monotonic()
            seen = self._hunt(place)
            self._tally.done[name] = {
                "place": str(place), "kind": place.kind, "text": place.text, "caught": seen is not None,
                "seen": seen, "seconds": round(time.monotonic() - begun, 1),
            }  # fmt: skip
            self._tally.save()
            print(f"{'caught  ' if seen else 'SURVIVED'} {name}  {place.text[:60]}", flush=True)
        return True

    def _hunt(self, place):
        if place.kind == "call":
            return hunt(place, self._where.get(place, ()), self._seconds_each)
        command = (sys.executable, str(Path(__file__).parent / "one_mutant.py"), str(place), str(self._seconds_each))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def _survivors(self):
        survivors = [each for each in self._tally.done.values() if not each["caught"]]
        for each in survivors:
            each["reason"] = REASONS.get((each["place"].partition(":")[0], each["text"]), "not known")
        return survivors

    def __str__(self):
        caught = len(self._tally.done) - len(self._survivors())
        return f"{caught} of {len(self._tally.done)} mutants caught, {self._tally.seconds:.0f} s"

    def report(self, path):
        """Write the result down."""
        survivors = self._survivors()
        total = len(self._tally.done)
        result = {
            "mutants": total,
            "caught": total - len(survivors),
            "share": round(1 - len(survivors) / total, 4),
            "survivors": survivors,
            "places": list(self._tally.done.values()),
        }
        self._tally.report(path, QUESTION, {"share": f">= {SHARE}"}, result)
