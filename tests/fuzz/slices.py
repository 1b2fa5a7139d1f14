"""A slice of fuzzing of one target, in a process of its own: libFuzzer ends the process that it runs in."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ONE = Path(__file__).parent / "one.py"
STARTING_SECONDS = 120  # on a busy machine, beside the slice itself


class Slice(NamedTuple):
    """What came of it; ``report`` tells of the input that broke something, and how to run it again."""

    target: str
    executions: int
    holds: bool
    report: str


def run_slice(target: str, *, seconds: int, seed: int, corpus: Path) -> Slice:
    """Fuzz ``target`` for ``seconds``, beginning with its seeds and what is in ``corpus``."""
    options = ("--seconds", str(seconds), "--seed", str(seed), "--corpus", str(corpus))
    before = set(corpus.glob("broken-*"))
    done = subprocess.run(
        (sys.executable, "-W", "error", str(ONE), target, *options),
        capture_output=True, text=True, errors="replace", timeout=seconds + STARTING_SECONDS, check=False,
    )  # fmt: skip
    executions = re.search(r"number_of_executed_units: ([0-9]+)", done.stderr + done.stdout)
    report = "" if done.returncode == 0 else done.stderr[-3000:]
    if report and "\nagain: " not in report:  # a hang or too much memory: libFuzzer ended it, and kept the input
        kept = [path.read_bytes().hex() for path in set(corpus.glob("broken-*")) - before]
        report += "".join(f"\nagain: scripts/run python {ONE} {target} --input {octets}" for octets in kept)
    return Slice(target, int(executions[1]) if executions else 0, done.returncode == 0, report)
