"""The estimate of RFC 6298: known answers, and its bounds whatever is measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.round_trip import (
    FIRST_SECONDS,
    LONGEST_FIRST_SECONDS,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    RoundTrip,
)


def test_nothing_known_waits_long_and_backs_off():
    way = RoundTrip()
    assert [way.timeout(repeats) for repeats in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert way.shortest == 0.0


def test_known_answers():
    way = RoundTrip()
    way.sample(0.1)  # section 2.2: SRTT = R, RTTVAR = R / 2
    assert way.timeout(0) == pytest.approx(0.1 + 4 * 0.05)
    way.sample(0.2)  # section 2.3: RTTVAR = 3/4 · 0.05 + 1/4 · 0.1, SRTT = 7/8 · 0.1 + 1/8 · 0.2
    assert way.timeout(0) == pytest.approx(0.1125 + 4 * 0.0625)
    assert way.timeout(1) == pytest.approx(2 * (0.1125 + 4 * 0.0625))
    assert way.shortest == 0.1


@given(st.lists(st.floats(0, 30), max_size=20), st.integers(0, 10_000))
def test_a_timeout_is_never_shorter_than_its_bound_or_than_what_is_usual(samples, repeats):
    way = RoundTrip()
    for seconds in samples:
        way.sample(seconds)
    if not samples:
        assert FIRST_SECONDS <= way.timeout(repeats) <= LONGEST_FIRST_SECONDS
        return
    assert SHORTEST_SECONDS <= way.timeout(0) <= way.timeout(repeats) <= max(LONGEST_SECONDS, way.timeout(0))
    assert min(samples) == way.shortest


def test_a_steady_way_is_waited_for_hardly_longer_than_it_is():
    way = RoundTrip()
    for _ in range(100):
        way.sample(0.2)
    assert way.timeout(0) == pytest.approx(0.2, rel=0.01)
