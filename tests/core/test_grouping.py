"""Grouping of queued events into messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.events import Event
from exporter.core.grouping import Grouping, QueuedEvent, due_groups
from exporter.core.model import FineTune

EACH = Grouping(group_wait=5.0, group_interval=0.0, digest_threshold=5, most_events=100)
GROUPED = replace(EACH, group_interval=300.0, most_events=1_000_000)


def failures(*ages: float, first: int = 0) -> list[QueuedEvent]:
    return [
        QueuedEvent(n, Event(f"evt_{n}", "fine_tune.failed", "a", 0.0, FineTune(f"ft_{n}")), age)
        for n, age in enumerate(ages, first)
    ]


def trouble(age: float) -> QueuedEvent:
    return QueuedEvent(900, Event("evt_900", "agent.poll_failing", "a", 0.0), age)


def sizes(queued: list[QueuedEvent], grouping: Grouping, held_for: float = 0.0) -> list[int]:
    return [len(group) for group in due_groups(queued, grouping, held_for)[0]]


def test_no_events_no_message():
    assert due_groups([], GROUPED, 0.0) == ([], 0.0)


def test_events_wait_for_the_group_wait_of_the_oldest():
    assert due_groups(failures(4.0, 1.0), EACH, 0.0) == ([], 1.0)
    assert sizes(failures(5.0, 1.0), EACH) == [1]


def test_without_an_interval_few_events_are_sent_one_by_one_oldest_first():
    queued = failures(*[9.0] * 5)
    assert due_groups(queued, EACH, 0.0) == ([queued[:1]], 0.0)


def test_without_an_interval_more_events_than_the_threshold_become_digests_of_bounded_size():
    assert sizes(failures(*[9.0] * 250), EACH) == [100, 100, 50]
    assert sizes(failures(*[9.0] * 6), EACH) == [6]


def test_without_an_interval_nothing_is_held_back():
    assert sizes(failures(9.0), EACH, held_for=100.0) == [1]


def test_with_an_interval_everything_due_is_one_message():
    assert sizes(failures(9.0), GROUPED) == [1]
    assert sizes(failures(9.0, 3.0), GROUPED) == [2]
    assert sizes(failures(*[9.0] * 36), GROUPED) == [36]


def test_with_an_interval_later_events_are_held_back_until_it_ends():
    assert due_groups(failures(200.0, 100.0), GROUPED, 42.0) == ([], 42.0)
    assert due_groups(failures(1.0), GROUPED, 2.0) == ([], 4.0)


def test_events_of_the_agent_are_never_held_back():
    queued = [*failures(9.0), trouble(9.0)]
    groups, wait = due_groups(queued, GROUPED, 42.0)
    assert [[each.number for each in group] for group in groups] == [[900]]
    assert wait == 42.0


def test_events_of_the_agent_are_not_mixed_with_those_of_fine_tunes():
    groups, _ = due_groups([*failures(9.0, 9.0), trouble(9.0)], GROUPED, 0.0)
    assert sorted(len(group) for group in groups) == [1, 2]


@given(
    st.integers(0, 300),
    st.integers(0, 20),
    st.integers(1, 120),
    st.sampled_from([0.0, 300.0]),
)
def test_grouping_neither_loses_nor_duplicates_events(number, threshold, most, interval):
    grouping = Grouping(0.0, interval, threshold, most)
    pending = failures(*[1.0] * number)
    message: list[QueuedEvent] = []
    while pending:
        groups, _ = due_groups(pending, grouping, 0.0)
        assert groups
        assert all(1 <= len(each) <= most for each in groups)
        sent = [event for each in groups for event in each]
        assert pending[: len(sent)] == sent
        message, pending = message + sent, pending[len(sent) :]
    assert message == failures(*[1.0] * number)


@given(
    st.lists(st.floats(0, 400), max_size=20).map(lambda ages: sorted(ages, reverse=True)),
    st.floats(-400, 300),
)
def test_the_wait_leads_to_the_moment_when_something_is_due(ages, held_for):
    queued = failures(*ages)
    groups, wait = due_groups(queued, GROUPED, held_for)
    if queued and not groups:
        assert 0 < wait <= max(GROUPED.group_wait, held_for)
        later = [replace(each, age=each.age + wait + 1e-6) for each in queued]
        assert sizes(later, GROUPED, held_for - wait - 1e-6) == [len(queued)]
    else:
        assert wait == pytest.approx(0.0)
