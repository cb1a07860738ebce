"""Which changes count and when, by the history of one fine-tune."""

import pytest

from exporter.core.diff import diff
from exporter.core.events import recovered_event, transition_event, transition_type
from exporter.core.model import AccountKey, FineTune, Snapshot, TrackedFineTune
from tests.core.histories import (
    INTERVAL,
    KEY,
    SAME,
    START,
    events_of,
    of_one,
    poll_results,
    snapshot,
    transition_of,
)

ROWS = [
    # Invariant 4: the baseline, and what is first seen after it.
    ("the baseline has no event for a fine-tune", "failed", ""),
    ("what failed before the baseline does not fail by staying so", "failed failed", ""),
    ("first seen as failed alerts", "- failed", "1 failed<None"),
    ("first seen as completed is completed", "- completed", "1 completed<None"),
    ("first seen in another status is created", "- training", "1 created<None"),
    # Invariant 5: absence is not a status.
    ("one missed poll has no event", "training - training", ""),
    ("two missed polls are a removal, nothing else", "failed - -", "2 removed<failed"),
    ("a removal has one event", "training - - - -", "2 removed<training"),
    ("missed polls that are not consecutive are no removal", "training - training - training", ""),
    ("failing in one's absence alerts at the return", "training - failed", "2 failed<training"),
    ("a return after one absence is no second failure", "failed - failed", ""),
    # Invariant 6: what counts at once, and what needs two polls.
    ("entering failed counts at once", "training failed", "1 failed<training"),
    ("a failure has one event", "training failed failed failed", "1 failed<training"),
    ("completing counts at once", "training completed", "1 completed<training"),
    ("moving on before the end counts at once", "created training", "1 changed<created"),
    ("completed enters failed at once", "completed failed", "1 failed<completed"),
    ("one poll out of failed is not believed", "failed training failed", ""),
    ("one poll out of completed is not believed", "completed training completed", ""),
    (
        "two polls out of failed are",
        "failed training training",
        "2 changed<failed, 2 recovered<failed",
    ),
    ("two polls out of completed are", "completed created created", "2 changed<completed"),
    (
        "they need not agree on where it went",
        "failed created training",
        "2 changed<failed, 2 recovered<failed",
    ),
    (
        "leaving failed for completed waits too",
        "failed completed completed",
        "2 completed<failed, 2 recovered<failed",
    ),
    (
        "on its way out of completed it may fail at once",
        "completed training failed",
        "2 failed<completed",
    ),
    ("polls that are not in a row do not confirm", "failed training failed training failed", ""),
    ("an absence is no confirmation", "failed training - training", ""),
    (
        "after an absence the confirmation starts again",
        "failed training - training training",
        "4 changed<failed, 4 recovered<failed",
    ),
    ("leaving, then gone, is a removal out of failed", "failed training - -", "3 removed<failed"),
    (
        "failing again after a confirmed way out alerts again",
        "failed training training failed",
        "2 changed<failed, 2 recovered<failed, 3 failed<training",
    ),
    ("returned as it was stored, it is the same", "failed - - failed", "2 removed<failed"),
    (
        "returned as failed after being removed, it failed",
        "training - - failed",
        "2 removed<training, 3 failed<training",
    ),
    (
        "returned from failed, one poll is not believed",
        "failed - - training failed",
        "2 removed<failed",
    ),
    (
        "a second removal has an event",
        "failed - - failed - -",
        "2 removed<failed, 5 removed<failed",
    ),
    (
        "what returns from a removal recovers",
        "failed - - created created",
        "2 removed<failed, 4 changed<failed, 4 recovered<failed",
    ),
    (
        "completed is no failure to recover from",
        "completed training training",
        "2 changed<completed",
    ),
    (
        "each failure has its own recovery",
        "failed created created failed completed completed",
        (
            "2 changed<failed, 2 recovered<failed, 3 failed<created, "
            "5 completed<failed, 5 recovered<failed"
        ),
    ),
    # Invariant 7: statuses that nobody knows.
    ("an unknown status is no alert", "training paused", "1 changed<training"),
    ("an unknown status first seen is created", "- paused", "1 created<None"),
    ("only a whole status is failed", "training failed_retrying", "1 changed<training"),
    ("failed is failed in any case", "training FAILED failed Failed", "1 failed<training"),
    (
        "leaving it waits in any case",
        "- FAILED training training",
        "1 failed<None, 3 changed<FAILED, 3 recovered<FAILED",
    ),
    ("an unknown status is the same in any case", "paused Paused PAUSED", ""),
    ("failing out of an unknown status alerts", "paused failed", "1 failed<paused"),
    ("one unknown status does not re-arm an alert", "failed paused failed", ""),
    ("an unknown status is no recovery", "failed paused paused", "2 changed<failed"),
    ("an unknown status is left at once", "paused resumed", "1 changed<paused"),
]


