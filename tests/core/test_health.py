"""Liveness: a service is late 60 s after its wake-up deadline."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.health import LATE_SECONDS, Liveness, liveness

NOW = 10_000.0
TIMES = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("case", "wakeup_deadline", "late"),
    [
        ("who rests is not late", NOW + 3600, None),
        ("who is about to wake up is not late", NOW, None),
        ("a minute is no delay", NOW - 60, None),
        ("more than a minute is", NOW - 60.5, 60.5),
        ("who waits for others alone never is", inf, None),
    ],
)
def test_service_is_late_60s_after_its_deadline(case, wakeup_deadline, late):
    found = liveness({"a": wakeup_deadline, "b": NOW}, NOW)
    assert found == Liveness(2, {} if late is None else {"a": late}), case
    assert found.healthy is (late is None), case


def test_liveness_counts_in_words():
    assert Liveness(5).counts == "5 of 5 parts are on time"
    assert Liveness(5, {"a": 61.0}).counts == "4 of 5 parts are on time"
    assert liveness({}, NOW) == Liveness(0)


@given(st.dictionaries(st.text(max_size=3), TIMES | st.just(inf)), TIMES, TIMES)
def test_time_stopped_does_not_count_as_lateness(due, now, since):
    found = liveness(due, now, since)
    assert found.services == len(due)
    for part, at in due.items():
        behind = now - max(at, since)
        assert found.late.get(part) == (behind if behind > LATE_SECONDS else None)
    assert not found.late or now - since > LATE_SECONDS


@given(st.dictionaries(st.text(max_size=3), TIMES | st.just(inf)), TIMES, st.floats(0, 1e5))
def test_late_service_stays_late_until_its_next_deadline(due, now, later):
    assert liveness(due, now).late.keys() <= liveness(due, now + later).late.keys()
