"""Outcomes of HTTP statuses, and back-off."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.retry import DELIVERIES, DELIVERIES_LATER, BackOff, Outcome, classify

NAMED = {
    **dict.fromkeys(range(200, 300), Outcome.DELIVERED),
    **dict.fromkeys(range(300, 400), Outcome.ENDPOINT),
    **dict.fromkeys((401, 403, 404, 405, 410), Outcome.ENDPOINT),
    **dict.fromkeys((400, 413, 414, 415, 422), Outcome.PAYLOAD),
    429: Outcome.THROTTLED,
}

chances = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, sys.maxsize)
back_offs = st.sampled_from([BackOff(1, 8), DELIVERIES, DELIVERIES_LATER])


def test_every_http_status_has_an_outcome():
    found = {status: classify(status) for status in range(100, 600)}
    assert found == {status: NAMED.get(status, Outcome.TRANSIENT) for status in found}


@given(back_offs, failures, chances)
def test_back_off_is_bounded(back_off, number, random):
    assert 0 <= back_off.delay(number, random) <= back_off.longest


@given(back_offs, failures, chances)
def test_jitter_is_full(back_off, number, random):
    """Any wait between nothing and the bound is as likely as any other."""
    assert back_off.delay(number, 0) == 0
    assert back_off.delay(number, random) == random * back_off.delay(number, 1)


def test_back_off_doubles_up_to_its_bound():
    assert [BackOff(2, 20).delay(n, 1) for n in range(1, 7)] == [2, 4, 8, 16, 20, 20]
