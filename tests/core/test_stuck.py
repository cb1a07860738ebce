"""A fine-tune that stays too long in created or training is told once in each such stay."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.core.account import AccountState, PollResult
from exporter.core.counters import DurationBucket, DurationKey
from exporter.core.diff import after_clock_jump
from exporter.core.events import stuck_event, transition_event
from exporter.core.model import TERMINAL, AccountKey, FineTune, TrackedFineTune, Transition
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
)

AFTER = 2.5 * INTERVAL  # three polls after the one that saw it begin
DAY = 86_400.0

ROWS = [
    ("it is told when it lasted longer, not before", "- training training training training", "4"),
    ("it is told once", "- training training training training training training", "4"),
    ("what was there at the baseline counts from then", "training training training training", "3"),
    ("created is a stay as well", "created created created created", "3"),
    ("another status is another stay", "created created training training training", ""),
    (
        "each stay is told",
        "created created created created training training training training",
        "37",
    ),
    ("what has ended is never stuck", "failed failed failed failed failed", ""),
    ("nor is what completed", "completed completed completed completed completed", ""),
    ("nor is what nobody knows", "paused paused paused paused paused", ""),
    ("a way out that is not confirmed begins no stay", "failed training failed failed failed", ""),
    ("a confirmed one does", "failed training training training training training", "5"),
    ("what is missing is told when it is back", "training training training - training", "4"),
    ("what was removed is not", "training training - - - - -", ""),
    ("back from a removal it is in the same stay", "training training - - training", "4"),
    ("and told once in it", "training training training training - - training", "3"),
]


@pytest.mark.parametrize(("history", "told"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_which_polls_tell_it(history, told):
    found = poll_results(of_one(history), rules(stuck_after=AFTER))
    assert "".join(str(number) for number, step in enumerate(found) if stuck(step)) == told


def stuck(step: PollResult) -> list[str]:
    return [
        each.fine_tune.id
        for each in events_of(step)
        if each.fine_tune is not None and each.type == "fine_tune.stuck"
    ]


def expected(polls: list[Poll], fine_tune: str, after: float) -> list[int]:
    """The polls that tell it: the first of each stay that sees it there for too long."""
    told: list[int] = []
    status, begun, silent = None, 0, False
    for number, poll in enumerate(polls):
        now = confirmed(readings(polls, fine_tune, number))
        if now != status:
            status, begun, silent = now, number, False
        lasts = (number - begun) * INTERVAL > after
        if lasts and fine_tune in poll and status in {"created", "training"} and not silent:
            told.append(number)
            silent = True
    return told


afters = st.sampled_from([0.5 * INTERVAL, INTERVAL, AFTER, 4 * INTERVAL])


@given(histories, afters)
def test_it_is_told_exactly_once_in_each_stay_that_lasts_longer(polls, after):
    found = poll_results(polls, rules(stuck_after=after))
    for fine_tune in "abc":
        told = [number for number, step in enumerate(found) if fine_tune in stuck(step)]
        assert told == expected(polls, fine_tune, after)


@given(histories, afters)
def test_being_stuck_changes_no_counter_and_no_other_event(polls, after):
    for watched, plain in zip(
        poll_results(polls, rules(stuck_after=after)), poll_results(polls), strict=True
    ):
        others = [each for each in events_of(watched) if each.type != "fine_tune.stuck"]
        assert others == events_of(plain)
        assert watched.state.counters == plain.state.counters
        assert watched.state.labels == plain.state.labels


@given(histories, afters)
def test_no_two_events_have_the_same_id(polls, after):
    found = [
        each.id
        for step in poll_results(polls, rules(stuck_after=after))
        for each in events_of(step)
    ]
    assert len(set(found)) == len(found)


@given(histories, afters)
def test_what_is_told_is_to_be_stored_with_it(polls, after):
    known: dict[str, TrackedFineTune] = {}
    for step in poll_results(polls, rules(stuck_after=after)):
        known |= step.changed
        assert known == step.state.tracked
        assert all(step.changed[fine_tune].stuck for fine_tune in stuck(step))


def jumping(polls: list[Poll], at: int, jump: float, after: float) -> list[PollResult]:
    """What each poll leads to when the wall clock jumps before the one with number ``at``."""
    taken: list[PollResult] = []
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        read = snapshot(poll, number)
        if number >= at:
            now = read.read_at + jump
            read = replace(read, read_at=now, clock_jump=jump if number == at else 0.0)
        taken.append(poll_result(state, read, rules(stuck_after=after)))
        state = taken[-1].state
    return taken


@given(histories, st.integers(0, 13), st.sampled_from([DAY, -DAY, 1e9, 30.0]), afters)
def test_a_jump_of_the_wall_clock_changes_nothing_of_what_is_told(polls, at, jump, after):
    def ids(found: list[PollResult]) -> list[list[str]]:
        return [[each.id for each in events_of(step)] for step in found]

    assert ids(jumping(polls, at, jump, after)) == ids(
        poll_results(polls, rules(stuck_after=after))
    )


def test_a_stay_that_moved_with_the_clock_is_stored():
    last = jumping(of_one("training training", SAME), at=1, jump=DAY, after=AFTER)[-1]
    assert last.changed[SAME].since == START + DAY
    assert last.state.tracked[SAME] == last.changed[SAME]


def test_a_clock_set_right_makes_no_stay_begin_in_the_future():
    """A machine that starts in 1970 has stays in its store that begin fifty years later."""
    right = snapshot({"ft": "training"}, 1)
    known = {"ft": TrackedFineTune(FineTune("ft", status="training"), 1, START, since_seen=True)}
    moved = after_clock_jump(known, replace(right, clock_jump=1e9))
    assert moved["ft"].since == right.read_at


def test_what_is_over_stays_where_it_was_and_nobody_knows_how_long_it_takes():
    failed = TrackedFineTune(FineTune("ft", status="failed"), 1, START, since_seen=True)
    jumped = replace(snapshot({}), clock_jump=DAY)
    moved = after_clock_jump({"ft": failed}, jumped)
    assert moved == {"ft": structs.replace(failed, since_seen=False)}
    assert after_clock_jump(moved, jumped) == {}


@given(histories, st.integers(0, 13), st.sampled_from([DAY, -DAY, 1e9]))
def test_a_jump_of_the_wall_clock_makes_no_stay_longer_or_shorter(polls, at, jump):
    """Those of what was over when the clock was set are left out, all others are as ever."""

    def stays(found: list[PollResult]) -> dict[DurationKey, DurationBucket]:
        return dict(found[-1].state.counters.durations)

    expected, found = stays(poll_results(polls)), stays(jumping(polls, at, jump, 1e9))
    for key, each in expected.items():
        assert found.get(key, DurationBucket()).total <= each.total
        assert found.get(key, DurationBucket()).seconds <= each.seconds
        assert key[0] in TERMINAL or found[key] == each
    assert found.keys() <= expected.keys()


def test_its_event_says_since_when_and_that_nothing_changed():
    result = poll_results(of_one("training training training training"), rules(stuck_after=AFTER))[
        3
    ]
    [told] = events_of(result)
    assert (told.type, told.observed_at) == ("fine_tune.stuck", START + 3 * INTERVAL)
    assert told.fine_tune == FineTune("ft", "poll 3", model_id="model-ft", status="training")
    assert told.previous_status == "training"
    assert told.facts == {"since": "1970-01-01T00:16:40Z"}


def test_its_id_is_of_no_status_and_of_no_removal():
    """A status may be called anything, also what this might be called."""
    named = FineTune("ft", status="stuck")
    known = TrackedFineTune(named, 1, START, since_seen=True)
    there, gone = Transition(named, 1, None), Transition(named, 1, "stuck", removal=1)
    ids = {transition_event("store", KEY, each, START).id for each in (there, gone)}
    assert stuck_event("store", KEY, known, START).id not in ids


def test_its_id_is_of_one_store_one_account_one_base_url_and_one_stay():
    known = TrackedFineTune(FineTune("ft", status="training"), 1, START, since_seen=True)
    elsewhere, renamed = AccountKey(KEY.name, "https://eu.example"), AccountKey("b", KEY.base_url)
    ids = {
        stuck_event("store", KEY, known, START).id,
        stuck_event("restored", KEY, known, START).id,
        stuck_event("store", elsewhere, known, START).id,
        stuck_event("store", renamed, known, START).id,
        stuck_event("store", KEY, structs.replace(known, sequence=3), START).id,
    }
    assert len(ids) == 5
    assert stuck_event("store", KEY, known, START + 1).id in ids
