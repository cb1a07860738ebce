"""Published status: counts per label, oldest per status, series of single fine-tunes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from exporter.core.account import AccountState
from exporter.core.counters import Counters, examples
from exporter.core.labels import OTHER, LabelName, Labels
from exporter.core.model import FineTune, Snapshot, TrackedFineTune
from exporter.core.view import AccountStatus, SeriesOptions, count, oldest, series
from tests.core.histories import (
    histories,
    poll_result,
    poll_results,
    rules,
    snapshot,
    transition_of,
)
from tests.core.sample_account import EVERYTHING, FINE_TUNES, NOW, OPTIONS, seen
from tests.exposition.rendered import openmetrics, text

FINE_TUNE_STATUS = "cartesia_fine_tune_status"
OLDEST = "cartesia_fine_tune_oldest_in_status_timestamp_seconds"
DATA = {"cartesia_fine_tunes", FINE_TUNE_STATUS, OLDEST}


def samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    return [(s.labels, s.value) for f in read_text(page) for s in f.samples if s.name == name]


def shown(page: str) -> set[str]:
    return {s.name for family in read_text(page) for s in family.samples}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), {("failed",): 1, ("training",): 1, ("completed",): 1, ("unknown",): 1}),
        (("language",), {("en", "failed"): 1, ("en", "completed"): 1, ("de", "training"): 1}),
        (("dataset", "model_id"), {("d1", "sonic-2", "failed"): 1, ("", "sonic-2", "training"): 1}),
    ],
)
def test_counts_use_the_configured_labels(names: tuple[LabelName, ...], expected):
    labels = Labels().extended(FINE_TUNES, 50, names)
    found = count(FINE_TUNES, labels, names)
    assert found.items() >= expected.items()
    assert sum(found.values()) == len(FINE_TUNES)


def test_every_status_is_counted_without_labels():
    assert set(count([], Labels(), ()).values()) == {0}
    assert len(count([], Labels(), ())) == 5


def test_labels_fold_independently_and_empty_values_need_no_name():
    made = [FineTune(str(n), language=f"l{n}", model_id="m", dataset="") for n in range(3)]
    labels = Labels().extended(made, 2, ("language", "dataset"))
    assert labels == Labels(("m",), ("l0", "l1", OTHER), ())
    found = count(made, labels, ("dataset", "language", "model_id"))
    assert {key[:3] for key in found} == {("", each, "m") for each in ("l0", "l1", OTHER)}
    assert labels.naming(("language", "dataset")).folded(made) == {("language", "l2")}


def test_unused_labels_are_not_stored():
    made = [FineTune("a", language="en", dataset="d")]
    assert Labels().extended(made, 5) == Labels(("unknown",))


def test_transitions_without_model_id_are_summed():
    page = text(seen(FINE_TUNES, SeriesOptions(())))
    moved = samples(page, "cartesia_fine_tune_transitions_total")
    assert {frozenset(labels) for labels, _ in moved} == {
        frozenset({"account", "from_status", "to_status"})
    }
    assert sum(number for _, number in moved) == len(FINE_TUNES)


def test_account_labels_are_on_data_series_only():
    for family in read_openmetrics(openmetrics(EVERYTHING)):
        for sample in family.samples:
            assert ("team" in sample.labels) == (family.name in DATA), sample


@given(histories)
def test_oldest_exists_exactly_while_a_status_is_in_use(polls):
    for number, result in enumerate(poll_results(polls)):
        read = snapshot(polls[number], number)
        counts = count(read.fine_tunes.values(), result.state.labels, ())
        found = oldest(read, result.state.tracked)
        assert set(found) == {status for (status,), many in counts.items() if many}
        assert all(since <= read.read_at for since in found.values())


def test_oldest_is_the_earliest_observed_since():
    def poll(at: float, **statuses: str) -> Snapshot:
        return Snapshot({k: FineTune(k, status=v) for k, v in statuses.items()}, at)

    state: AccountState | None = None
    for each in (
        poll(0, a="created"),
        poll(60, a="training"),
        poll(120, a="training", b="training"),
        last := poll(180, a="training", b="training", c="failed"),
    ):
        state = poll_result(state, each, rules()).state
    assert state is not None
    assert oldest(last, state.tracked) == {"training": 60, "failed": 180}


def test_oldest_of_an_unconfirmed_status_is_now():
    """As the counts show it: the old status has nobody in it."""
    first = Snapshot({"a": FineTune("a", status="failed")}, 0.0)
    then = Snapshot({"a": FineTune("a", status="training")}, 60.0)
    state = poll_result(poll_result(None, first, rules()).state, then, rules()).state
    assert state.tracked["a"].fine_tune.status == "failed"
    assert oldest(then, state.tracked) == {"training": 60.0}


def test_oldest_of_unknown_statuses_is_combined():
    odd = [FineTune(text, status=text) for text in ("paused", "queued", "odd")]
    since = zip(odd, (20.0, 10.0, 30.0), strict=True)
    known = {each.id: TrackedFineTune(each, 1, began, since_seen=True) for each, began in since}
    assert oldest(Snapshot({each.id: each for each in odd}, 60.0), known) == {"unknown": 10.0}


def a_series(most: int, *made: tuple[FineTune, float]) -> list[str]:
    read = Snapshot({each.id: each for each, _ in made}, NOW)
    known = {each.id: TrackedFineTune(each, 1, since, since_seen=True) for each, since in made}
    labels = Labels().extended(read.fine_tunes.values(), 5)
    return [each[0] for each in series(read, known, labels, most)]


def test_series_prefer_unfinished_then_newest():
    made = [
        (FineTune("done", status="completed"), 9.0),
        (FineTune("trains", status="training"), 1.0),
        (FineTune("new", status="created"), 5.0),
        (FineTune("broken", status="failed"), 8.0),
    ]
    assert a_series(10, *made) == ["new", "trains", "done", "broken"]
    assert a_series(3, *made) == ["new", "trains", "done"]
    assert a_series(0, *made) == []


def test_ids_equal_as_labels_share_a_series():
    """Prometheus refuses a whole scrape for one series that is there twice."""
    made = [(FineTune("x" * 300 + end, status="training"), 1.0) for end in "ab"]
    assert a_series(10, *made) == ["x" * 197 + "…"]


def test_fine_tune_series_only_if_configured():
    assert FINE_TUNE_STATUS in shown(text(EVERYTHING))
    without = replace(EVERYTHING, options=replace(OPTIONS, most_fine_tunes=0))
    assert f"{FINE_TUNE_STATUS}{{" not in text(without)


@pytest.mark.parametrize("view", [AccountStatus("a"), replace(EVERYTHING, stale_at=10.0)])
def test_no_data_series_before_the_first_poll_and_when_stale(view):
    page = text(view, monotonic=10.0)
    assert not shown(page) & DATA
    assert {"cartesia_up", "cartesia_fine_tunes_removed_total"} <= shown(page)


def test_staleness_is_per_account():
    old = replace(EVERYTHING, account="old", stale_at=10.0)
    fresh = replace(EVERYTHING, account="fresh", stale_at=10.5)
    page = text(old, fresh, monotonic=10.0)
    stale = {labels["account"]: number for labels, number in samples(page, "cartesia_stale")}
    assert stale == {"old": 1, "fresh": 0}
    for name in DATA:
        assert {labels["account"] for labels, _ in samples(page, name)} == {"fresh"}
    for name in ("cartesia_poll_success_timestamp_seconds", "cartesia_up"):
        assert {labels["account"] for labels, _ in samples(page, name)} == {"old", "fresh"}


@given(st.text(max_size=200) | st.text("abz_-09", max_size=200))
def test_exemplars_are_within_the_openmetrics_limit(fine_tune_id):
    moved = transition_of(FineTune(fine_tune_id, model_id="m", status="failed"), 2, "training")
    labels = Labels(("m",))
    found = examples([moved], labels, NOW)
    view = AccountStatus(
        "a", labels=labels, counters=Counters().after([moved], labels), examples=found
    )
    exemplars = [
        sample.exemplar
        for family in read_openmetrics(openmetrics(view))
        for sample in family.samples
        if sample.exemplar
    ]
    assert len(exemplars) == len(found) <= 1
    for exemplar in exemplars:
        ((name, value),) = exemplar.labels.items()
        assert name == "fine_tune_id"
        assert len(name + value) <= 128
        assert (exemplar.value, float(exemplar.timestamp)) == (1.0, NOW)


@pytest.mark.parametrize("hostile", ['a"b', "a b", "a\nb", "{a}", "a#b", "a\\", "", "\x00"])
def test_unsafe_ids_are_no_exemplars(hostile):
    moved = transition_of(FineTune(hostile, status="failed"), 2, "training")
    assert examples([moved], Labels(), NOW) == {}


def test_too_long_id_is_no_exemplar():
    for length, number in ((116, 1), (117, 0)):
        moved = transition_of(FineTune("x" * length, status="failed"), 2, "training")
        assert len(examples([moved], Labels(), NOW)) == number
