"""The bookkeeping of leases, with the time in hand."""

import pytest

from panloom.errors import ConflictError
from panloom.state.leases import Leases


def test_a_lease_runs_for_its_seconds_and_not_one_more():
    leases = Leases()
    leases.start(1, 10.0, now=100.0)
    leases.check(1, now=109.9)
    assert (leases.deadline, leases.due(now=109.9)) == (110.0, ())
    with pytest.raises(ConflictError, match="lease 1 has ended"):
        leases.check(1, now=110.0)
    assert leases.due(now=110.0) == (1,)


def test_keeping_counts_anew_but_does_not_wake_the_dead():
    leases = Leases()
    leases.start(1, 10.0, now=100.0)
    leases.keep(1, now=109.0)
    assert leases.deadline == 119.0
    with pytest.raises(ConflictError):
        leases.keep(1, now=119.0)
    assert leases.due(now=119.0) == (1,)


def test_an_ended_lease_stays_due_until_it_is_forgotten():
    leases = Leases()
    leases.start(1, 10.0, now=100.0)
    leases.stop(1)
    assert leases.due(now=0.0) == (1,)
    leases.forget(1)
    leases.forget(1)
    leases.stop(1)
    assert (leases.due(now=1e9), leases.deadline) == ((), None)
    with pytest.raises(ConflictError):
        leases.check(1, now=0.0)
