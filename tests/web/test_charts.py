"""Charts to scale, and times in words."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.records import HourRecord, OutageRecord, StatusCounts, StatusLabel, StatusSpan
from exporter.web.charts import AREA_HEIGHT, AccountHistory, TimeRange, strip_row, timeline
from exporter.web.times import age, duration, short_time

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = TimeRange(NOW - 24 * HOUR, NOW)


def hour(number: int, training: int, created: int = 0) -> HourRecord:
    counts = StatusCounts(training=training, created=created)
    return HourRecord(account="a", hour=DAY.begin + number * HOUR, counts=counts)


def heights(path: str) -> list[float]:
    """Return the height of each hour of an area's upper edge."""
    return [AREA_HEIGHT - float(y) for y in re.findall(r"V([\d.]+)h1(?!\d)", path)]


def test_an_hour_without_a_row_has_the_counts_of_the_row_before():
    row = strip_row(AccountHistory("a", DAY.begin, [hour(-3, 2), hour(4, 4), hour(6, 0)]), DAY)
    half, full = AREA_HEIGHT / 2, float(AREA_HEIGHT)
    assert heights(row.training)[:8] == [half] * 4 + [full] * 2 + [0.0] * 2
    assert row.created == ""


def test_nothing_is_known_before_the_baseline():
    row = strip_row(AccountHistory("a", NOW - 6 * HOUR, [hour(18, 1)]), DAY)
    assert row.unknown_width == 75
    assert heights(row.training)[:18] == [0.0] * 18
    assert strip_row(AccountHistory("a", None), DAY).unknown_width == 100


def test_failures_and_outages_are_at_their_time_and_said_in_words():
    outage = OutageRecord(account="a", since=NOW - 12 * HOUR, until=NOW - 6 * HOUR, reason="dns")
    now = OutageRecord(account="a", since=NOW - HOUR, until=None, reason="timeout")
    history = AccountHistory("a", DAY.begin, [], [outage, now], [(NOW - 18 * HOUR, "Ada")])
    row = strip_row(history, DAY)
    assert [mark.x for mark in row.failures] == [25]
    assert [(box.x, box.width) for box in row.outages] == [(50, 25), (95.83, 4.17)]
    assert row.label == "a: 1 failure; not readable 2 times"
    assert "now: timeout" in row.outages[1].title


def test_a_timeline_is_to_scale():
    statuses: list[tuple[StatusLabel, int, int | None]] = [
        ("created", 10, 9),
        ("training", 9, 4),
        ("failed", 4, None),
    ]
    spans = [
        StatusSpan(
            status=status,
            status_label=status,
            since=NOW - since * HOUR,
            since_seen=True,
            until=None if until is None else NOW - until * HOUR,
        )
        for status, since, until in statuses
    ]
    chart = timeline(spans, [], NOW)
    assert [(box.x, box.width) for box in chart.boxes] == [(0, 10), (10, 50), (60, 40)]
    assert [mark.x for mark in chart.failures] == [60]
    assert chart.label == (
        "Status over time: created for 1 h, training for 5 h, failed since 04:00:00"
    )


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=3000)))
def test_ticks_are_few_and_inside(length):
    shown = TimeRange(NOW - length, NOW)
    ticks = shown.ticks()
    assert len(ticks) <= 9
    assert all(0 <= tick.x <= 100 for tick in ticks)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "\u2013"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
     (7800, "2 h 10 min"), (90_000, "1 d 1 h"), (172_800, "2 d")],
)  # fmt: skip
def test_a_duration_has_two_units(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-5, "0 s"), (18.9, "18 s"), (200, "3 min"), (1e6, "11 d")]
)
def test_an_age_has_one_unit(seconds, expected):
    assert age(seconds) == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (NOW - HOUR, "07:00:00"),
        (NOW - 9 * HOUR, "14 Jan 23:00"),
        (NOW - timedelta(days=60), "16 Nov 08:00"),
        (NOW - timedelta(days=300), "21 Mar 2026"),
    ],
)
def test_a_time_is_as_short_as_its_day_allows(time, expected):
    assert short_time(time, NOW) == expected
