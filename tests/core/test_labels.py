"""API text never becomes an unbounded label, and no fine-tune is lost by folding."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.counters import Counters
from exporter.core.labels import OTHER, Labels, label_value
from exporter.core.model import STATUSES, FineTune, status_label
from exporter.core.status import canonical_status
from exporter.core.view import count
from tests.core.histories import transition_of

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
        assert len(set(after.models)) == len(after.models)
        assert len({*after.models} - {OTHER}) <= most
        labels = after


@given(readings, st.integers(1, 5))
def test_first_models_seen_keep_their_name(polls, most):
    labels = Labels()
    seen: list[str] = []
    for poll in polls:
        labels = labels.extended(poll, most)
        seen += sorted({label_value(each.model_id) for each in poll} - {OTHER, *seen})
    assert [model for model in labels.models if model != OTHER] == seen[:most]


@given(readings, st.integers(1, 5))
def test_every_fine_tune_is_counted_once(polls, most):
    labels = Labels()
    for poll in polls:
        labels = labels.extended(poll, most)
        counts = count(poll, labels)
        assert sum(counts.values()) == len(poll)
        expected = Counter(status_label(canonical_status(each.status)) for each in poll)
        for status in STATUSES:
            assert sum(n for (_, each), n in counts.items() if each == status) == expected[status]
        assert {model for model, _ in counts} <= {*labels.models, OTHER}


@given(st.lists(fine_tunes, max_size=12), st.integers(1, 5))
def test_every_transition_is_counted_once(moved, most):
    labels = Labels().extended(moved, most)
    counters = Counters().after((transition_of(each, 2, "training") for each in moved), labels)
    assert sum(counters.transitions.values()) == len(moved)
    assert {model for model, _, _ in counters.transitions} <= {*labels.models, OTHER}


def test_lower_limit_keeps_existing_names():
    labels = Labels().extended(of_models("a", "b", "c"), 3)
    assert labels.extended(of_models("a", "c"), 1) is labels
    assert labels.extended(of_models("a", "d"), 1).models == ("a", "b", "c", OTHER)
    assert count(of_models("c", "d"), labels)["c", "unknown"] == 1
    assert count(of_models("c", "d"), labels)[OTHER, "unknown"] == 1


def test_higher_limit_names_folded_values():
    labels = Labels().extended(of_models("a", "b"), 1)
    assert count(of_models("a", "b"), labels)[OTHER, "unknown"] == 1
    assert labels.extended(of_models("a", "b"), 2).models == ("a", OTHER, "b")


@given(readings, st.integers(1, 5))
def test_other_stays_at_zero_once_a_value_was_folded(polls, most):
    labels = Labels()
    for poll in polls:
        labels = labels.extended(poll, most)
        folded = {model for model, _ in count(poll, labels)} - {*labels.models}
        assert not folded
    assert {model for model, _ in count([], labels)} == {*labels.models}


def test_model_named_other_is_counted_as_other():
    labels = Labels().extended(of_models(OTHER), 1)
    counts = count(of_models(OTHER, "late", "later"), labels)
    assert counts[OTHER, "unknown"] == 3
    assert len(counts) == len(STATUSES)


def test_seen_model_without_fine_tunes_is_counted_as_zero():
    counts = count([], Labels(("gone",)))
    assert counts == {("gone", status): 0 for status in STATUSES}


@pytest.mark.parametrize("character", ["x", "é", "声", "\U0001f3a4"])
def test_label_values_have_at_most_200_bytes(character):
    """Prometheus counts bytes, and refuses the whole scrape over one value that is longer."""
    most = 200 // len(character.encode())
    assert label_value(character * most) == character * most
    cut = label_value(character * (most + 1))
    assert cut == character * (197 // len(character.encode())) + "…"
    assert label_value(character * 100_000) == cut


@given(st.text(max_size=300))
def test_label_values_are_the_beginning_of_their_text(text):
    value = label_value(text)
    assert len(value.encode()) <= 200
    assert value == text or (value[-1] == "…" and text.startswith(value[:-1]))
    assert (value == text) == (len(text.encode()) <= 200)


def test_values_that_are_equal_once_cut_are_summed():
    models = of_models(*("x" * 300 + end for end in "abc"))
    labels = Labels().extended(models, 50)
    assert labels.models == ("x" * 197 + "…",)
    assert count(models, labels)[labels.models[0], "unknown"] == 3
    moved = (transition_of(each, 2, "training") for each in models)
    transitions = Counters().after(moved, labels).transitions
    assert transitions == {(labels.models[0], "training", "unknown"): 3}
