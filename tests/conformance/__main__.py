"""Hold the target to libiscsi's 230 tests:  make conformance

    python tests/conformance [--peer tgtd] [--seed N] [--rounds N] [--only FAMILY] [--json FILE]

Each test runs with every profile of LUN: alone in a process of its own, then all in one process, then alone again in
shuffled orders, always on the same target, so that what one test leaves behind befalls the next.  Profiles run side by
side, with a target each.  A test counts as passed if it passes with one profile and ends badly with none.  Status 1 if
one ends badly, has not the same verdict each time, or fewer than 225 pass.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance import peers
from conformance.held import hold
from conformance.report import table, whole_report
from conformance.suite import names

FEWEST = 225  # of 230


def main() -> int:
    """Run everything, print the table, and write the result."""
    parser = argparse.ArgumentParser(
        prog="python tests/conformance", description="Hold the target to libiscsi's tests."
    )
    parser.add_argument(
        "--peer", choices=["tgtd", ""], default="", help="run tgtd too, in place of what is known of it"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first shuffled order (1)")
    parser.add_argument("--rounds", type=int, default=2, help="shuffled orders (2)")
    parser.add_argument("--only", metavar="FAMILY", help="one family, such as Inquiry")
    parser.add_argument("--json", type=Path, help="where the result goes")
    chosen = parser.parse_args()
    tests = tuple(name for name in names() if chosen.only in (None, name.partition(".")[0]))
    with tempfile.TemporaryDirectory() as directory, peers.ours(Path(directory)) as target:
        ours = hold(target, tests, whole=chosen.only is None, seed=chosen.seed, rounds=chosen.rounds, tell=_tell)
    other = None
    if chosen.peer:
        with tempfile.TemporaryDirectory() as directory, peers.tgtd(Path(directory)) as target:
            other = hold(target, tests, whole=False, seed=chosen.seed, rounds=0, tell=_tell)
    print(table(ours, other))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(whole_report(ours, other, vars(chosen)))
    fewest = FEWEST if chosen.only is None else 0
    return 0 if not ours.bad and not ours.unsteady and ours.passed >= fewest else 1


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
