"""Does every way to boot still lead to its end, and how long does each take on this machine?

    scripts/run python bench/boot_routes.py [--rounds N] [--json FILE] [ROUTE…]

A route is a file of tests that boots machines: firmware of its own, real Linux or Debian, one after the other, each in
a process of its own, those too that ``make test`` leaves out.  ``make long`` takes them all; a Debian that an earlier
run has built is kept in .cache/tests.
"""

import subprocess
import sys
import time
from typing import Any

from measuring import ROOT, Round, arguments, medians, report

QUESTION = "Does every way to boot still lead to its end, and how long does each take on this machine?"
WITHIN_SECONDS = 3600.0
TOLD_LINES = 3


def routes() -> list[str]:
    """Return the files of tests that boot machines."""
    marked = (path for path in (ROOT / "tests").glob("*/test_*.py") if _boots(path.read_text()))
    return sorted(str(path.relative_to(ROOT / "tests")) for path in marked)


def _boots(text: str) -> bool:
    return "pytest.mark.machine" in text or "pytest.mark.long" in text


def run(route: str) -> dict[str, Any]:
    """Run a route; its seconds, or how it failed."""
    command = (sys.executable, "-m", "pytest", "-q", "-n0", "-m", "long or not long", f"tests/{route}")
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not at its end within {WITHIN_SECONDS:g} s"}
    said = done.stdout.strip().splitlines()[-TOLD_LINES:]
    if done.returncode:
        return {"error": " / ".join(said)}
    return {"seconds": {"whole": time.monotonic() - began}, "said": said[-1] if said else ""}


def main() -> int:
    parser = arguments(QUESTION, rounds=1)
    parser.add_argument(
        "routes", nargs="*", metavar="ROUTE", help="paths below tests/ (default: all that boot machines)"
    )
    options = parser.parse_args()
    rounds: list[Round] = []
    for number in range(options.rounds):
        rounds.append({})
        for route in options.routes or routes():
            found = rounds[-1][route] = run(route)
            told = found.get("error") or f"{found['seconds']['whole']:.1f} s"
            print(f"round {number + 1} of {options.rounds}: {route}: {told}", file=sys.stderr, flush=True)
    whole = report(options, QUESTION, rounds, {"goals": {}, "median_seconds": medians(rounds), "ratios": {}})
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
