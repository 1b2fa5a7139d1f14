from hypothesis import given
from hypothesis import strategies as st

from panloom.storage.allocation_map import PAGE_OCTETS, AllocationMap

CLUSTERS = 3 * 8 * PAGE_OCTETS - 5  # three pages, the last not full
RUNS = st.tuples(st.integers(0, CLUSTERS - 1), st.integers(1, 70_000)).map(
    lambda run: (run[0], min(sum(run), CLUSTERS))
)


@given(st.lists(RUNS, max_size=8), RUNS)
def test_runs_are_those_of_a_list_of_booleans(runs, asked):
    own, twin = AllocationMap(CLUSTERS), [False] * CLUSTERS
    for first, limit in runs:
        own.put(*own.with_run(first, limit))
        twin[first:limit] = [True] * (limit - first)
    first, limit = asked
    expected = next((n for n in range(first, limit) if twin[n] != twin[first]), limit)
    assert own.run(first, limit) == (twin[first], expected)


@given(RUNS)
def test_changed_pages_hold_the_run_and_no_others(run):
    own = AllocationMap(CLUSTERS)
    own.put(*own.with_run(*run))
    assert own.changed_pages == {cluster // (8 * PAGE_OCTETS) for cluster in range(*run)}
    set_bits = sum(octet.bit_count() for number in own.changed_pages for octet in own.page(number))
    assert set_bits == run[1] - run[0]


def test_asking_sets_nothing():
    own = AllocationMap(100)
    assert own.with_run(3, 12) == (0, bytes([0b11111000, 0b00001111]))
    assert own.run(0, 100) == (False, 100)
    assert own.changed_pages == set()
