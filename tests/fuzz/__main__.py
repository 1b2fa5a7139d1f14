"""Fuzz every target for a slice of time each, two at a time:  make fuzz SECONDS=3600

    python tests/fuzz [TARGET …] [--seconds N] [--seed N] [--pdus N]

``live`` is a target of another kind: a process that serves, and so many PDUs are said to it (``fuzz.live``).

What reaches something new is kept in .cache/fuzz/TARGET and is where the next run begins.  Status 1, with each input
that broke something in hexadecimal and the command that runs it again, if there is any.
"""

import argparse
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.tally import ROOT
from fuzz.live import LiveFuzz
from fuzz.slices import Slice, run_slice
from fuzz.target import every_target

LIVE = "live"
CORPUS = Path(__file__).parents[2] / ".cache" / "fuzz"
AT_A_TIME = 2


def main() -> int:
    """Run the targets and tell of each in a line."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description="Fuzz every target.")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=600, help="for all of them together (600)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pdus", type=int, default=1_000_000, help="for a live target (1,000,000)")
    chosen = parser.parse_args()
    names = [name for name in chosen.targets if name != LIVE]
    if not chosen.targets:
        names = [target.name for target in every_target()]
    each = max(chosen.seconds * AT_A_TIME // max(len(names), 1), 1)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = pool.map(lambda name: run_slice(name, seconds=each, seed=chosen.seed, corpus=CORPUS / name), names)
        broken = [_tell(run) for run in runs].count(False)
    print(f"{len(names)} targets, {broken} broken")
    if not chosen.targets or LIVE in chosen.targets:
        live = LiveFuzz(chosen.pdus)
        live.run(math.inf)
        print(live)
        live.report(ROOT / "bench" / "results" / "fuzz_live.json")
        broken += bool(live.findings)
    return 1 if broken else 0


def _tell(run: Slice) -> bool:
    print(f"{run.target:22} {run.executions:>10,} executions  {'holds' if run.holds else 'BROKEN'}", flush=True)
    if not run.holds:
        print(run.report, flush=True)
    return run.holds


if __name__ == "__main__":
    sys.exit(main())
