"""Where a test may pull the plug: the process kills itself at a named place, as a power cut would.

``PANLOOM_FAILPOINT=drop sessions`` in the environment arms one place; without it ``reached`` does nothing.
"""

import os
import signal

VARIABLE = "PANLOOM_FAILPOINT"


def reached(place: str) -> None:
    """End the process at once if this place is armed."""
    if os.environ.get(VARIABLE) == place:
        os.kill(os.getpid(), signal.SIGKILL)
