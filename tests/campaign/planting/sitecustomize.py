"""Plant one bug in every Python process below, where PANLOOM_PLANTED_BUG names it; see ``bugs``.

Python imports this by itself when it starts, if its directory is in PYTHONPATH.
"""

import os

if os.environ.get("PANLOOM_PLANTED_BUG"):
    import bugs

    bugs.plant(os.environ["PANLOOM_PLANTED_BUG"])
