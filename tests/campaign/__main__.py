"""Let everything go wrong that can:  make campaign

    python tests/campaign [PART …] [--states N] [--seed N] [--seconds N] [--fresh]
    python tests/campaign --again volumes:17

A part that is stopped, by Ctrl-C or after ``--seconds``, goes on from there the next time, as long as the code is the
same.  Each that has come to its end writes its result below bench/results.  Status 1 if a promise was broken.
"""

import argparse
import logging
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign import faults
from campaign.failovers import Failovers
from campaign.faults import Faults
from campaign.histories import Histories
from campaign.kills import Kills
from campaign.mutants import Mutants
from campaign.netboots import NetBoots
from campaign.planted import Planted
from campaign.states import States, examine
from campaign.tally import ROOT

PARTS = ("states", "faults", "mutants", "kills", "histories", "netboots", "failovers", "planted")
MUTANT_SECONDS = 60.0  # of stories in which nothing is seen: the mutant survives
RESULTS = ROOT / "bench" / "results"


def main():
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(prog="python tests/campaign", description="Let everything go wrong that can.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{' '.join(PARTS)} (all)")
    parser.add_argument("--states", type=int, default=100_000, help="how many to look at (100,000)")
    parser.add_argument("--kills", type=int, default=1000, help="how many (1,000)")
    parser.add_argument("--histories", type=int, default=200, help="how many (200)")
    parser.add_argument("--boots", type=int, default=500, help="how many (500)")
    parser.add_argument("--failovers", type=int, default=50, help="how many (50)")
    parser.add_argument("--seed", type=int, default=1, help="of the first story (1)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have done")
    parser.add_argument("--again", metavar="KIND:SEED", help="tell one story again, or fault:KIND:NUMBER:WAY")
    chosen = parser.parse_args()
    logging.getLogger("panloom").addHandler(logging.NullHandler())
    logging.getLogger("panloom").propagate = False
    if chosen.again:
        return _again(chosen.again)
    until = time.monotonic() + chosen.seconds
    broken = False
    for part, path in _parts(chosen):
        try:
            whole = part.run(until)
        except KeyboardInterrupt:
            print(f"\nstopped: {part}; the same command goes on from here")
            return 130
        print(part, flush=True)
        if whole:
            part.report(path)
        broken |= bool(part.violations)
    return 1 if broken else 0


def _parts(chosen):
    wanted = chosen.parts or PARTS
    if "states" in wanted:
        yield States(chosen.states, chosen.seed, fresh=chosen.fresh), RESULTS / "crash_campaign.json"
    if "faults" in wanted:
        yield Faults(fresh=chosen.fresh), RESULTS / "crash_faults.json"
    if "mutants" in wanted:
        yield Mutants(MUTANT_SECONDS, fresh=chosen.fresh), RESULTS / "crash_mutants.json"
    if "kills" in wanted:
        yield Kills(chosen.kills, chosen.seed, fresh=chosen.fresh), RESULTS / "kills.json"
    if "histories" in wanted:
        yield Histories(chosen.histories, chosen.seed, fresh=chosen.fresh), RESULTS / "histories.json"
    if "netboots" in wanted:
        yield NetBoots(chosen.boots, chosen.seed, fresh=chosen.fresh), RESULTS / "netboots.json"
    if "failovers" in wanted:
        yield Failovers(chosen.failovers, chosen.seed, fresh=chosen.fresh), RESULTS / "failovers.json"
    if "planted" in wanted:
        yield Planted(fresh=chosen.fresh), RESULTS / "planted_bugs.json"


def _again(story):
    name, _, seed = story.partition(":")
    if name == "fault":
        violation = faults.again(seed)
        print(violation or "nothing is wrong")
        return 1 if violation else 0
    examination = examine(name, int(seed))
    for crash, count in examination.states.items():
        print(f"{count:,} states after {crash}")
    for violation in examination.violations:
        print(f"VIOLATION {violation}")
    return 1 if examination.violations else 0


if __name__ == "__main__":
    sys.exit(main())
