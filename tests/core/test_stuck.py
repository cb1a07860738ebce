"""A fine-tune that is too long in created or training has one stuck event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from exporter.core.account import AccountState, PollResult
from exporter.core.counters import DurationBucket, DurationKey
from exporter.core.diff import after_clock_jump
from exporter.core.events import stuck_event, transition_event
from exporter.core.model import TERMINAL, AccountKey, FineTune, TrackedFineTune
from tests.core.histories import (
    INTERVAL,
    KEY,
    SAME,
    START,
    Poll,
    confirmed,
    events_of,
    histories,
    of_one,
    poll_result,
    poll_results,
    readings,
    rules,
    snapshot,
    transition_of,
)

AFTER = 2.5 * INTERVAL  # three polls after the one that saw it begin
DAY = 86_400.0

ROWS = [
    ("an event after the delay, not before", "- training training training training", "4"),
    ("one event", "- training training training training training training", "4"),
    ("what was there at the baseline counts from then", "training training training training", "3"),
    ("created counts as well", "created created created created", "3"),
    ("another status starts again", "created created training training training", ""),
    (
        "each time in a status has an event",
        "created created created created training training training training",
        "37",
    ),
    ("what has ended is never stuck", "failed failed failed failed failed", ""),
    ("nor is what completed", "completed completed completed completed completed", ""),
    ("nor is what nobody knows", "paused paused paused paused paused", ""),
    ("an unconfirmed exit starts nothing", "failed training failed failed failed", ""),
    ("a confirmed one does", "failed training training training training training", "5"),
    ("a missing one has its event when it is back", "training training training - training", "4"),
    ("what was removed is not", "training training - - - - -", ""),
    ("a return from removal starts again", "training training - - training training training", ""),
    ("and takes the whole delay", "training - - training training training training", "6"),
    ("with one event", "training training training training - - training training training", "3"),
    ("a case of its own is the same status", "- Training training TRAINING training", "4"),
]


@pytest.mark.parametrize(
    ("history", "numbers"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_polls_with_a_stuck_event(history, numbers):
    found = poll_results(of_one(history), rules(stuck_after=AFTER))
    assert "".join(str(number) for number, result in enumerate(found) if stuck(result)) == numbers


def stuck(result: PollResult) -> list[str]:
    return [
        each.fine_tune.id
        for each in events_of(result)
        if each.fine_tune is not None and each.type == "fine_tune.stuck"
    ]


def expected(polls: list[Poll], fine_tune: str, after: float) -> list[int]:
    """Numbers of the polls with the event: the first poll of each status that takes too long."""
    numbers: list[int] = []
    status, begun, silent = None, 0, False
    for number, poll in enumerate(polls):
        seen = readings(polls, fine_tune, number)
        now = confirmed(seen)
        if now != status:
            status, begun, silent = now, number, False
        elif seen[-1] is not None and seen[-3:-1] == [None, None]:
            begun = number  # it was removed and is back
        lasts = (number - begun) * INTERVAL > after
        if lasts and fine_tune in poll and status in {"created", "training"} and not silent:
            numbers.append(number)
            silent = True
    return numbers


afters = st.sampled_from([0.5 * INTERVAL, INTERVAL, AFTER, 4 * INTERVAL])


@given(histories, afters)
def test_one_stuck_event_per_time_in_status(polls, after):
    found = poll_results(polls, rules(stuck_after=after))
    for fine_tune in "abc":
        numbers = [number for number, result in enumerate(found) if fine_tune in stuck(result)]
        assert numbers == expected(polls, fine_tune, after)


@given(histories, afters)
def test_stuck_changes_no_counter_and_no_other_event(polls, after):
    for with_stuck, plain in zip(
        poll_results(polls, rules(stuck_after=after)), poll_results(polls), strict=True
    ):
        others = [each for each in events_of(with_stuck) if each.type != "fine_tune.stuck"]
        assert others == events_of(plain)
        assert with_stuck.state.counters == plain.state.counters
        assert with_stuck.state.labels == plain.state.labels


@given(histories, afters)
def test_event_ids_are_unique(polls, after):
    found = [
        each.id
        for result in poll_results(polls, rules(stuck_after=after))
        for each in events_of(result)
    ]
    assert len(set(found)) == len(found)


@given(histories, afters)
def test_stuck_mark_is_stored_with_its_event(polls, after):
    tracked: dict[str, TrackedFineTune] = {}
    for result in poll_results(polls, rules(stuck_after=after)):
        tracked |= result.changed
        assert tracked == result.state.tracked
        assert all(result.changed[fine_tune].stuck for fine_tune in stuck(result))


def jumping(polls: list[Poll], at: int, jump: float, after: float) -> list[PollResult]:
    """What each poll leads to when the wall clock jumps before the one with number ``at``."""
    results: list[PollResult] = []
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        read = snapshot(poll, number)
        if number >= at:
            now = read.read_at + jump
            read = replace(read, read_at=now, clock_jump=jump if number == at else 0.0)
        results.append(poll_result(state, read, rules(stuck_after=after)))
        state = results[-1].state
    return results


@given(histories, st.integers(0, 13), st.sampled_from([DAY, -DAY, 1e9, 30.0]), afters)
def test_clock_jump_changes_no_event(polls, at, jump, after):
    def ids(found: list[PollResult]) -> list[list[str]]:
        return [[each.id for each in events_of(result)] for result in found]

    assert ids(jumping(polls, at, jump, after)) == ids(
        poll_results(polls, rules(stuck_after=after))
    )


def test_since_moved_by_a_clock_jump_is_stored():
    last = jumping(of_one("training training", SAME), at=1, jump=DAY, after=AFTER)[-1]
    assert last.changed[SAME].since == START + DAY
    assert last.state.tracked[SAME] == last.changed[SAME]


def test_corrected_clock_leaves_no_since_in_the_future():
    """A machine that starts in 1970 has times in its store that begin fifty years later."""
    right = snapshot({"ft": "training"}, 1)
    tracked = {"ft": TrackedFineTune(FineTune("ft", status="training"), 1, START, since_seen=True)}
    moved = after_clock_jump(tracked, replace(right, clock_jump=1e9))
    assert moved["ft"].since == right.read_at


def test_clock_jump_keeps_since_of_terminal_statuses():
    failed = TrackedFineTune(FineTune("ft", status="failed"), 1, START, since_seen=True)
    jumped = replace(snapshot({}), clock_jump=DAY)
    moved = after_clock_jump({"ft": failed}, jumped)
    assert moved == {"ft": structs.replace(failed, since_seen=False)}
    assert after_clock_jump(moved, jumped) == {}


@given(histories, st.integers(0, 13), st.sampled_from([DAY, -DAY, 1e9]))
def test_clock_jump_changes_no_observed_duration(polls, at, jump):
    """Those of what was over when the clock was set are left out, all others are as ever."""

    def durations(found: list[PollResult]) -> dict[DurationKey, DurationBucket]:
        return dict(found[-1].state.counters.durations)

    expected, found = durations(poll_results(polls)), durations(jumping(polls, at, jump, 1e9))
    for key, each in expected.items():
        assert found.get(key, DurationBucket()).total <= each.total
        assert found.get(key, DurationBucket()).seconds <= each.seconds
        assert key[0] in TERMINAL or found[key] == each
    assert found.keys() <= expected.keys()


def test_stuck_event_has_its_start_and_the_same_status():
    result = poll_results(of_one("training training training training"), rules(stuck_after=AFTER))[
        3
    ]
    [numbers] = events_of(result)
    assert (numbers.type, numbers.observed_at) == ("fine_tune.stuck", START + 3 * INTERVAL)
    assert numbers.fine_tune == FineTune("ft", "poll 3", model_id="model-ft", status="training")
    assert numbers.previous_status == "training"
    assert numbers.facts == {"since": "1970-01-01T00:16:40Z", "seconds": 180}


def test_stuck_event_id_differs_from_status_and_removal():
    """A status may be called anything, also what this might be called."""
    named = FineTune("ft", status="stuck")
    tracked = TrackedFineTune(named, 1, START, since_seen=True)
    there, gone = transition_of(named, 1, None), transition_of(named, 1, "stuck", removal=1)
    ids = {transition_event("store", KEY, each, START).id for each in (there, gone)}
    assert stuck_event("store", KEY, tracked, START).id not in ids


def test_stuck_event_ids_differ_by_store_account_base_url_and_sequence():
    tracked = TrackedFineTune(FineTune("ft", status="training"), 1, START, since_seen=True)
    elsewhere, renamed = AccountKey(KEY.name, "https://eu.example"), AccountKey("b", KEY.base_url)
    ids = {
        stuck_event("store", KEY, tracked, START).id,
        stuck_event("restored", KEY, tracked, START).id,
        stuck_event("store", elsewhere, tracked, START).id,
        stuck_event("store", renamed, tracked, START).id,
        stuck_event("store", KEY, structs.replace(tracked, sequence=3), START).id,
    }
    assert len(ids) == 5
    assert stuck_event("store", KEY, tracked, START + 1).id in ids
