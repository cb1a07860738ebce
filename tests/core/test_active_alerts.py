"""Which alerts are posted, and until when each of them is active."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.active_alerts import (
    LASTING_SECONDS,
    RESOLVED_SECONDS,
    ActiveAlert,
    AlertRow,
    active_alerts,
)
from exporter.core.events import ENDS, TROUBLES

NOW = 1_800_000_000.0
HOLD = 3600.0


def alert_row(
    number: int, observed: float, *, settled: float | None = None, left: float | None = None
) -> AlertRow:
    """Return a row; the wall clock shows the time of the awake clock."""
    return AlertRow(number, observed, observed, settled, left)


def end_of(row: AlertRow, at: float) -> float:
    return row.ends_at(at, at, HOLD)


def posted(*rows: AlertRow, now: float = NOW) -> list[ActiveAlert]:
    """Return what is posted of alerts with different labels."""
    return active_alerts(rows, lambda number: number, now, HOLD)


def posted_as_one(*rows: AlertRow, now: float = NOW) -> list[ActiveAlert]:
    """Return what is posted of alerts with the same labels."""
    return active_alerts(rows, lambda _: "same", now, HOLD)


def test_until_it_is_delivered_an_alert_ends_a_hold_from_now():
    row = alert_row(1, NOW - 500)
    assert posted(row) == [ActiveAlert(row, pending=(1,))]
    assert end_of(row, NOW) == NOW + HOLD
    later = NOW + 90 * 86400
    assert posted(row, now=later) == [ActiveAlert(row, pending=(1,))]
    assert end_of(row, later) == later + HOLD


def test_the_end_of_a_delivered_alert_is_fixed_and_it_is_not_posted_after_it():
    row = alert_row(1, NOW - 500, settled=NOW - 100)
    for now in (NOW, NOW + 1000, NOW - 100 + HOLD - 1):
        assert posted(row, now=now) == [ActiveAlert(row, pending=())]
        assert end_of(row, now) == NOW - 100 + HOLD
    assert posted(row, now=NOW - 100 + HOLD) == []


def test_an_alert_that_ended_early_is_posted_as_resolved_for_15_minutes():
    row = alert_row(1, NOW - 500, settled=NOW - 400, left=NOW - 10)
    assert posted(row) == [ActiveAlert(row, pending=())]
    assert end_of(row, NOW) == NOW - 10
    assert posted(row, now=NOW - 10 + RESOLVED_SECONDS - 1) != []
    assert posted(row, now=NOW - 10 + RESOLVED_SECONDS) == []


def test_an_alert_whose_trouble_ends_after_its_hold_is_not_posted_again():
    assert posted(alert_row(1, NOW - 9000, settled=NOW - 8000, left=NOW - 10)) == []


def test_an_alert_that_ended_before_it_was_delivered_is_still_posted():
    row = alert_row(1, NOW - 9000, left=NOW - 8000)
    assert posted(row) == [ActiveAlert(row, pending=(1,))]
    assert end_of(row, NOW) == NOW - 8000
    delivered = replace(row, settled=NOW)
    assert posted(delivered, now=NOW + 60) != [], "the other members have not received it yet"
    assert posted(delivered, now=NOW + RESOLVED_SECONDS) == []


def test_of_two_alerts_with_the_same_labels_the_newest_is_posted_for_both():
    first = alert_row(1, NOW - 500, left=NOW - 100)
    again = alert_row(2, NOW - 100)
    assert posted_as_one(first, again) == posted_as_one(again, first)
    assert posted_as_one(first, again) == [ActiveAlert(again, pending=(1, 2))]


def test_an_alert_that_lasts_is_posted_instead_of_a_newer_one_that_has_ended():
    lasts = alert_row(1, NOW - 500, settled=NOW - 400)
    ended = alert_row(2, NOW - 100, settled=NOW - 90, left=NOW - 50)
    assert [alert.row for alert in posted_as_one(lasts, ended)] == [lasts]


def test_an_alert_after_its_hold_is_not_posted_instead_of_an_active_one():
    over = alert_row(1, NOW - 9000, settled=NOW - HOLD)
    ended = alert_row(2, NOW - 100, settled=NOW - 90, left=NOW - 50)
    assert [alert.row for alert in posted_as_one(over, ended)] == [ended]


def test_pending_alerts_come_first():
    delivered = alert_row(1, NOW, settled=NOW)
    alerts = posted(delivered, alert_row(3, NOW), alert_row(2, NOW))
    assert [alert.row.number for alert in alerts] == [2, 3, 1]


def test_an_event_without_identity_is_left_out():
    rows = [alert_row(1, NOW), alert_row(2, NOW)]
    found = active_alerts(rows, lambda number: None if number == 1 else "some", NOW, HOLD)
    assert [alert.row.number for alert in found] == [2]


def test_every_trouble_has_an_end_and_only_a_failure_is_both():
    assert {kind.split(".")[0] for kind in TROUBLES} == {kind.split(".")[0] for kind in ENDS}
    assert {"fine_tune.failed"} == TROUBLES & ENDS
    assert not ENDS & {"fine_tune.removed", "fine_tune.stuck"}


times = st.floats(NOW - 100_000, NOW + 100_000)
alert_rows = st.lists(
    st.builds(
        alert_row,
        st.integers(1, 60),
        times,
        settled=st.none() | times,
        left=st.none() | times,
    ),
    unique_by=lambda row: row.number,
)


@given(alert_rows, times, st.integers(1, 5))
def test_no_pending_alert_is_left_out_and_none_ends_before_it_begins(rows, now, labels):
    found = active_alerts(rows, lambda number: number % labels, now, HOLD)
    assert len({alert.row.number % labels for alert in found}) == len(found)
    assert all(end_of(alert.row, now) >= alert.row.starts_at(now, now) for alert in found)
    pending = [number for alert in found for number in alert.pending]
    assert sorted(pending) == sorted(row.number for row in rows if row.settled is None)


@given(alert_rows, times)
def test_the_ends_of_delivered_alerts_never_change(rows, now):
    def ends(at: float) -> dict[int, float]:
        return {alert.row.number: end_of(alert.row, at) for alert in posted(*delivered, now=at)}

    delivered = [row for row in rows if row.settled is not None]
    before, after = ends(now), ends(now + 30)
    assert before.keys() >= after.keys()
    assert all(before[number] == end for number, end in after.items())


@given(
    st.dictionaries(st.integers(1, 30), st.none() | st.floats(0, 5000)),
    st.dictionaries(st.integers(1, 30), st.floats(0, 60)),
    st.integers(1, 5),
)
def test_an_older_list_has_the_same_alerts_and_ends_as_a_new_one(ended_ago, delivered, labels):
    """Between the two nothing happens but time, and deliveries that ``delivered`` tells of."""

    def with_delivery(row: AlertRow) -> AlertRow:
        after = delivered.get(row.number)
        return row if after is None else replace(row, settled=NOW + after)

    def ends(alerts: list[ActiveAlert]) -> dict[int, float]:
        rows = [with_delivery(alert.row) for alert in alerts]
        return {row.number: end_of(row, NOW + 60) for row in rows}

    rows = [
        alert_row(number, NOW - 5000, left=None if ago is None else NOW - ago)
        for number, ago in ended_ago.items()
    ]
    old = active_alerts(rows, lambda number: number % labels, NOW, HOLD)
    new = active_alerts(map(with_delivery, rows), lambda number: number % labels, NOW + 60, HOLD)
    assert ends(old) == ends(new)
    assert [set(alert.pending) - delivered.keys() for alert in sorted(old, key=number_of)] == [
        set(alert.pending) for alert in sorted(new, key=number_of)
    ]


def number_of(alert: ActiveAlert) -> int:
    return alert.row.number


def test_a_lasting_trouble_is_active_until_its_end_and_its_end_moves_with_each_post():
    row = AlertRow(1, NOW, 0.0, settled=1.0, lasting=True)
    for awake in (60.0, HOLD, 400 * 86_400.0):
        now = NOW + awake
        assert row.is_active(awake, HOLD)
        assert row.ends_at(awake, now, HOLD) == now + HOLD
        assert row.ends_at(awake, now, 60.0) == now + LASTING_SECONDS
    end = 9 * HOLD
    ended = AlertRow(1, NOW, 0.0, settled=1.0, left=end, lasting=True)
    assert ended.ends_at(end + 5, NOW + end + 5, HOLD) <= NOW + end
    assert ended.is_active(end + RESOLVED_SECONDS - 1, HOLD)
    assert not ended.is_active(end + RESOLVED_SECONDS, HOLD)
