"""Any sequence of polls against a model that looks back over what was read, and keeps no state."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

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


def moves_of(step: PollResult) -> list[tuple[str, str | None, str]]:
    return [
        (event.fine_tune.id, event.previous_status, event.fine_tune.status)
        for event in events_of(step)
        if event.fine_tune is not None and event.type != "fine_tune.removed"
    ]


def of_type(step: PollResult, kind: str) -> list[str]:
    return [
        event.fine_tune.id for event in events_of(step) if event.fine_tune and event.type == kind
    ]


@given(histories)
def test_every_entry_into_failed_alerts_exactly_once(polls):
    for number, step in enumerate(poll_results(polls)[1:], 1):
        entries = [move[0] for move in expected_moves(polls, number) if move[2] == "failed"]
        assert sorted(of_type(step, "fine_tune.failed")) == sorted(entries)


@given(histories)
def test_every_confirmed_change_and_every_removal_is_an_event_exactly_once(polls):
    for number, step in enumerate(poll_results(polls)[1:], 1):
        assert Counter(moves_of(step)) == Counter(expected_moves(polls, number))
        removed = Counter(of_type(step, "fine_tune.removed"))
        assert removed == Counter(expected_removals(polls, number))


@given(histories)
def test_what_is_known_and_what_changed_make_what_was_read(polls):
    known: dict[str, object] = {}
    for number, step in enumerate(poll_results(polls)):
        known |= step.changed
        assert known == step.state.tracked
        for fine_tune, read in snapshot(polls[number], number).fine_tunes.items():
            kept = step.state.tracked[fine_tune]
            status = confirmed(readings(polls, fine_tune, number))
            assert (kept.fine_tune.name, kept.fine_tune.status) == (read.name, status)
            assert kept.missed_polls == 0


@given(histories)
def test_the_counters_are_the_sum_of_the_events(polls):
    taken = poll_results(polls)
    events: list[Event] = [event for step in taken[1:] for event in events_of(step)]
    moved: Counter[tuple[str, str, str]] = Counter()
    removed: Counter[str] = Counter()
    for event in events:
        assert event.fine_tune is not None
        status = status_label(event.fine_tune.status)
        if event.type == "fine_tune.removed":
            removed[status] += 1
        else:
            previous = event.previous_status
            origin = "none" if previous is None else status_label(previous)
            moved[event.fine_tune.model_id, origin, status] += 1
    assert taken[-1].state.counters.transitions == moved
    assert taken[-1].state.counters.removed == removed


@given(histories)
def test_no_two_events_have_the_same_id(polls):
    ids = [event.id for step in poll_results(polls) for event in events_of(step)]
    assert len(set(ids)) == len(ids)


@given(histories, st.integers(min_value=0))
def test_a_step_computed_again_after_a_crash_has_the_same_events(polls, crash):
    taken = poll_results(polls)
    number = crash % len(polls)
    before = taken[number - 1].state if number else None
    later = poll_result(before, snapshot(polls[number], number + 1000), rules())
    assert poll_result(before, snapshot(polls[number], number), rules()) == taken[number]
    assert [event.id for event in events_of(later)] == [
        event.id for event in events_of(taken[number])
    ]


@given(histories)
def test_the_same_list_again_tells_nothing_once_it_is_confirmed(polls):
    state = poll_results(polls)[-1].state
    last = snapshot(polls[-1], len(polls))
    for _ in range(2):
        state = poll_result(state, last, rules()).state
    for _ in range(2):
        again = poll_result(state, last, rules())
        assert (again.changed, events_of(again), again.state) == ({}, [], state)
        assert again.state.tracked is state.tracked, "to copy it takes long for a large account"


@given(histories)
def test_a_summary_is_all_that_a_baseline_tells(polls):
    [event] = events_of(poll_results(polls)[0])
    assert event.type == "agent.baseline"
    assert event.facts["total"] == len(polls[0])
    assert event.facts["failed"] == list(polls[0].values()).count("failed")


@given(histories)
def test_a_silent_baseline_tells_nothing_and_what_follows_is_the_same(polls):
    first, *rest = poll_results(polls, rules("silent"))
    assert events_of(first) == []
    assert rest == poll_results(polls)[1:]


@given(histories)
def test_an_alerting_baseline_tells_what_has_failed_and_counts_no_transition(polls):
    first, *rest = poll_results(polls, rules("alert"))
    failed = [key for key, status in polls[0].items() if status == "failed"]
    assert of_type(first, "fine_tune.failed") == failed
    assert all(event.previous_status is None for event in events_of(first))
    assert first.state.counters.transitions == {}
    ids = [event.id for step in (first, *rest) for event in events_of(step)]
    assert len(set(ids)) == len(ids)


def test_an_empty_account_has_a_baseline_and_its_first_failure_alerts():
    first, second = poll_results([{}, {"a": "failed"}])
    assert [event.type for event in events_of(first)] == ["agent.baseline"]
    assert [event.type for event in events_of(second)] == ["fine_tune.failed"]


def test_each_account_and_each_base_url_has_a_summary_of_its_own():
    """The store takes an id once: under another's id a new baseline would never be told."""
    keys = [
        KEY,
        AccountKey(KEY.name, "https://eu.example"),
        AccountKey("second", KEY.base_url),
    ]
    told = [poll_result(None, snapshot({}), replace(rules(), key=key)).events for key in keys]
    assert len({event.id for events in told for event, _ in events}) == 3
