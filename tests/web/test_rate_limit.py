"""The rate limit: a burst at once, and then no more than one in each interval."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.web.auth import TokenBucket
from exporter.web.live_config import RateLimit


def test_a_burst_and_then_one_in_each_interval():
    bucket = TokenBucket(RateLimit(2.0, 3), 10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(11.9)
    assert bucket.take(12.0)
    assert not bucket.take(12.1)


def test_a_long_pause_brings_back_the_burst_and_no_more():
    bucket = TokenBucket(RateLimit(1.0, 2), 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1e6) for _ in range(3)] == [True, True, False]


@given(
    st.lists(st.floats(0, 5), max_size=50),
    st.floats(0.125, 10),
    st.integers(1, 5),
)
def test_no_stretch_of_time_has_more_than_the_burst_and_one_an_interval(waits, interval, burst):
    bucket, now, taken = TokenBucket(RateLimit(interval, burst), 0.0), 0.0, []
    for wait in waits:
        now += wait
        if bucket.take(now):
            taken.append(now)
    for first, begin in enumerate(taken):
        for last, end in enumerate(taken[first:], first):
            assert last - first + 1 <= burst + (end - begin) / interval + 1e-6
