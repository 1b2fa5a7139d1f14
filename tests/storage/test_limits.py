"""Limits of a device, beside a slow twin in fractions; and what they promise to whoever set them."""

from fractions import Fraction
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from panloom.storage.limits import BURST_SECONDS, Limiter, Limits, TokenBucket

STEPS = st.lists(
    st.tuples(st.fractions(0, 2, max_denominator=64), st.integers(0, 2000)), min_size=1, max_size=40
)  # seconds since the last request, and what this one needs
RATES = st.integers(1, 1000)


class Twin:
    """A bucket that keeps all that ever happened, and adds it up anew each time."""

    def __init__(self, rate, burst):
        self.rate, self.burst, self.taken = rate, burst, []

    def wait(self, now):
        level, at = Fraction(self.burst), Fraction(0)
        for moment, tokens in self.taken:
            level = min(Fraction(self.burst), level + (moment - at) * self.rate) - tokens
            at = moment
        level = min(Fraction(self.burst), level + (now - at) * self.rate)
        return max(Fraction(0), -level / self.rate)


@given(RATES, st.integers(1, 500), STEPS)
def test_a_bucket_waits_as_its_twin(rate, burst, steps):
    bucket, twin, now = TokenBucket(rate, burst, 0.0), Twin(rate, burst), Fraction(0)
    for pause, tokens in steps:
        now += pause
        assert abs(bucket.wait_seconds(float(now)) - twin.wait(now)) < 1e-6
        bucket.take(tokens, float(now))
        twin.taken.append((now, tokens))


@given(st.integers(1, 1000), st.integers(512, 1 << 20), STEPS)
@example(1, 512, [(Fraction(0), 2)] + [(Fraction(0), 0)] * 3)  # who waits for one limit has used the other up
def test_no_interval_has_more_than_the_limits_and_one_request(operations, octets, steps):
    limiter, now, begun = Limiter(Limits(operations, octets), 0.0), 0.0, []
    for pause, kilobytes in steps:
        now += float(pause)
        begun.append((now + limiter.begin(kilobytes * 512, now), kilobytes * 512))
    for (one, _), (other, _) in pairwise(begun):
        assert one <= other + 1e-6  # in the order in which they came
    for first, (start, _) in enumerate(begun):
        moved = [size for _, size in begun[first:]]
        for last, (end, _size) in enumerate(begun[first:]):
            assert last + 1 <= (end - start) * operations + max(1.0, operations * BURST_SECONDS) + 1 + 1e-6
            before = sum(moved[:last])
            assert before <= (end - start) * octets + max(1.0, octets * BURST_SECONDS) + max(moved) + 1e-3


@given(STEPS)
def test_no_limits_let_all_begin_at_once(steps):
    limiter, now = Limiter(Limits(), 0.0), 0.0
    for pause, octets in steps:
        now += float(pause)
        assert limiter.begin(octets, now) == 0


@given(RATES, RATES, st.integers(1, 100))
def test_a_debt_is_paid_at_the_new_rate(before, after, requests):
    limiter = Limiter(Limits(operations=before), 0.0)
    for _ in range(requests):
        limiter.begin(0, 0.0)
    debt = requests - max(1.0, before * BURST_SECONDS)
    limiter.change(Limits(operations=after), 0.0)
    assert abs(limiter.begin(0, 0.0) - max(0.0, debt / after)) < 1e-6
    limiter.change(Limits(), 0.0)
    assert limiter.begin(0, 0.0) == 0
