"""Which alerts are posted, and until when each of them fires."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.active_alerts import (
    RESOLVED_SECONDS,
    ActiveAlert,
    AlertRow,
    active_alerts,
    brought_up,
)
from exporter.core.events import ENDS, TROUBLES

NOW = 1_800_000_000.0
HOLD = 3600.0


def posted(*owed: AlertRow, now: float = NOW) -> list[ActiveAlert]:
    """What is posted of alerts that all differ."""
    return active_alerts(owed, lambda number: number, now, HOLD)


def as_one(*owed: AlertRow, now: float = NOW) -> list[ActiveAlert]:
    """What is posted of alerts with the same labels."""
    return active_alerts(owed, lambda _: "same", now, HOLD)


def test_until_it_is_taken_an_alert_ends_a_hold_from_now():
    owed = AlertRow(1, NOW - 500)
    assert posted(owed) == [ActiveAlert(1, NOW - 500, NOW + HOLD, left=False, pending=(1,))]
    [later] = posted(owed, now=NOW + 90 * 86400)
    assert later.ends_at == NOW + 90 * 86400 + HOLD


def test_from_then_on_its_end_is_fixed_and_behind_it_nothing_is_posted():
    taken = AlertRow(1, NOW - 500, settled_at=NOW - 100)
    for now in (NOW, NOW + 1000, NOW - 100 + HOLD - 1):
        assert posted(taken, now=now) == [
            ActiveAlert(1, NOW - 500, NOW - 100 + HOLD, left=False, pending=())
        ]
    assert posted(taken, now=NOW - 100 + HOLD) == []


def test_one_that_ended_early_is_posted_as_resolved_for_15_minutes():
    left = AlertRow(1, NOW - 500, settled_at=NOW - 400, left_at=NOW - 10)
    assert posted(left) == [ActiveAlert(1, NOW - 500, NOW - 10, left=True, pending=())]
    assert posted(left, now=NOW - 10 + RESOLVED_SECONDS - 1) != []
    assert posted(left, now=NOW - 10 + RESOLVED_SECONDS) == []


def test_what_ends_behind_its_hold_is_not_brought_up_again():
    over = AlertRow(1, NOW - 9000, settled_at=NOW - 8000, left_at=NOW - 10)
    assert posted(over) == []


def test_one_that_ended_before_anybody_took_it_is_still_told():
    owed = AlertRow(1, NOW - 9000, left_at=NOW - 8000)
    assert posted(owed) == [ActiveAlert(1, NOW - 9000, NOW - 8000, left=True, pending=(1,))]
    taken = AlertRow(1, NOW - 9000, settled_at=NOW, left_at=NOW - 8000)
    assert posted(taken, now=NOW + 60) != [], "the other members have not seen it yet"
    assert posted(taken, now=NOW + RESOLVED_SECONDS) == []


def test_of_two_with_the_same_labels_the_newest_fires_and_both_are_told_by_it():
    first = AlertRow(1, NOW - 500, left_at=NOW - 100)
    again = AlertRow(2, NOW - 100)
    assert as_one(first, again) == as_one(again, first)
    [only] = as_one(first, again)
    assert (only.number, only.left, only.pending) == (2, False, (1, 2))


def test_one_that_goes_on_wins_over_a_newer_one_that_has_ended():
    goes_on = AlertRow(1, NOW - 500, settled_at=NOW - 400)
    ended = AlertRow(2, NOW - 100, settled_at=NOW - 90, left_at=NOW - 50)
    [only] = as_one(goes_on, ended)
    assert (only.number, only.left) == (1, False)


def test_one_whose_time_is_over_does_not_stand_for_one_that_is_posted():
    over = AlertRow(1, NOW - 9000, settled_at=NOW - HOLD)
    ended = AlertRow(2, NOW - 100, settled_at=NOW - 90, left_at=NOW - 50)
    [only] = as_one(over, ended)
    assert only.number == 2


def test_those_that_nobody_has_taken_come_first():
    taken = AlertRow(1, NOW, settled_at=NOW)
    assert [alert.number for alert in posted(taken, AlertRow(3, NOW), AlertRow(2, NOW))] == [
        2,
        3,
        1,
    ]


def test_every_trouble_has_an_end_and_none_but_a_failure_is_one():
    assert {kind.split(".")[0] for kind in TROUBLES} == {kind.split(".")[0] for kind in ENDS}
    assert {"fine_tune.failed"} == TROUBLES & ENDS
    assert not ENDS & {"fine_tune.removed", "fine_tune.stuck"}


times = st.floats(NOW - 100_000, NOW + 100_000)
alerts = st.lists(
    st.builds(
        AlertRow,
        st.integers(1, 60),
        times,
        st.none() | times,
        st.none() | times,
    ),
    unique_by=lambda alert: alert.number,
)


@given(alerts, times, st.integers(1, 5))
def test_whatever_the_clock_did_nothing_pending_is_left_out_and_no_alert_ends_before_it_begins(
    owed, now, labels
):
    found = active_alerts(owed, lambda number: number % labels, now, HOLD)
    assert len({alert.number % labels for alert in found}) == len(found)
    assert all(alert.ends_at >= alert.starts_at for alert in found)
    told = [number for alert in found for number in alert.pending]
    assert sorted(told) == sorted(alert.number for alert in owed if alert.settled_at is None)


@given(alerts, times)
def test_asked_again_it_says_the_same_of_all_that_was_taken(owed, now):
    def fixed(at: float) -> dict[int, float]:
        return {alert.number: alert.ends_at for alert in posted(*taken, now=at)}

    taken = [alert for alert in owed if alert.settled_at is not None]
    before, after = fixed(now), fixed(now + 30)
    assert before.keys() >= after.keys()
    assert all(before[number] == end for number, end in after.items())


@given(
    st.dictionaries(st.integers(1, 30), st.none() | st.floats(0, 5000)),
    st.dictionaries(st.integers(1, 30), st.floats(0, 60)),
    st.integers(1, 5),
)
def test_brought_up_it_is_as_if_it_was_made_now(ago, taken, labels):
    """What happens in between is only that some are taken; ``ago`` is when they left."""
    owed = [
        AlertRow(number, NOW - 5000, left_at=None if left is None else NOW - left)
        for number, left in ago.items()
    ]
    since = {number: NOW + after for number, after in taken.items()}
    known = [AlertRow(x.number, x.began_at, since.get(x.number), x.left_at) for x in owed]
    now = NOW + 60
    made = active_alerts(owed, lambda number: number % labels, NOW, HOLD)
    again = active_alerts(known, lambda number: number % labels, now, HOLD)
    brought = [brought_up(alert, since, now, HOLD) for alert in made]
    assert sorted(brought, key=lambda x: x.number) == sorted(again, key=lambda x: x.number)
    assert [brought_up(alert, since, now, HOLD) for alert in brought] == brought
