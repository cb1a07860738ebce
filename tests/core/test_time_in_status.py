"""How long fine-tunes are in a status is observed when they leave it, if its beginning was seen."""

import pytest
from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families as read_text

from exporter.core.account import PollResult
from exporter.core.counters import Counters, DurationBucket
from exporter.core.view import AccountStatus
from tests.core.histories import INTERVAL, histories, of_one, poll_results, readings
from tests.exposition.rendered import text

BOUNDS = ["60.0", "300.0", "900.0", "1800.0", "3600.0", "7200.0", "14400.0", "28800.0", "86400.0"]
NAME = "cartesia_fine_tune_status_duration_seconds"


A_STAY = {"training": [1, 120]}
TWO_STAYS = {"created": [1, 60], "training": [1, 60]}


def stays_of(history: str) -> dict[str, list[float]]:
    """Status to number and seconds of its stays."""
    found: dict[str, list[float]] = {}
    for (status, _), stays in poll_results(of_one(history))[-1].state.counters.durations.items():
        total, seconds = found.get(status, [0, 0])
        found[status] = [total + stays.total, seconds + stays.seconds]
    return found


@pytest.mark.parametrize(
    ("truth", "history", "expected"),
    [
        ("of what was there at the baseline the beginning is not known", "training failed", {}),
        ("what is seen to begin and to end is", "- training training failed", A_STAY),
        ("each status by itself", "- created training failed", TWO_STAYS),
        ("a status without a name is unknown", "- odd training", {"unknown": [1, 60]}),
        ("a removal is no end of a stay", "- training - - -", {}),
        ("who was away meanwhile may have left long ago", "- training - - failed", {}),
        ("missing one poll is not being away", "- training - failed", A_STAY),
        ("leaving failed ends when it is confirmed", "- failed odd odd", {"failed": [1, 120]}),
    ],
)
def test_a_stay_is_observed(truth, history, expected):
    assert stays_of(history) == expected, truth


def stays_in(step: PollResult) -> int:
    return sum(stays.total for stays in step.state.counters.durations.values())


@given(histories)
def test_no_more_stays_are_observed_than_statuses_were_left_and_none_is_longer_than_all(polls):
    last = poll_results(polls)[-1]
    moved = last.state.counters.transitions.items()
    assert stays_in(last) <= sum(number for (_, origin, _), number in moved if origin != "none")
    seconds = sum(stays.seconds for stays in last.state.counters.durations.values())
    assert 0 <= seconds <= 3 * INTERVAL * len(readings(polls, "a", len(polls)))


def histogram(counters: Counters, status: str) -> dict[str, float]:
    return {
        s.labels.get("le", s.name.removeprefix(NAME)): s.value
        for family in read_text(text(AccountStatus("a", counters=counters)))
        for s in family.samples
        if family.name == NAME and s.labels["status"] == status
    }


def test_the_histogram_is_there_before_anything_was_observed():
    found = histogram(Counters(), "training")
    assert list(found) == [*BOUNDS, "+Inf", "_count", "_sum"]
    assert set(found.values()) == {0}


def test_a_stay_counts_in_its_bucket_and_in_those_above():
    counters = Counters(durations={("training", 7200.0): DurationBucket(2, 9000.0)})
    found = histogram(counters, "training")
    assert [number for number in found.values() if number] == [2, 2, 2, 2, 2, 2, 9000]
    assert (found["3600.0"], found["7200.0"], found["+Inf"]) == (0, 2, 2)
    assert set(histogram(counters, "created").values()) == {0}


def test_a_bound_that_there_is_no_longer_counts_in_the_next_one():
    counters = Counters(
        durations={
            ("training", 100.0): DurationBucket(1, 90.0),
            ("training", 1e9): DurationBucket(1, 1e8),
        }
    )
    found = histogram(counters, "training")
    assert (found["60.0"], found["300.0"], found["86400.0"], found["+Inf"]) == (0, 1, 1, 2)
    assert (found["_count"], found["_sum"]) == (2, 1e8 + 90)
