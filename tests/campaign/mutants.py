"""Every place that makes something durable is taken out, one at a time: first scenes, then stories, until one fails.

caught        something that was promised is not so
equivalent    nothing can be: for a reason (``survivors``), and where that is another sync, without both it is seen
survived      neither
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from campaign.states import KINDS
from campaign.survivors import REASONS
from campaign.tally import Tally
from support.crash import scenes
from support.crash.chapter import Examination, in_memory
from support.crash.mutants import noting, without_syncs_under
from support.crash.places import in_source, named_calls

QUESTION = "Would a sync that was forgotten be noticed?"
SHARE = 0.95
LIMIT = 4
MOMENTS = 0.1  # share of those at which nothing is promised: another story shows more than the rest of this one
FIRST_SEED = 500
EQUIVALENT_SECONDS = 20.0  # of stories in which nothing can be seen
STORIES = 60  # of each kind, to see which places they come by


def survey(stories=STORIES):
    """Return which scenes and stories come by which call, as kind and name or seed."""
    where = {}
    with in_memory() as directory:
        for name in scenes.SCENES:
            seen, place = set(), directory / name
            place.mkdir()
            with noting(seen):
                scenes.tell(name, place)
            for call in seen:
                where.setdefault(call, []).append(("scene", name))
        for name, (kind, _) in KINDS.items():
            for seed in range(FIRST_SEED, FIRST_SEED + stories):
                seen, place = set(), directory / f"{name}-{seed}"
                place.mkdir()
                with noting(seen):
                    kind(place, seed, steps=10).tell()
                for call in seen:
                    where.setdefault(call, []).append((name, seed))
    return where


def hunt(places, stories, seconds):
    """Take the syncs of some calls out and tell some stories; return what was seen first, or None."""
    with without_syncs_under(*places):
        return _hunt(stories, seconds)


def hunt_by_kind(names, seconds):
    """Tell scenes, and stories of some kinds, of code that is changed already; return what was seen first, or None."""
    stories = [(name, seed) for seed in range(FIRST_SEED, FIRST_SEED + STORIES) for name in names]
    return _hunt([*(("scene", name) for name in scenes.SCENES), *stories], seconds)


def _hunt(stories, seconds):
    begun = time.monotonic()
    with in_memory() as directory:
        examination = Examination(directory)
        for kind, name in stories:
            if time.monotonic() - begun > seconds:
                return None
            if kind == "scene":
                scenes.examine(examination, name)
            else:
                examination.tell(KINDS[kind][0], name, limit=LIMIT, share=MOMENTS)
            if examination.violations:
                return f"{name if kind == 'scene' else kind}: {examination.violations[0]}"
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
            reason = reason_of(place)
            seen = self._hunt(place, min(self._seconds_each, EQUIVALENT_SECONDS) if reason else self._seconds_each)
            self._tally.done[name] = {
                "place": str(place), "kind": place.kind, "function": place.function, "text": place.text,
                "caught": seen is not None, "seen": seen, **self._excuse(place, reason if seen is None else None),
                "seconds": round(time.monotonic() - begun, 1),
            }  # fmt: skip
            self._tally.save()
            print(f"{self._verdict(self._tally.done[name])} {name}  {place.text[:60]}", flush=True)
        return True

    def _hunt(self, place, seconds):
        if place.kind == "call":
            return hunt([place], self._where.get(place, ()), seconds)
        command = (sys.executable, str(Path(__file__).parent / "one_mutant.py"), str(place), str(seconds))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def _excuse(self, place, reason):
        """Return why it is no fault that nothing is seen, and what is seen without those that stand in for it, too."""
        if reason is None:
            return {}
        if not reason.beside:
            return {"reason": reason.why}
        both = [place, *(other for other in self._places if key_of(other) in reason.beside)]
        stories = dict.fromkeys(story for each in both for story in self._where.get(each, ()))
        return {"reason": reason.why, "without_both": hunt(both, stories, self._seconds_each)}

    @staticmethod
    def _verdict(done):
        if done["caught"]:
            return "caught    "
        return "equivalent" if done.get("reason") and done.get("without_both", "") is not None else "SURVIVED  "

    def _counts(self):
        return Counter(self._verdict(each).strip().lower() for each in self._tally.done.values())

    def __str__(self):
        counts = self._counts()
        return (
            f"{counts['caught']} of {counts['caught'] + counts['survived']} mutants caught, "
            f"{counts['equivalent']} are equivalent, {self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        counts = self._counts()
        done = [{**each, "verdict": self._verdict(each).strip().lower()} for each in self._tally.done.values()]
        result = {
            "mutants": len(done),
            **{name: counts[name] for name in ("caught", "equivalent", "survived")},
            "share": round(counts["caught"] / (counts["caught"] + counts["survived"]), 4),
            "survivors": [each for each in done if not each["caught"]],
            "places": done,
        }
        self._tally.report(path, QUESTION, {"share of those that are not equivalent": f">= {SHARE}"}, result)


def key_of(place):
    """Return how a place is named where lines may change."""
    return place.module.removeprefix("panloom."), place.function, place.text


def reason_of(place):
    """Return why a place may be taken out, None if no reason is known."""
    return REASONS.get(key_of(place))
