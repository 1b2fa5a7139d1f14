"""Sequence numbers that wrap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.serial_number import after, ahead

numbers = st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("number", "of", "steps"),
    [(1, 0, 1), (0, 1, -1), (0, 0xFFFFFFFF, 1), (0xFFFFFFFF, 0, -1), (0x80000000, 1, 0x7FFFFFFF), (5, 5, 0)],
)
def test_known_numbers(number, of, steps):
    assert ahead(number, of) == steps
    assert after(of, steps) == number


@given(numbers, st.integers(-(2**31), 2**31 - 1))
def test_ahead_undoes_after(number, steps):
    assert ahead(after(number, steps), number) == steps
