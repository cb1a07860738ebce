"""Retry-After: any text is a wait or None."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.retry import retry_after

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120),
        ("Fri, 15 Jan 2027 09:02:00 +0100", 120),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("tomorrow", None),
        ("Fri, 99 Jan 2027 08:02:00 GMT", None),
        ("Fri, 15 Jan 99999999 08:02:00 GMT", None),
    ],
)
def test_both_forms_of_retry_after_are_parsed(text, seconds):
    assert retry_after({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize("days_off", [-4000, -1, 1, 4000])
def test_a_date_is_compared_with_the_clock_of_the_server_that_wrote_it(days_off):
    headers = {
        "date": "Fri, 15 Jan 2027 08:00:00 GMT",
        "retry-after": "Fri, 15 Jan 2027 08:02:00 GMT",
    }
    assert retry_after(headers, NOW + days_off * 86_400) == 120
    assert retry_after({**headers, "date": "soon"}, NOW) == 120


def test_no_retry_after_no_wait():
    assert retry_after({}, NOW) is None


@given(st.text() | st.text("0123456789:,-+ .()JanMonGMT"))
@example("9" * 5000)
def test_any_retry_after_text_is_a_wait_or_none(text):
    seconds = retry_after({"retry-after": text}, NOW)
    assert seconds is None or 0 <= seconds < float("inf")
