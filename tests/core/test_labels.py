"""API text never becomes an unbounded label, and no fine-tune is lost by folding."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.counters import Counters
from exporter.core.labels import OTHER, Labels, label_value
from exporter.core.model import STATUSES, FineTune, Transition
from exporter.core.view import count

models = st.one_of(st.sampled_from(["sonic-2", "sonic-3", OTHER, "", "x" * 400]), st.text())
fine_tunes = st.builds(
    FineTune, st.text(), model_id=models, status=st.one_of(st.sampled_from(STATUSES), st.text())
)
readings = st.lists(st.lists(fine_tunes, max_size=8), max_size=6)


def of_models(*names: str) -> list[FineTune]:
    return [FineTune(f"ft{number}", model_id=name) for number, name in enumerate(names)]


@given(readings, st.integers(1, 5))
def test_named_model_keeps_its_name(polls, most):
    labels = Labels()
    for poll in polls:
        after = labels.extended(poll, most)
        assert after.models[: len(labels.models)] == labels.models
        assert len(set(after.models)) == len(after.models) <= most
        labels = after


@given(readings, st.integers(1, 5))
def test_first_models_seen_keep_their_name(polls, most):
    labels = Labels()
    seen: list[str] = []
    for poll in polls:
        labels = labels.extended(poll, most)
        seen += sorted({label_value(each.model_id) for each in poll} - {*seen})
    assert list(labels.models) == seen[:most]


@given(readings, st.integers(1, 5))
def test_every_fine_tune_is_counted_once(polls, most):
    labels = Labels()
    for poll in polls:
        labels = labels.extended(poll, most)
        counts = count(poll, labels)
        assert sum(counts.values()) == len(poll)
        expected = Counter(each.status if each.status in STATUSES else "unknown" for each in poll)
        for status in STATUSES:
            assert sum(n for (_, each), n in counts.items() if each == status) == expected[status]
        assert {model for model, _ in counts} <= {*labels.models, OTHER}


@given(st.lists(fine_tunes, max_size=12), st.integers(1, 5))
def test_every_transition_is_counted_once(moved, most):
    labels = Labels().extended(moved, most)
    counters = Counters().after((Transition(each, 2, "training") for each in moved), labels)
    assert sum(counters.transitions.values()) == len(moved)
    assert {model for model, _, _ in counters.transitions} <= {*labels.models, OTHER}


def test_lower_limit_keeps_existing_names():
    labels = Labels().extended(of_models("a", "b", "c"), 3)
    assert labels.extended(of_models("a", "d"), 1) is labels
    assert count(of_models("c", "d"), labels)["c", "unknown"] == 1
    assert count(of_models("c", "d"), labels)[OTHER, "unknown"] == 1


def test_higher_limit_names_folded_values():
    labels = Labels().extended(of_models("a", "b"), 1)
    assert count(of_models("a", "b"), labels)[OTHER, "unknown"] == 1
    assert labels.extended(of_models("a", "b"), 2).models == ("a", "b")


def test_model_named_other_is_counted_as_other():
    labels = Labels().extended(of_models(OTHER), 1)
    counts = count(of_models(OTHER, "late", "later"), labels)
    assert counts[OTHER, "unknown"] == 3
    assert len(counts) == len(STATUSES)


def test_seen_model_without_fine_tunes_is_counted_as_zero():
    counts = count([], Labels(("gone",)))
    assert counts == {("gone", status): 0 for status in STATUSES}


def test_label_values_are_cut_at_256_characters():
    assert label_value("x" * 256) == "x" * 256
    assert label_value("x" * 257) == "x" * 255 + "…"
    counts = count(of_models("x" * 100_000), Labels().extended(of_models("x" * 100_000), 1))
    assert max(len(model) for model, _ in counts) == 256
