"""Lists that another API key read: a new key of the same organisation, or another organisation."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.account import AccountState, PollResult, Rules
from exporter.core.model import FineTune, Snapshot
from tests.core.histories import INTERVAL, START, events_of, poll_result, rules

Read = tuple[str, dict[str, str]]
"""The fingerprint of the key, and the status of each fine-tune by id."""


def results_of(polls: Iterable[Read], following: Rules | None = None) -> list[PollResult]:
    """The result of each poll, with the states and confirmations that the poller hands over."""
    results: list[PollResult] = []
    state: AccountState | None = None
    empty_with_key = None
    for number, (key, poll) in enumerate(polls):
        fine_tunes = {each: FineTune(each, status=status) for each, status in poll.items()}
        read = Snapshot(
            fine_tunes,
            START + number * INTERVAL,
            key_fingerprint=key,
            confirmed=bool(poll) or empty_with_key == key,
        )
        result = poll_result(state, read, following)
        empty_with_key = None if poll else key
        if result.kind != "undecided":
            state = result.state
        results.append(result)
    return results


def types_of(result: PollResult) -> list[str]:
    return [
        event.type + (f" {event.fine_tune.id}" if event.fine_tune else "")
        for event in events_of(result)
    ]


def counts_of(result: PollResult) -> list[int]:
    assert result.status.counts is not None
    return [*result.status.counts.values()]


A = {f"a{n}": "failed" if n < 11 else "training" for n in range(40)}
B = {f"b{n}": "failed" if n < 11 else "training" for n in range(30)}


def test_another_organisation_is_a_new_baseline():
    first, second, *later = results_of(
        [("1", A), ("2", B), ("2", B), ("2", {**B, "b20": "failed"})]
    )
    assert types_of(first) == types_of(second) == ["agent.baseline"]
    assert [types_of(each) for each in later] == [[], ["fine_tune.failed b20"]]
    [summary] = events_of(second)
    assert (summary.facts["total"], summary.facts["failed"]) == (30, 11)
    assert summary.facts["retired"] == 40
    assert "another organisation" in str(summary.facts["text"])
    assert later[-1].state.counters.removed == {}
    assert second.state.counters.transitions == {}
    assert second.state.baselines == 2
    assert {each for each, row in second.state.tracked.items() if row.removed} == A.keys()
    assert sum(counts_of(second)) == 30


def test_counters_keep_their_values():
    polls = [("1", {"a": "training"}), ("1", {"a": "failed"}), ("2", B)]
    *_, before, after = results_of(polls)
    assert after.state.counters == before.state.counters
    assert sum(after.state.counters.transitions.values()) == 1


@pytest.mark.parametrize(
    ("first_run", "expected"), [("silent", 0), ("alert", 11)], ids=["silent", "alert"]
)
def test_the_new_baseline_follows_first_run(first_run, expected):
    result = results_of([("1", A), ("2", B)], rules(first_run))[-1]
    assert types_of(result) == [f"fine_tune.failed b{n}" for n in range(expected)]


def test_a_new_key_of_the_same_organisation_changes_nothing():
    same = {"a0": "failed", "a20": "failed", "new": "failed"}
    _, second, third = results_of([("1", A), ("2", same), ("2", same)])
    assert types_of(second) == ["fine_tune.failed a20", "fine_tune.failed new"]
    assert len(types_of(third)) == 38
    assert third.state.counters.removed == {"failed": 10, "training": 28}
    assert third.state.key_fingerprint == "2"


def test_one_that_the_last_poll_missed_still_identifies_the_organisation():
    polls = [("1", {"a": "training", "b": "training"}), ("1", {"b": "training"})]
    result = results_of([*polls, ("2", {"a": "failed"})])[-1]
    assert types_of(result) == ["fine_tune.failed a"]


def test_an_unknown_key_is_no_other_organisation():
    """A state or a client without fingerprints is compared as ever."""
    for keys in (("", "2"), ("1", "")):
        result = results_of(zip(keys, [A, B], strict=True))[-1]
        assert len(types_of(result)) == 30
        assert result.state.key_fingerprint == "".join(keys)


def test_an_empty_list_of_a_new_key_decides_nothing_until_it_is_repeated():
    back = {**A, "a20": "failed"}
    for key in ("1", "2"):
        _, empty, again = results_of([("1", A), ("2", {}), (key, back)])
        assert (empty.kind, types_of(empty), empty.is_empty) == ("undecided", [], True)
        assert sum(counts_of(empty)) == 0
        assert types_of(again) == ["fine_tune.failed a20"]
        assert again.state.counters.removed == {}


def test_a_repeated_empty_list_of_a_new_key_is_a_baseline():
    *_, second, third = results_of([("1", A), ("2", {}), ("2", {}), ("2", {"b": "failed"})])
    [summary] = events_of(second)
    assert (summary.facts["total"], summary.facts["retired"]) == (0, 40)
    assert second.state.counters.removed == {}
    assert types_of(third) == ["fine_tune.failed b"]


def test_empty_lists_of_different_keys_do_not_confirm_each_other():
    results = results_of([("1", A), ("2", {}), ("3", {}), ("2", {}), ("1", A)])
    assert [each.kind for each in results[1:4]] == ["undecided"] * 3
    assert types_of(results[4]) == []


def test_an_empty_account_with_a_new_key_stays_as_it_is():
    results = results_of([("1", {}), ("1", {}), ("2", {}), ("2", {}), ("2", {"b": "failed"})])
    assert [types_of(each) for each in results] == [
        [],
        ["agent.baseline"],
        [],
        [],
        ["fine_tune.failed b"],
    ]


def test_a_new_key_of_an_account_that_never_had_a_fine_tune_reads_another_organisation():
    result = results_of([("1", {}), ("1", {}), ("2", B)])[-1]
    assert types_of(result) == ["agent.baseline"]
    assert events_of(result)[0].facts["retired"] == 0


def test_the_key_of_an_empty_organisation_by_mistake_loses_no_failure():
    """The fine-tunes that are not watched meanwhile are compared with what was stored."""
    polls = [("1", A), ("2", {}), ("2", {}), ("1", {**A, "a20": "failed", "new": "failed"})]
    result = results_of(polls)[-1]
    assert types_of(result) == ["fine_tune.failed a20", "fine_tune.failed new"]
    assert result.state.counters.removed == {}


def test_back_at_the_first_organisation_no_event_id_is_repeated():
    """A repeated id would be dropped by the store: that failure would never be sent."""
    started, failed = {"a": "training"}, {"a": "failed"}
    results = results_of([("1", started), ("1", failed), ("2", B), ("1", started), ("1", failed)])
    ids = [event.id for result in results for event in events_of(result)]
    assert [types_of(each)[0] for each in results] == [
        "agent.baseline",
        "fine_tune.failed a",
        "agent.baseline",
        "agent.baseline",
        "fine_tune.failed a",
    ]
    assert len(set(ids)) == len(ids) == 5


def test_an_empty_first_list_waits_for_its_confirmation():
    first, second, third = results_of([("1", {}), ("1", {}), ("1", {"a": "failed"})])
    assert (first.kind, first.is_empty, types_of(first)) == ("undecided", True, [])
    assert first.status.up
    assert set(counts_of(first)) <= {0}
    assert types_of(second) == ["agent.baseline"]
    assert types_of(third) == ["fine_tune.failed a"]


def test_a_list_that_was_empty_by_mistake_is_no_baseline():
    first, second = results_of([("1", {}), ("1", A)])
    assert first.kind == "undecided"
    [summary] = events_of(second)
    assert (summary.facts["total"], "retired" in summary.facts) == (40, False)


organisations = st.sampled_from(["ab", "cd"])
lists = st.dictionaries(
    st.sampled_from("01"), st.sampled_from(["training", "failed", "completed"]), max_size=2
)
reads = st.lists(st.tuples(st.sampled_from("abcd"), lists), min_size=1, max_size=10)
"""Two organisations with two keys each; each has fine-tunes of its own."""


def of_organisation(read: Read) -> Read:
    key, statuses = read
    organisation = "one" if key in "ab" else "two"
    return key, {f"{organisation} {number}": each for number, each in statuses.items()}


@given(reads)
def test_whatever_the_keys_event_ids_are_unique_and_rows_accumulate(history):
    tracked: dict[str, object] = {}
    ids: list[str] = []
    for result in results_of(map(of_organisation, history)):
        if result.kind != "undecided":
            tracked |= result.changed
            assert tracked == result.state.tracked
        ids += [event.id for event, _ in result.events]
    assert len(set(ids)) == len(ids)


@given(reads)
@example([("a", {"0": "training"}), ("a", {}), ("c", {}), ("a", {})])
def test_whatever_the_keys_no_removal_is_false(history):
    """A removal has two lists of the same organisation that do not have it, and none between.

    An empty list that is not confirmed is compared with nothing, so it does not count.
    """
    compared: list[Read] = []
    polls = list(map(of_organisation, history))
    for read, result in zip(polls, results_of(polls), strict=True):
        if result.kind != "undecided":
            compared.append(read)
        for each in types_of(result):
            removed = each.removeprefix("fine_tune.removed ")
            if removed != each:
                assert len({key in "ab" for key, _ in compared[-2:]}) == 1
                assert all(removed not in poll for _, poll in compared[-2:])
                assert any(removed in poll for _, poll in compared[:-2])
