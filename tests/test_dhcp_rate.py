"""The benchmark of DHCP counts exchanges that came to their end, and no rate that was only asked for."""

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
TOLD = """\
Rate: {rate} 4-way exchanges/second, expected rate: 1000

***Statistics for: DISCOVER-OFFER***
sent packets: {begun}
received packets: {offers}
drops: 0

min delay: 0.2 ms
avg delay: 1.5 ms

***Statistics for: REQUEST-ACK***
sent packets: {offers}
received packets: {completed}
drops: 0

min delay: 0.4 ms
avg delay: 2.5 ms
"""


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("dhcp_rate")


def step(bench, begun, completed):
    told = TOLD.format(rate=completed / 4, begun=begun, offers=begun, completed=completed)
    return bench.reading(told, 4.0)


def test_a_step_is_what_perfdhcp_completed_of_what_it_began(bench):
    found = step(bench, 4000, 3960)
    assert found == {"offered": 1000.0, "completed": 990.0, "delay of DISCOVER": 1.5, "delay of REQUEST": 2.5}
    assert bench.passed(found)
    assert not bench.passed(step(bench, 4000, 3956))
    assert not bench.passed(bench.reading("perfdhcp: no such interface", 4.0)), "nothing told is nothing done"


@pytest.mark.parametrize(
    ("most", "fastest", "found"),
    [
        (1600, 5000, 1500.0),
        (700, 5000, 500.0),  # the first step fails: down until one passes
        (3, 5000, 0.0),
        (5000, 1100, 1100.0),  # perfdhcp begins fewer than it is asked to: what it was asked for does not count
    ],
)
def test_the_number_is_the_exchanges_of_the_best_step_that_passed(bench, most, fastest, found):
    """``most`` is what the server completes a second, ``fastest`` what perfdhcp begins."""

    def at(rate):
        begun = min(rate, fastest)
        return step(bench, 4 * begun, 4 * min(begun, most))

    assert bench.climb(at, 1000)[0] == found
