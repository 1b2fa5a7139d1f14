"""Bugs are planted, one at a time: do the tests find each within five minutes, and pass without it?"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from campaign.planting.bugs import BUGS
from campaign.tally import ROOT, Tally

QUESTION = "Are bugs that have lost data elsewhere found?"
SECONDS = 300.0  # for one bug
PLANTING = Path(__file__).parent / "planting"
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def failure(finder, bug=""):
    """Run a finder, with a bug in where one is named; return what failed first, "" if nothing, None if unknown."""
    environment = {**os.environ, "PYTHONPATH": f"{PLANTING}:{os.environ.get('PYTHONPATH', '')}"}
    environment["PANLOOM_PLANTED_BUG"] = bug
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-n0", *finder.split())
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    failed = _FAILED.search(done.stdout)
    if done.returncode == 0:
        return ""
    return failed[1] if failed and done.returncode == 1 else None


class Planted:
    """The campaign: bug after bug."""

    def __init__(self, *, fresh=False):
        self._tally = Tally("planted", {"bugs": [list(bug) for bug in BUGS.values()]}, fresh=fresh)

    @property
    def violations(self):
        """The bugs that nobody found, and those whose finder fails without them."""
        return [name for name, each in self._tally.done.items() if not (each["found_by"] and each["passes_without"])]

    def run(self, until):
        """Plant them all, or until a monotonic time; return whether all were."""
        for name, bug in BUGS.items():
            if name in self._tally.done:
                continue
            if time.monotonic() > until:
                return False
            begun = time.monotonic()
            found_by = failure(bug.finder, name)
            seconds = round(time.monotonic() - begun, 1)
            self._tally.done[name] = {
                "what": bug.what, "module": bug.module, "edit": [bug.before.strip(), bug.after.strip()],
                "found_by": found_by or None, "seconds": seconds, "passes_without": failure(bug.finder) == "",
            }  # fmt: skip
            self._tally.save()
            print(f"{name}: {found_by or 'NOT FOUND'}, {self._tally.done[name]['seconds']} s", flush=True)
        return True

    def __str__(self):
        return f"{len(self._tally.done) - len(self.violations)} of {len(BUGS)} planted bugs found"

    def report(self, path):
        """Write the result down."""
        self._tally.report(path, QUESTION, {"found": len(BUGS), "seconds each": SECONDS}, {"bugs": self._tally.done})
