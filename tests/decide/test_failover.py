"""The fence goes through its steps in order, once each, and the epoch only grows."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide import failover
from panloom.decide.records import STEPS, Phase, ServerRecord, Step

UP = ServerRecord(phase=Phase.UP, epoch=7, node="n1", secret="old", beacon_key="old", boot_attempts=2, started=True)


def begun(**changes):
    return failover.begin(UP, cause="silent", secret="new", beacon_key="key", wall=10.0, **changes)


def test_begin_raises_the_epoch_and_replaces_the_secrets_in_one_edit():
    record = begun()
    assert (record.phase, record.epoch, record.node) == (Phase.FENCING, 8, "n1")
    assert (record.secret, record.beacon_key) == ("new", "key")
    assert record.fence.done is Step.EPOCH


def test_the_steps_come_in_the_order_of_the_design_and_then_the_server_waits():
    record, seen = begun(), []
    while (step := failover.next_step(record.fence)) is not None:
        seen.append(step)
        record = failover.advance(record, step, power_confirmed=step is Step.POWER_OFF)
    assert tuple(seen) == STEPS[1:]
    finished = failover.finish(record, wall=20.0)
    assert (finished.phase, finished.node, finished.fence, finished.epoch) == (Phase.WAITING, None, None, 8)
    assert (finished.boot_attempts, finished.started, finished.moves) == (0, False, 1)


@given(st.sampled_from(STEPS), st.integers(min_value=0, max_value=len(STEPS) - 1))
def test_no_step_can_be_skipped_or_repeated(step, done):
    record = begun()
    for known in STEPS[1 : done + 1]:
        record = failover.advance(record, known)
    if done + 1 < len(STEPS) and step is STEPS[done + 1]:
        assert failover.advance(record, step).fence.done is step
    else:
        with pytest.raises(ValueError, match="does not follow"):
            failover.advance(record, step)


def test_a_move_counts_from_its_first_fence_until_the_server_is_up():
    def overdue(record, wall):
        return failover.overdue_seconds(record, 10.0, wall)

    moving = begun()
    assert [overdue(moving, wall) for wall in (10.0, 20.0, 21.0)] == [None, None, 11.0]
    spare = msgspec.structs.replace(moving, phase=Phase.BOOTING, node="n2", fence=None)
    again = failover.begin(spare, cause="silent too", secret="", beacon_key="", wall=19.0)
    assert overdue(again, 21.0) == 11.0
    assert overdue(begun(restart=True), 1e9) is None
    assert overdue(UP, 1e9) is None


def test_a_fence_that_misses_a_step_cannot_be_finished():
    with pytest.raises(ValueError, match="not complete"):
        failover.finish(begun(), wall=0.0)


def test_a_server_without_a_node_and_one_being_fenced_cannot_be_fenced():
    for record in (ServerRecord(phase=Phase.WAITING, epoch=1), begun()):
        with pytest.raises(ValueError, match="nothing to fence"):
            failover.begin(record, cause="again", secret="", beacon_key="", wall=0.0)
