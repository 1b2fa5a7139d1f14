"""How far a campaign has come, and the result that it ends in.

.cache/campaign/PART.json    what is done; counts only for the code and the seed that it was done with
bench/results/crash_PART.json    the result, written when a campaign has come to its end
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRESS = ROOT / ".cache" / "campaign"
SOURCES = (
    "src/panloom/system_calls.py", "src/panloom/disk_io.py", "src/panloom/durable_names.py", "src/panloom/storage",
    "src/panloom/state", "src/panloom/boot/lease_book.py", "src/panloom/control/mac_counter.py", "tests/support/crash",
)  # fmt: skip


def code():
    """Return a number that changes with the code that is examined, and with that which examines."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = ROOT / source
        for each in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


class Tally:
    """What one part has counted: ``done`` is JSON, as the part likes it."""

    def __init__(self, part, parameters, *, fresh=False):
        """Go on with what an earlier run left, if it was the same code and the same ``parameters``."""
        self._path = PROGRESS / f"{part}.json"
        self._of = {"code": code(), "parameters": parameters}
        self._begun = time.monotonic()
        self.done, self._seconds = {}, 0.0
        if not fresh and self._path.exists():
            known = json.loads(self._path.read_text())
            if known["of"] == self._of:
                self.done, self._seconds = known["done"], known["seconds"]

    @property
    def seconds(self):
        """How long it took, earlier runs included."""
        return self._seconds + time.monotonic() - self._begun

    def save(self):
        """Keep it, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"of": self._of, "seconds": self.seconds, "done": self.done}))
        partial.replace(self._path)

    def report(self, path, question, goals, result):
        """Write the result to a file."""
        git = ("git", "-C", ROOT, "-c", f"safe.directory={ROOT}")
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", *SOURCES], capture_output=True, text=True, check=False
        )
        whole = {
            "question": question,
            "goals": goals,
            **result,
            "seconds": round(self.seconds, 1),
            "machine": {
                "processors": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "load_average": os.getloadavg(),
            },
            "commit": commit.stdout.strip() + (" with changes" if changed.stdout else ""),
            **self._of,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole, indent=2) + "\n")
        print(f"written to {path}", flush=True)
