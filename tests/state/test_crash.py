"""Whatever a kill or a power cut leaves of the state store: it opens, and holds what was acknowledged, leases and all.

The store is the real one, and so is its SQLite; what that does to its files is recorded.  ``make campaign`` looks at
many more states.
"""

import pytest

from support.crash.chapter import Examination, in_memory
from support.crash.state_story import StateStory


@pytest.mark.parametrize("seed", [2, 12])
def test_no_crash_breaks_a_promise(seed):
    with in_memory() as directory:
        examination = Examination(directory)
        examination.tell(StateStory, seed, limit=1, steps=3)
    assert examination.violations == []
    assert examination.states.total() > 100
