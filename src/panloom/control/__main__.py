"""``python -m panloom.control``: the control process."""

import sys

from panloom.control.main import main

sys.exit(main())
