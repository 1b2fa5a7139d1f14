"""Every bug that the campaign plants can still be planted: its module has not grown out from under it."""

import pytest

from campaign.planting.bugs import BUGS, edited
from campaign.tally import ROOT


@pytest.mark.parametrize("bug", BUGS.values(), ids=tuple(BUGS))
def test_a_bug_can_be_planted(bug):
    place = (ROOT / "src").joinpath(*bug.module.split(".")).with_suffix(".py")
    compile(edited(bug, place), place, "exec")
