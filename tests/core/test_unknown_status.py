"""Statuses that nobody knows are reported once; configured ones are failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.account import MAX_UNKNOWN_STATUSES, AccountState, PollResult
from exporter.core.status import CanonicalStatuses, canonical_status
from tests.core.histories import (
    Poll,
    events_of,
    histories,
    of_one,
    poll_result,
    poll_results,
    rules,
    snapshot,
    unknown_statuses_of,
)

ERROR = replace(rules(), failed_statuses=frozenset({"failed", "error"}))


def count_of_failed(result: PollResult) -> int:
    assert result.status.counts is not None
    return result.status.counts["model-a", "failed"]


def reports(polls: list[Poll]) -> list[list[str]]:
    return list(map(unknown_statuses_of, poll_results(polls)))


@pytest.mark.parametrize(
    "spelling",
    ["failed", "FAILED", "Failed", "failed ", "\tfailed\n", "fai\u200bled", "\ufefffailed"],
)
def test_any_spelling_of_failed_is_a_failure(spelling):
    last = poll_results([{"a": "training"}, {"a": spelling}])[-1]
    [event] = events_of(last)
    assert event.type == "fine_tune.failed"
    assert event.fine_tune is not None
    assert event.fine_tune.status == spelling, "stored as it was sent"
    assert last.state.tracked["a"].fine_tune.status == spelling
    assert count_of_failed(last) == 1
    assert last.state.counters.transitions == {("model-a", "training", "failed"): 1}
    assert unknown_statuses_of(last) == []


@pytest.mark.parametrize("spelling", ["error", "ERROR", " Error "])
def test_a_configured_status_is_a_failure_everywhere(spelling):
    last = poll_results([{"a": "training"}, {"a": spelling, "b": spelling}], ERROR)[-1]
    assert [event.type for event in events_of(last)] == ["fine_tune.failed"] * 2
    assert count_of_failed(last) == 1
    assert last.status.oldest.keys() == {"failed"}
    assert last.state.counters.transitions == {
        ("model-a", "training", "failed"): 1,
        ("model-b", "none", "failed"): 1,
    }
    assert unknown_statuses_of(last) == []


def test_a_configured_failure_is_left_as_failed_is():
    polls = of_one("training error failed error training error training training")
    found = [[event.type for event in events_of(each)] for each in poll_results(polls, ERROR)]
    left = ["fine_tune.changed", "fine_tune.recovered"]
    assert found[1:8] == [["fine_tune.failed"], [], [], [], [], [], left]


def test_the_baseline_counts_configured_failures():
    [summary] = events_of(poll_results([{"a": "error", "b": "failed", "c": "paused"}], ERROR)[0])
    assert (summary.facts["failed"], summary.facts["unknown"]) == (2, 1)
    named = summary.facts["failed_ones"]
    assert isinstance(named, list)
    assert [each["status"] for each in named] == ["error", "failed"]


def then(state: AccountState, poll: Poll, number: int, *, configured: bool) -> PollResult:
    return poll_result(state, snapshot(poll, number), ERROR if configured else rules())


def test_a_status_that_is_configured_later_is_a_failure_then():
    """Nobody was told of these when they entered it."""
    state = poll_results([{"a": "training"}, {"a": "error", "gone": "error"}])[-1].state
    state = then(state, {"a": "error"}, 2, configured=False).state
    state = then(state, {"a": "error"}, 3, configured=False).state
    configured = then(state, {"a": "error", "gone": "error"}, 4, configured=True)
    assert [(e.type, e.subject) for e in events_of(configured)] == [
        ("fine_tune.failed", "a"),
        ("fine_tune.failed", "gone"),
    ]
    assert configured.state.counters.transitions["model-a", "unknown", "failed"] == 1
    again = then(configured.state, {"a": "error", "gone": "error"}, 5, configured=True)
    assert events_of(again) == []


def test_a_status_that_is_configured_no_longer_is_left_after_two_polls():
    state = poll_results([{"a": "training"}, {"a": "error"}], ERROR)[-1].state
    for number, expected in ((2, []), (3, ["fine_tune.changed"]), (4, [])):
        result = then(state, {"a": "error"}, number, configured=False)
        assert [event.type for event in events_of(result)] == expected
        state = result.state


def test_a_new_status_is_reported_once():
    assert reports(
        [{"a": "paused"}, {"a": "paused", "b": "Paused "}, {"a": "queued", "b": "paused"}]
    ) == [["paused"], [], ["queued"]]


def test_a_report_says_what_to_do():
    [_, (event, _)] = poll_result(None, snapshot({"a": 'odd "one"', "b": "training"})).events
    assert event.type == "agent.unknown_status"
    assert (event.facts["status"], event.facts["total"]) == ('odd "one"', 1)
    assert 'alerts.failed_statuses: [failed, "odd \\"one\\""]' in str(event.facts["text"])


def test_a_missing_status_is_reported_without_that_advice():
    [_, (event, _)] = poll_result(None, snapshot({"a": "unknown"})).events
    assert event.facts["status"] == "unknown"
    assert "failed_statuses" not in str(event.facts["text"])


def test_reports_are_bounded_and_the_last_one_says_so():
    many = snapshot({f"ft{n}": f"status {n:03}" + "x" * 5000 for n in range(300)})
    first = poll_result(None, many)
    found = [event for event, _ in first.events if event.type == "agent.unknown_status"]
    assert len(found) == MAX_UNKNOWN_STATUSES
    closing = ["are not reported" in str(event.facts["text"]) for event in found]
    assert closing == [False] * (MAX_UNKNOWN_STATUSES - 1) + [True]
    assert all(len(str(event.facts["text"])) < 1000 for event in found)
    later = poll_result(first.state, snapshot({"ft0": "another"}, 1))
    assert unknown_statuses_of(later) == []


@given(histories)
def test_every_unknown_status_is_reported_once_when_it_is_first_seen(polls):
    known = {"created", "training", "completed", "failed"}
    seen: set[str] = set()
    for poll, found in zip(polls, reports(polls), strict=True):
        new = {canonical_status(each) for each in poll.values()} - known - seen
        assert found == sorted(new)
        seen |= new


def test_another_organisation_repeats_no_report():
    first = poll_result(None, replace(snapshot({"a": "paused"}), key_fingerprint="1"))
    second = poll_result(first.state, replace(snapshot({"b": "paused"}, 1), key_fingerprint="2"))
    assert second.kind == "baseline"
    assert unknown_statuses_of(second) == []


@given(st.text(max_size=2000))
def test_canonical_statuses_are_bounded_and_canonical(text):
    found = canonical_status(text)
    assert len(found) <= 2000
    assert CanonicalStatuses({"failed"})[text] == found
    assert canonical_status(f" {text.upper().lower()}\n") == canonical_status(text.upper().lower())
