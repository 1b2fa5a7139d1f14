"""Every call on a file that a story makes fails once, in each of the ways in which it may fail."""

import ast
import gc
import shutil
import time
from collections import Counter

from campaign.tally import Tally
from panloom.errors import PanloomError
from support.crash.chapter import Examination, in_memory
from support.crash.fault_story import FaultStory
from support.crash.faults import WAYS, name_of
from support.crash.places import DISK_MODULES, path_of
from support.crash.state_fault_story import StateFaultStory

QUESTION = "Is anything false answered, or anybody else held up, when a call on a file fails?"
KINDS = {"volumes": (FaultStory, 1), "state": (StateFaultStory, 3)}
"""Stories, and the seed that each is told by."""
STEPS = 8
LIMIT = 2  # states that a power cut may leave, of one moment after the fault
SHARE = 0.1  # of the moments at which nothing is promised


def survey(directory, kind):
    """Return each way in which a call of a story may fail: its number, the call, the way."""
    calls = _told(directory, kind)[0].injector.calls
    ways = ((number, call, way) for number, call in enumerate(calls) for way in WAYS[call.name])
    return [each for each in ways if each[1].site or not isinstance(each[2], str)]  # SQLite itself does the rest


def strike(directory, kind, number, call, way):
    """Let one call fail; return what is wrong then, None if nothing is, and how many states were looked at."""
    try:
        story, chapter = _told(directory, kind, number=number, name=call.name, way=way)
    except (AssertionError, PanloomError, OSError) as error:
        return f"while it was told: {error!r}", 0
    if story.injector.struck is None:
        return "no such call was made", 0
    examination = Examination(directory)
    examination.examine([chapter], number, limit=LIMIT, first=story.injector.logged, share=SHARE)
    return (str(examination.violations[0]) if examination.violations else None), examination.states.total()


def _told(directory, kind, **fault):
    story_of, seed = KINDS[kind]
    gc.collect()  # what stories before have left open is closed now, and not by calls that this one would count
    gc.disable()  # nor does it close what it has left open itself when the collector happens to come by
    place = directory / "story"
    place.mkdir()
    try:
        story = story_of(place, seed, steps=STEPS, **fault)
        return story, story.tell()
    finally:
        shutil.rmtree(place)
        gc.enable()


def sites():
    """Return every line that makes a system call on a file, as module:line."""
    return {
        f"{module}:{node.lineno}"
        for module in DISK_MODULES
        for node in ast.walk(ast.parse(path_of(module).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "system_calls.kernel"
    }


class Faults:
    """The campaign: call after call, way after way."""

    def __init__(self, *, fresh=False):
        self._tally = Tally("faults", {"steps": STEPS, "limit": LIMIT, "share": SHARE}, fresh=fresh)
        self._wanted = 0

    @property
    def violations(self):
        """All that went wrong, with the command that shows it again."""
        return [each for each in self._tally.done.values() if each["violation"]]

    def run(self, until):
        """Let all calls fail, or until a monotonic time; return whether all did."""
        shown = time.monotonic()
        with in_memory() as directory:
            wanted = [(kind, *each) for kind in KINDS for each in survey(directory, kind)]
            self._wanted = len(wanted)
            for kind, number, call, way in wanted:
                key = f"{kind}:{number}:{name_of(way)}"
                if key in self._tally.done:
                    continue
                if time.monotonic() > until:
                    return False
                violation, states = strike(directory, kind, number, call, way)
                self._tally.done[key] = {
                    "call": call.name, "way": name_of(way), "site": str(call.site), "caller": str(call.caller),
                    "states": states, "violation": violation,
                }  # fmt: skip
                if violation:
                    self._tally.done[key]["again"] = f"python tests/campaign --again fault:{key}"
                    print(f"VIOLATION fault {key} {call.name} {call.caller}: {violation}", flush=True)
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    self._tally.save()
                    print(self, flush=True)
        self._tally.save()
        return True

    def __str__(self):
        return (
            f"{len(self._tally.done)} of {self._wanted} faults, {len(self.violations)} violations, "
            f"{self._tally.seconds:.0f} s"
        )

    def report(self, path):
        """Write the result down."""
        done = self._tally.done.values()
        reached = {":".join(each["site"].split(":")[:2]) for each in done if each["site"] != "None"}
        result = {
            "faults": len(done),
            "violations": self.violations,
            "states": sum(each["states"] for each in done),
            "sites": len(sites()),
            "sites_that_no_story_comes_by": sorted(sites() - reached),
            "callers": len({(each["site"], each["caller"]) for each in done}),
            "by_call": {name: dict(Counter(e["way"] for e in done if e["call"] == name)) for name in WAYS},
        }
        self._tally.report(path, QUESTION, {"violations": 0}, result)


def again(key):
    """Let one call fail again; return what is wrong then."""
    kind, number, wanted = key.split(":")
    with in_memory() as directory:
        (fault,) = (each for each in survey(directory, kind) if each[0] == int(number) and name_of(each[2]) == wanted)
        return strike(directory, kind, *fault)[0]
