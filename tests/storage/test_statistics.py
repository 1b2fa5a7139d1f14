"""Statistics of a device: a known load gives exact numbers, whoever counted it."""

import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from panloom.storage.statistics import BUCKETS, Kind, Statistics, quantile_seconds

OPERATIONS = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 1 << 24), st.integers(0, 1 << 45)))


@given(st.lists(OPERATIONS, max_size=5), st.sets(st.integers(0, 4)))
def test_cap_173_totals_are_what_was_done(sessions, ended):
    """Sums over all sessions, those that have ended included, beside a plain list of what was done."""
    statistics = Statistics()
    for number, session in enumerate(sessions):
        counters = statistics.begin()
        for kind, octets, nanoseconds in session:
            counters.count(kind, octets, nanoseconds)
        for _ in range(2 if number in ended else 0):
            statistics.end(counters)
    done = [operation for session in sessions for operation in session]
    totals = statistics.totals()
    moved = {kind: sum(octets for other, octets, _ in done if other is kind) for kind in Kind}
    times = {kind: sum(other is kind for other, _, _ in done) for kind in Kind}
    assert totals.operations == len(done)
    assert (totals.reads, totals.writes, totals.flushes, totals.unmaps) == tuple(times[kind] for kind in Kind)
    assert (totals.read_octets, totals.written_octets) == (moved[Kind.READ], moved[Kind.WRITE])
    assert totals.octets == totals.read_octets + totals.written_octets
    assert totals.unmapped_octets == moved[Kind.UNMAP]
    assert totals.in_progress_seconds == sum(nanoseconds for _, _, nanoseconds in done) / 1e9
    assert sum(totals.read_latency) == totals.reads
    assert sum(totals.write_latency) == totals.writes


def test_threads_that_count_at_the_same_time_lose_nothing():
    statistics = Statistics()

    def load():
        counters = statistics.begin()
        for _ in range(20_000):
            counters.count(Kind.WRITE, 512, 1000)
        statistics.end(counters)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = statistics.totals()
    assert (totals.writes, totals.written_octets) == (80_000, 80_000 * 512)
    assert totals.in_progress_seconds == 0.08


def test_what_failed_is_counted_apart():
    statistics = Statistics()
    counters = statistics.begin()
    counters.count_failed(5)
    assert (statistics.totals().failed, statistics.totals().operations) == (1, 0)


@given(st.lists(st.integers(1, 1 << 36), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_at_most_twice_the_truth(nanoseconds, share):
    statistics = Statistics()
    counters = statistics.begin()
    for each in nanoseconds:
        counters.count(Kind.READ, 0, each)
    truth = sorted(nanoseconds)[math.ceil(share * len(nanoseconds)) - 1]
    found = quantile_seconds(statistics.totals().read_latency, share)
    assert truth / 1e9 <= found <= 2 * truth / 1e9


def test_nothing_done_has_no_quantile_and_no_latency_is_too_long():
    statistics = Statistics()
    counters = statistics.begin()
    assert quantile_seconds(statistics.totals().read_latency, 0.5) is None
    counters.count(Kind.READ, 0, 1 << 60)
    assert statistics.totals().read_latency[BUCKETS - 1] == 1
