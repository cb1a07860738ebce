"""What an answer means, and how long to wait after it."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.retry import (
    DELIVERIES,
    DELIVERIES_LATER,
    Attempt,
    BackOff,
    Outcome,
    Trouble,
    classify,
    receiver_pause,
)

NAMED = {
    **dict.fromkeys(range(200, 300), Outcome.DELIVERED),
    **dict.fromkeys(range(300, 400), Outcome.ENDPOINT),
    **dict.fromkeys((401, 403, 404, 405, 410), Outcome.ENDPOINT),
    **dict.fromkeys((400, 413, 414, 415, 422), Outcome.PAYLOAD),
    429: Outcome.THROTTLED,
}

bounded = settings(max_examples=200, deadline=None)
chances = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, sys.maxsize)
seconds = st.floats(0, allow_nan=False, allow_infinity=False)
back_offs = st.sampled_from([BackOff(1, 8), DELIVERIES, DELIVERIES_LATER])
not_throttled = st.sampled_from([Outcome.TRANSIENT, Outcome.ENDPOINT])


def failed(outcome: Outcome, retry_after: float | None = None) -> Attempt:
    return Attempt(outcome, "", retry_after)


def test_every_status_has_its_class():
    found = {status: classify(status) for status in range(100, 600)}
    assert found == {status: NAMED.get(status, Outcome.TRANSIENT) for status in found}


@bounded
@given(back_offs, failures, chances)
def test_no_number_of_failures_waits_longer_than_the_bound(back_off, number, chance):
    assert 0 <= back_off.delay(number, chance) <= back_off.longest


@bounded
@given(back_offs, failures, chances)
def test_the_jitter_is_full(back_off, number, chance):
    """Any wait between nothing and the bound is as likely as any other."""
    assert back_off.delay(number, 0) == 0
    assert back_off.delay(number, chance) == chance * back_off.delay(number, 1)


def test_the_bound_doubles_until_it_is_the_longest():
    assert [BackOff(2, 20).delay(n, 1) for n in range(1, 7)] == [2, 4, 8, 16, 20, 20]


@bounded
@given(st.sampled_from(Outcome), seconds, failures, chances)
def test_a_wait_that_was_asked_for_is_kept_between_a_second_and_an_hour(
    outcome, asked, number, chance
):
    pause = receiver_pause(failed(outcome, asked), Trouble(number, 0), chance)
    assert min(max(asked, 1), 3600) <= pause <= 3600


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(None, 60), (0, 1), (0.2, 1), (1, 1), (30, 30), (3600, 3600), (86_400, 3600), (1e308, 3600)],
)
def test_a_throttled_receiver_waits_as_long_as_it_asks_for(asked, pause):
    throttled = failed(Outcome.THROTTLED, asked)
    assert receiver_pause(throttled, Trouble(40, 10_000), 0.99) == pause


@bounded
@given(not_throttled, failures, chances)
def test_without_a_wish_the_back_off_applies(outcome, number, chance):
    pause = receiver_pause(failed(outcome), Trouble(number, 0), chance)
    assert pause == DELIVERIES.delay(number, chance)


def test_a_broken_server_that_asks_for_a_second_each_time_is_not_asked_each_second():
    trouble = Trouble(failures=50, lasting=1800)
    assert receiver_pause(failed(Outcome.TRANSIENT, 0), trouble, 0.5) == 150


@pytest.mark.parametrize(("lasting", "longest"), [(0, 300), (3599.9, 300), (3600, 900), (1e9, 900)])
def test_after_an_hour_of_trouble_the_waits_may_grow_to_a_quarter_of_an_hour(lasting, longest):
    trouble = Trouble(10**6, lasting)
    assert receiver_pause(failed(Outcome.TRANSIENT), trouble, 1) == longest
