"""A sample of the histories: COMPARE AND WRITE and reservations by several initiators, with kills in between."""

import pytest

from campaign.histories import examine


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_that_are_compared_and_written_are_registers(seed):
    history, wrong = examine("registers", seed, calls=800, kills=2)
    assert wrong is None
    assert len(history.calls) >= 800
    assert min(history.done[what] for what in ("read", "write", "set")) > 50
    assert any(call.result is None for call in history.calls)  # a kill came in the middle


def test_blocks_of_a_slow_disk_that_are_compared_and_written_are_registers():
    """Reading and writing take long enough for others to come between, if they could."""
    history, wrong = examine("registers", 3, calls=400, kills=0, slow=True)
    assert wrong is None
    assert history.done["set"] > 100


@pytest.mark.parametrize("seed", [1, 2])
def test_reservations_are_those_of_one_unit_and_outlive_a_kill(seed):
    history, wrong = examine("reservations", seed, calls=800, kills=2)
    assert wrong is None
    assert min(history.done[what] for what in ("change", "keys", "reservation", "write")) > 50
