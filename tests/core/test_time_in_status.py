"""The time in a status is observed when its beginning and end were seen."""

import pytest
from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families as read_text

from exporter.core.account import PollResult
from exporter.core.counters import Counters, DurationBucket
from exporter.core.view import AccountStatus
from tests.core.histories import INTERVAL, histories, of_one, poll_results, readings
from tests.exposition.rendered import text
from tests.store.sample_polls import NOW, fine_tune, poll_result, snapshot_of

BOUNDS = ["60.0", "300.0", "900.0", "1800.0", "3600.0", "7200.0", "14400.0", "28800.0", "86400.0"]
NAME = "cartesia_fine_tune_status_duration_seconds"


ONE_DURATION = {"training": [1, 120]}
TWO_DURATIONS = {"created": [1, 60], "training": [1, 60]}


def durations_of(history: str) -> dict[str, list[float]]:
    """Status to number and seconds of its observations."""
    found: dict[str, list[float]] = {}
    for (status, _), bucket in poll_results(of_one(history))[-1].state.counters.durations.items():
        total, seconds = found.get(status, [0, 0])
        found[status] = [total + bucket.total, seconds + bucket.seconds]
    return found


@pytest.mark.parametrize(
    ("case", "history", "expected"),
    [
        ("the beginning before the baseline is not observed", "training failed", {}),
        ("what is seen to begin and to end is", "- training training failed", ONE_DURATION),
        ("each status by itself", "- created training failed", TWO_DURATIONS),
        ("a status without a name is unknown", "- odd training", {"unknown": [1, 60]}),
        ("a removal ends nothing", "- training - - -", {}),
        ("who was away meanwhile may have left long ago", "- training - - failed", {}),
        ("the time away does not count", "- training - - training failed", {}),
        ("nor what began while it was away", "- created - - training failed", {}),
        ("nor what began so and was confirmed later", "- failed - - training training failed", {}),
        ("also with a gap in between", "- failed - - training - training training failed", {}),
        (
            "after its return all is observed again",
            "- - - training - - training failed training training failed",
            {"failed": [1, 120], "training": [1, 60]},
        ),
        ("statuses are counted in any case", "- Training FAILED", {"training": [1, 60]}),
        ("missing one poll is not being away", "- training - failed", ONE_DURATION),
        ("leaving failed ends when it is confirmed", "- failed odd odd", {"failed": [1, 120]}),
    ],
)
def test_observed_durations(case, history, expected):
    assert durations_of(history) == expected, case


@pytest.mark.parametrize("seconds", [0.0, 0.25, 0.75])
def test_less_than_a_second_in_a_status_is_observed_as_it_is(seconds):
    state = poll_result(None, snapshot_of()).state
    state = poll_result(state, snapshot_of(fine_tune("a"))).state
    state = poll_result(state, snapshot_of(fine_tune("a", "failed"), at=NOW + seconds)).state
    assert state.counters.durations == {("training", 60.0): DurationBucket(1, seconds)}


def durations_in(result: PollResult) -> int:
    return sum(bucket.total for bucket in result.state.counters.durations.values())


@given(histories)
def test_durations_are_bounded_by_transitions_and_total_time(polls):
    last = poll_results(polls)[-1]
    moved = last.state.counters.transitions.items()
    assert durations_in(last) <= sum(number for (_, origin, _), number in moved if origin != "none")
    seconds = sum(bucket.seconds for bucket in last.state.counters.durations.values())
    assert 0 <= seconds <= 3 * INTERVAL * len(readings(polls, "a", len(polls)))


def histogram(counters: Counters, status: str) -> dict[str, float]:
    return {
        s.labels.get("le", s.name.removeprefix(NAME)): s.value
        for family in read_text(text(AccountStatus("a", counters=counters)))
        for s in family.samples
        if family.name == NAME and s.labels["status"] == status
    }


def test_histogram_is_exported_before_the_first_observation():
    found = histogram(Counters(), "training")
    assert list(found) == [*BOUNDS, "+Inf", "_count", "_sum"]
    assert set(found.values()) == {0}


def test_histogram_buckets_are_cumulative():
    counters = Counters(durations={("training", 7200.0): DurationBucket(2, 9000.0)})
    found = histogram(counters, "training")
    assert [number for number in found.values() if number] == [2, 2, 2, 2, 2, 2, 9000]
    assert (found["3600.0"], found["7200.0"], found["+Inf"]) == (0, 2, 2)
    assert set(histogram(counters, "created").values()) == {0}


def test_removed_bucket_bound_counts_in_the_next_one():
    counters = Counters(
        durations={
            ("training", 100.0): DurationBucket(1, 90.0),
            ("training", 1e9): DurationBucket(1, 1e8),
        }
    )
    found = histogram(counters, "training")
    assert (found["60.0"], found["300.0"], found["86400.0"], found["+Inf"]) == (0, 1, 1, 2)
    assert (found["_count"], found["_sum"]) == (2, 1e8 + 90)