@pytest.mark.parametrize("fine_tune", [SAME, "renamed"])
@pytest.mark.parametrize(
    ("history", "expected"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_events_of_a_history(history, expected, fine_tune):
    found = [
        f"{number} {each.type.removeprefix('fine_tune.')}<{each.previous_status}"
        for number, result in enumerate(poll_results(of_one(history, fine_tune)))
        for each in events_of(result)
        if each.fine_tune is not None
    ]
    assert ", ".join(found) == expected


def test_stored_fine_tune_is_as_read_except_for_its_confirmed_status():
    last = poll_results(of_one("failed training"))[-1]
    tracked = last.state.tracked["ft"]
    assert tracked.fine_tune == FineTune("ft", "poll 1", model_id="model-ft", status="failed")
    assert tracked.exit_pending


def test_since_is_the_time_of_first_observation():
    tracked = [
        result.state.tracked["ft"] for result in poll_results(of_one("created training training"))
    ]
    assert [each.since for each in tracked] == [START, START + INTERVAL, START + INTERVAL]
    assert [each.since_seen for each in tracked] == [False, True, True]
    assert [each.sequence for each in tracked] == [1, 2, 2]


def test_returning_fine_tune_keeps_its_sequence_and_is_observed_anew():
    tracked = poll_results(of_one("- training - - training"))[-1].state.tracked["ft"]
    assert (tracked.sequence, tracked.removed) == (1, False)
    assert (tracked.since, tracked.since_seen) == (START + 4 * INTERVAL, False)


def test_since_seen_is_true_after_the_baseline():
    assert poll_results(of_one("- training"))[-1].state.tracked["ft"].since_seen


def test_removals_are_counted_across_status_changes():
    last = poll_results(of_one("training - - failed - -"))[-1]
    assert last.state.tracked["ft"].removals == 2


def test_diff_returns_only_changed_rows():
    first, second = snapshot({"a": "training", "b": "training"}), snapshot({"a": "training"})
    tracked = {
        key: TrackedFineTune(value, 1, START, since_seen=False)
        for key, value in first.fine_tunes.items()
    }
    assert diff(tracked, first)[0] == {}
    assert list(diff(tracked, second)[0]) == ["b"]


def test_changed_description_is_stored_without_transition():
    tracked = {"ft": TrackedFineTune(FineTune("ft", status="failed"), 1, START, since_seen=False)}
    renamed = FineTune("ft", description="better", status="failed")
    found = diff(tracked, Snapshot({"ft": renamed}, START))
    assert found[0]["ft"].fine_tune == renamed
    assert found[1] == ()


def test_event_ids_of_status_and_removal_differ():
    """A status may be called anything, also what a removal might be called."""
    strange = FineTune("ft", status="removed 1")
    there, gone = transition_of(strange, 1, None), transition_of(strange, 1, "removed 1", removal=1)
    ids = {transition_event("store", KEY, each, now=START).id for each in (there, gone)}
    assert len(ids) == 2


def test_event_ids_of_a_recovery_and_of_any_status_differ():
    strange = transition_of(FineTune("ft", status="recovered"), 2, "failed")
    back = transition_of(FineTune("ft", status="training"), 2, "failed")
    recovered = recovered_event("store", KEY, back, START)
    assert recovered is not None
    ids = {transition_event("store", KEY, each, START).id for each in (strange, back)}
    assert recovered.id not in ids


def test_event_ids_differ_by_store_account_and_base_url():
    failed = transition_of(FineTune("ft", status="failed"), 2, "training")
    elsewhere = AccountKey(KEY.name, "https://eu.example")
    renamed = AccountKey("other", KEY.base_url)
    where = [("store", KEY), ("restored", KEY), ("store", elsewhere), ("store", renamed)]
    assert len({transition_event(store, key, failed, START).id for store, key in where}) == len(
        where
    )


def test_event_ids_do_not_depend_on_time():
    failed = transition_of(FineTune("ft", status="failed"), 2, "training")
    assert (
        transition_event("store", KEY, failed, 1.0).id
        == transition_event("store", KEY, failed, 2.0).id
    )


def test_removal_has_its_event_type_for_every_status():
    gone = transition_of(FineTune("ft", status="failed"), 1, "failed", removal=1)
    assert transition_type(gone) == "fine_tune.removed"
