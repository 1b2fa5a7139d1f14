"""A failpoint kills the process at its place, and only there."""

import os
import signal
import subprocess
import sys

import pytest

CODE = "from panloom.control import failpoint; failpoint.reached('drop sessions'); failpoint.reached('finish')"


@pytest.mark.parametrize(
    ("armed", "status"),
    [(None, 0), ("", 0), ("power off", 0), ("drop sessions", -signal.SIGKILL), ("finish", -signal.SIGKILL)],
)
def test_it_ends_the_process_where_it_is_armed(armed, status):
    environment = {name: value for name, value in os.environ.items() if name != "PANLOOM_FAILPOINT"}
    environment |= {"PANLOOM_FAILPOINT": armed} if armed is not None else {}
    assert subprocess.run([sys.executable, "-c", CODE], env=environment, check=False).returncode == status
