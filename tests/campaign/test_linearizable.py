"""The checker of histories: what it lets pass, and what it does not."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from support.linearizable import Call, Model, first_wrong


def _register(state, what, result):
    """Return what follows: a register that is written, read, and compared and set."""
    match what:
        case ("read",):
            return (state,) if result in (None, state) else ()
        case ("write", value):
            return (value,)
        case ("set", old, new):
            return (new if state == old else state,) if result in (None, state == old) else ()


REGISTER = Model(0, _register)


def wrong(*calls):
    return first_wrong([Call(*call) for call in calls], REGISTER)


def test_calls_after_each_other_have_one_order():
    assert wrong((0, 1, ("write", 1), "ok"), (2, 3, ("read",), 1)) is None
    assert wrong((0, 1, ("write", 1), "ok"), (2, 3, ("read",), 0)).result == 0


def test_calls_at_once_may_be_done_in_any_order():
    for seen in (0, 1):
        assert wrong((0, 9, ("write", 1), "ok"), (2, 3, ("read",), seen)) is None
    assert wrong((0, 9, ("write", 1), "ok"), (2, 3, ("read",), 1), (4, 5, ("read",), 0)) is not None


def test_two_that_compare_the_same_cannot_both_find_it():
    assert wrong((0, 5, ("set", 0, 1), True), (0, 5, ("set", 0, 2), True)) is not None
    assert wrong((0, 5, ("set", 0, 1), True), (0, 5, ("set", 0, 2), False)) is None


def test_a_call_that_was_cut_off_was_done_before_the_kill_or_never():
    assert wrong((0, 5, ("write", 1), None), (6, 7, ("read",), 1), (8, 9, ("read",), 1)) is None
    assert wrong((0, 5, ("write", 1), None), (6, 7, ("read",), 0), (8, 9, ("read",), 0)) is None
    assert wrong((0, 5, ("write", 1), None), (6, 7, ("read",), 0), (8, 9, ("read",), 1)) is not None


CALLS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(1, 6),
        st.sampled_from([("read",), ("write", 1), ("write", 2), ("set", 1, 2), ("set", 0, 1)]),
        st.sampled_from([0, 1, 2, True, False, None]),
    ),
    max_size=5,
)


@given(CALLS)
def test_it_says_what_trying_every_order_says(drawn):
    calls = [
        Call(begin, begin + length + number / 10, what, "ok" if what[0] == "write" and result is not None else result)
        for number, (begin, length, what, result) in enumerate(drawn)
        if what[0] != "read" or result not in (True, False)
    ]
    assert (first_wrong(calls, REGISTER) is None) == any(_explains(order) for order in _orders(calls))


def _orders(calls):
    for size in range(len(calls) + 1):
        for order in itertools.permutations(calls, size):
            left_out = set(map(id, calls)) - set(map(id, order))
            if all(call.result is None for call in calls if id(call) in left_out):
                yield order


def _explains(order):
    if any(later.end < earlier.begin for earlier, later in itertools.combinations(order, 2)):
        return False
    state = 0
    for call in order:
        states = _register(state, call.what, call.result)
        if not states:
            return False
        (state,) = states
    return True


def test_a_long_history_of_an_atomic_register_passes_and_one_lost_write_does_not():
    chance, calls, state = random.Random(3), [], 0
    for number in range(2000):
        what = chance.choice([("read",), ("write", number), ("set", state, -number), ("set", number, 7)])
        result = {"read": state, "write": "ok"}.get(what[0], state in what[1:2])
        (state,) = _register(state, what, result)
        calls.append(Call(number - chance.random() * 4, number + chance.random() * 4, what, result))
    assert first_wrong(calls, REGISTER) is None
    broken = [call._replace(result=True) if number == 1000 else call for number, call in enumerate(calls)]
    broken[1000] = broken[1000]._replace(what=("set", "never", 1))
    assert first_wrong(broken, REGISTER) is not None
