"""Set-up, tests and demo leave the host as it was: listening sockets, enabled units, all of /etc.

``make test`` notes the host's state before it sets anything up; run by hand, this file notes it itself.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def host_state():
    return subprocess.run([ROOT / "scripts" / "host-state"], capture_output=True, text=True, check=True).stdout


def test_host_is_as_it_was():
    noted = os.environ.get("PANLOOM_HOST_STATE")
    before = Path(noted).read_text() if noted else host_state()
    subprocess.run(["scripts/setup", "test"], cwd=ROOT, check=True)
    assert set(host_state().splitlines()) == set(before.splitlines())


def test_state_of_the_host_has_all_three_parts():
    kinds = {line.split()[0] for line in host_state().splitlines()}
    assert {"unit", "etc"} <= kinds <= {"socket", "unit", "etc"}
