"""Any sequence of polls against a model that recomputes everything from the lists."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.account import PollResult
from exporter.core.events import Event
from exporter.core.model import AccountKey, status_label
from tests.core.histories import (
    KEY,
    Poll,
    confirmed,
    events_of,
    histories,
    poll_result,
    poll_results,
    readings,
    rules,
    snapshot,
)


def expected_moves(polls: list[Poll], number: int) -> set[tuple[str, str | None, str]]:
    """The fine-tunes whose status that counts is another one than after the poll before."""
    moves = set()
    for fine_tune in "abc":
        seen = readings(polls, fine_tune, number)
        before, after = confirmed(seen[:-1]), confirmed(seen)
        if after is not None and before != after:
            moves.add((fine_tune, before, after))
    return moves


def expected_removals(polls: list[Poll], number: int) -> set[str]:
    """The fine-tunes that two polls in a row missed, and the one before these did not."""
    return {
        fine_tune
        for fine_tune in "abc"
        if number >= 2
        and [reading is None for reading in readings(polls, fine_tune, number)[-3:]]
        == [False, True, True]
    }


_NO_MOVE = {"fine_tune.removed", "fine_tune.recovered"}


def moves_of(result: PollResult) -> list[tuple[str, str | None, str]]:
    return [
        (event.fine_tune.id, event.previous_status, event.fine_tune.status)
        for event in events_of(result)
        if event.fine_tune is not None and event.type not in _NO_MOVE
    ]


def of_type(result: PollResult, kind: str) -> list[str]:
    return [
        event.fine_tune.id for event in events_of(result) if event.fine_tune and event.type == kind
    ]


@given(histories)
def test_every_entry_into_failed_has_exactly_one_event(polls):
    for number, result in enumerate(poll_results(polls)[1:], 1):
        entries = [move[0] for move in expected_moves(polls, number) if move[2] == "failed"]
        assert sorted(of_type(result, "fine_tune.failed")) == sorted(entries)


@given(histories)
def test_every_confirmed_change_and_removal_has_exactly_one_event(polls):
    for number, result in enumerate(poll_results(polls)[1:], 1):
        assert Counter(moves_of(result)) == Counter(expected_moves(polls, number))
        removed = Counter(of_type(result, "fine_tune.removed"))
        assert removed == Counter(expected_removals(polls, number))


@given(histories)
def test_every_confirmed_way_out_of_failed_has_exactly_one_event(polls):
    recovered = {"created", "training", "completed"}
    for number, result in enumerate(poll_results(polls)[1:], 1):
        left = [
            move[0]
            for move in expected_moves(polls, number)
            if move[1] == "failed" and move[2] in recovered
        ]
        assert sorted(of_type(result, "fine_tune.recovered")) == sorted(left)


@given(histories)
def test_changed_rows_accumulate_to_the_state_and_match_the_list(polls):
    tracked: dict[str, object] = {}
    for number, result in enumerate(poll_results(polls)):
        tracked |= result.changed
        assert tracked == result.state.tracked
        for fine_tune, read in snapshot(polls[number], number).fine_tunes.items():
            kept = result.state.tracked[fine_tune]
            status = confirmed(readings(polls, fine_tune, number))
            assert (kept.fine_tune.name, kept.fine_tune.status) == (read.name, status)
            assert kept.missed_polls == 0


@given(histories)
def test_counters_equal_the_sum_of_the_events(polls):
    results = poll_results(polls)
    events: list[Event] = [event for result in results[1:] for event in events_of(result)]
    moved: Counter[tuple[str, str, str]] = Counter()
    removed: Counter[str] = Counter()
    for event in events:
        assert event.fine_tune is not None
        status = status_label(event.fine_tune.status)
        if event.type == "fine_tune.removed":
            removed[status] += 1
        elif event.type != "fine_tune.recovered":
            previous = event.previous_status
            origin = "none" if previous is None else status_label(previous)
            moved[event.fine_tune.model_id, origin, status] += 1
    assert results[-1].state.counters.transitions == moved
    assert results[-1].state.counters.removed == removed


@given(histories)
def test_event_ids_are_unique(polls):
    ids = [event.id for result in poll_results(polls) for event in events_of(result)]
    assert len(set(ids)) == len(ids)


@given(histories, st.integers(min_value=0))
def test_a_result_computed_again_after_a_crash_has_the_same_event_ids(polls, crash):
    results = poll_results(polls)
    number = crash % len(polls)
    before = results[number - 1].state if number else None
    later = poll_result(before, snapshot(polls[number], number + 1000), rules())
    assert poll_result(before, snapshot(polls[number], number), rules()) == results[number]
    assert [event.id for event in events_of(later)] == [
        event.id for event in events_of(results[number])
    ]


@given(histories)
def test_an_unchanged_list_has_no_events_once_confirmed(polls):
    state = poll_results(polls)[-1].state
    last = snapshot(polls[-1], len(polls))
    for _ in range(2):
        state = poll_result(state, last, rules()).state
    for _ in range(2):
        again = poll_result(state, last, rules())
        assert (again.changed, events_of(again), again.state) == ({}, [], state)
        assert again.state.tracked is state.tracked, "to copy it takes long for a large account"


@given(histories)
def test_baseline_with_summary_has_one_event(polls):
    [event] = events_of(poll_results(polls)[0])
    assert event.type == "agent.baseline"
    assert event.facts["total"] == len(polls[0])
    assert event.facts["failed"] == list(polls[0].values()).count("failed")


@given(histories)
def test_silent_baseline_has_no_event_and_later_polls_are_equal(polls):
    first, *rest = poll_results(polls, rules("silent"))
    assert events_of(first) == []
    assert rest == poll_results(polls)[1:]


@given(histories)
def test_alerting_baseline_has_an_event_per_failure_and_no_transition(polls):
    first, *rest = poll_results(polls, rules("alert"))
    failed = [key for key, status in polls[0].items() if status == "failed"]
    assert of_type(first, "fine_tune.failed") == failed
    assert all(event.previous_status is None for event in events_of(first))
    assert first.state.counters.transitions == {}
    ids = [event.id for result in (first, *rest) for event in events_of(result)]
    assert len(set(ids)) == len(ids)


def test_empty_account_has_a_baseline_and_its_first_failure_alerts():
    first, second = poll_results([{}, {"a": "failed"}])
    assert [event.type for event in events_of(first)] == ["agent.baseline"]
    assert [event.type for event in events_of(second)] == ["fine_tune.failed"]


def test_summary_ids_differ_by_account_and_base_url():
    """The store accepts an id once: a new baseline with the id of another would be dropped."""
    keys = [
        KEY,
        AccountKey(KEY.name, "https://eu.example"),
        AccountKey("second", KEY.base_url),
    ]
    summaries = [poll_result(None, snapshot({}), replace(rules(), key=key)).events for key in keys]
    assert len({event.id for events in summaries for event, _ in events}) == 3
