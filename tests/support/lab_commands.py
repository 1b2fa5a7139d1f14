"""`panloom lab` and what one does with it, as a person or a script does."""

import json
import subprocess
from pathlib import Path

from panloom.lab.whereabouts import Whereabouts
from support.traces import assert_nothing_is_left, marked, start, traces
from support.waiting import until


class LabCommands:
    """The commands of one person, for one lab."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.before = traces(directory.parent)

    def run(self, *words, code=0, text=None, **environment):
        """Run a command to its end; return what it said on stdout and on stderr."""
        places = {"PANLOOM_LAB": str(self.directory), "PANLOOM_SOCKET": str(self.directory / "panloom.sock")}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = start(*words, **pipes, env=places | environment)
        said, told = process.communicate((text or "").encode(), timeout=60)
        assert process.returncode == code, (words, said, told)
        return said.decode(), told.decode()

    def answers(self):
        """Whether the control process and all that it needs for an answer are there."""
        try:
            return self.nodes()
        except AssertionError:
            return None

    def nodes(self):
        said, _ = self.run("lab", "status", "-o", "json")
        return {row["node"]: row for row in json.loads(said)["nodes"]}

    def apply(self, text):
        path = self.directory.parent / "servers.yaml"
        path.write_text(text)
        try:
            self.run("apply", path)
        finally:
            path.unlink()

    def until_up(self, server, *, not_on=""):
        def up():
            row = json.loads(self.run("show", "server", server, "-o", "json")[0])
            return row if row["state"].startswith("up") and row["node"] != not_on else None

        return until(up, f"{server} is up", seconds=40)

    def processes(self):
        """Return what a process is → its pid, of those of the lab."""
        words = {"control": "-m panloom.control ", "storage": "-m panloom.storage ", "supervisor": "lab.supervisor "}
        running = marked().items()
        return {name: pid for name, word in words.items() for pid, line in running if word in line}

    def first(self):
        return Whereabouts(self.directory).record().pid

    def assert_gone(self):
        assert_nothing_is_left(self.before, self.directory.parent)
