"""kill -9 of the storage process under 32 writes, unmaps and flushes at a time: nothing that was answered is lost.

``make campaign PARTS=kills`` kills it a thousand times, and tgtd beside it.
"""

import random

import pytest

from support.kill_rounds import KillRounds
from support.killed_targets import OurStorage, Tgtd
from support.marked_blocks import BLOCK, Ledger, marked, number_of

KILLS = 20


@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing_that_was_answered(tmp_path):
    with OurStorage(tmp_path) as target:
        rounds = KillRounds(target, 1)
        for _ in range(KILLS):
            rounds.round()
    assert rounds.violations == []
    assert rounds.kills == KILLS
    assert min(rounds.done[what] for what in ("write", "fua", "unmap", "synchronize")) > 0
    assert rounds.unanswered > 0  # some kills came in the middle of something


def test_tgtd_keeps_what_it_has_answered_too(tmp_path):
    """A checker that nobody else passes would prove little."""
    with Tgtd(tmp_path) as target:
        rounds = KillRounds(target, 1)
        for _ in range(5):
            rounds.round()
    assert rounds.violations == []
    assert rounds.done["fua"] > 0


def test_a_block_says_what_it_is():
    assert number_of(7, marked(7, 3)) == 3
    assert number_of(7, marked(7, 0)) == 0
    assert number_of(8, marked(7, 3)) is None
    torn = marked(7, 3)[:256] + marked(7, 4)[256:]
    assert number_of(7, torn) is None


def test_the_ledger_tells_what_was_lost_torn_or_done():
    ledger = Ledger(4)
    first = ledger.begin(0, 2)
    ledger.done(0, 2)
    second = ledger.begin(1, 2)  # and the process is killed
    assert ledger.is_busy(2, 1)
    ledger.check(first[:BLOCK] + second + bytes(BLOCK))
    assert (ledger.violations, ledger.unanswered) == ([], 2)
    ledger.check(bytes(BLOCK) + second[:BLOCK] + random.Random(1).randbytes(BLOCK) + bytes(BLOCK))
    assert [text.partition(",")[0] for text in ledger.violations] == [
        "block 0 is number 0",
        "block 2 is torn or foreign",
    ]
