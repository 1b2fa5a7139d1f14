"""Hunt one place of the kind that is imported without it:  python tests/campaign/one_mutant.py PLACE [SECONDS]

Prints what was seen, in JSON; null if nothing was.
"""

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.crash.places import Finder, in_source

STATE = ("panloom.state", "panloom.boot", "panloom.control")


def main():
    """See above."""
    logging.disable(logging.CRITICAL)
    (place,) = (each for each in in_source() if str(each) == sys.argv[1])
    sys.meta_path.insert(0, Finder(place))
    from campaign.mutants import hunt_by_kind  # which imports what is hunted

    kinds = ("state",) if place.module.startswith(STATE) else ("volumes",)
    print(json.dumps(hunt_by_kind(kinds, float(sys.argv[2]))))


if __name__ == "__main__":
    main()
