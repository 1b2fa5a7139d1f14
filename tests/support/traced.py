"""What a process asks of the kernel, as strace tells it."""

import re
import signal
import subprocess
from collections import Counter

from support.waiting import until


class Traced:
    """The system calls of a process, and of those that it starts, while the ``with`` block runs.

    ``calls``: thread → name → how many, without those that found nothing; ``only`` these are looked at.
    """

    def __init__(self, pid, directory, *, only="all"):
        self.calls = {}
        self._only = only
        self._path = directory / "strace"
        self._said = directory / "strace.said"
        self._pid = str(pid)

    def __enter__(self):
        with self._said.open("wb") as said:
            wanted = ["--follow-forks", f"--trace={self._only}", "--attach", self._pid]
            self._process = subprocess.Popen(["strace", *wanted, "--output", self._path], stderr=said)
        until(lambda: " attached" in self._said.read_text(), "strace has attached")
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)
        for line in self._path.read_text().splitlines():
            match = re.match(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()", line)
            if match and (match[2] or "<unfinished" not in line) and "= -1 EAGAIN" not in line:
                self.calls.setdefault(match[1], Counter())[match[2] or match[3]] += 1
