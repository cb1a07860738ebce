"""The page: literally for a small account, and read back by parsers for any other."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from exporter.core.counters import Counters
from exporter.core.labels import Labels
from exporter.core.model import FineTune
from exporter.core.view import AccountStatus, count
from tests.core.sample_account import EVERYTHING, ODD
from tests.exposition.rendered import openmetrics, text
from tests.programs import required

PAGES = Path(__file__).parent / "pages"

EXPECTED = [
    ("completed", "failed"),
    ("completed", "training"),
    ("created", "failed"),
    ("created", "training"),
    ("failed", "completed"),
    ("failed", "created"),
    ("failed", "training"),
    ("none", "completed"),
    ("none", "created"),
    ("none", "failed"),
    ("none", "training"),
    ("training", "completed"),
    ("training", "failed"),
]


def watched(
    *fine_tunes: FineTune, most: int = 50, counters: Counters | None = None
) -> AccountStatus:
    labels = Labels().extended(fine_tunes, most)
    return AccountStatus(
        "default",
        up=True,
        polled_at=1_780_000_000.5,
        succeeded_at=1_780_000_000.5,
        duration=0.25,
        pages=1,
        labels=labels,
        counts=count(fine_tunes, labels),
        counters=counters or Counters(),
    )


SMALL = watched(
    FineTune("a", model_id="sonic-2", status="failed"),
    FineTune("b", model_id="sonic-2", status="training"),
    FineTune("c", model_id="sonic-2", status="paused"),
    counters=Counters({("sonic-2", "training", "failed"): 1}, {"completed": 2}),
)


def samples(families: list[Metric], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def counts_of(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return samples(families, "cartesia_fine_tunes", "model_id", "status")


def transitions_of(families: list[Metric]) -> dict[tuple[str, ...], float]:
    labels = ("model_id", "from_status", "to_status")
    return samples(families, "cartesia_fine_tune_transitions_total", *labels)


@pytest.mark.parametrize("name", ["small", "everything"])
@pytest.mark.parametrize(("kind", "render"), [("txt", text), ("om.txt", openmetrics)])
def test_the_page_is_literally_this(name, kind, render):
    view = {"small": SMALL, "everything": EVERYTHING}[name]
    # Not read_text(): some of the odd characters are line breaks to it.
    assert render(view).encode() == (PAGES / f"{name}.{kind}").read_bytes()


def test_no_fine_tune_is_counted_before_the_first_complete_poll():
    restored = AccountStatus(
        "default",
        labels=Labels(("sonic-2", "sonic-3")),
        counters=Counters({("sonic-2", "training", "failed"): 3}, {"failed": 2}),
    )
    found = list(read_text(text(restored)))
    assert counts_of(found) == {}
    assert samples(found, "cartesia_up") == {(): 0.0}
    assert samples(found, "cartesia_fine_tunes_removed_total", "status")["failed",] == 2
    transitions = transitions_of(found)
    zeros = {(model, *pair): 0.0 for model in ("sonic-2", "sonic-3") for pair in EXPECTED}
    assert transitions == {**zeros, ("sonic-2", "training", "failed"): 3}


def test_the_expected_transitions_of_what_was_folded_are_there_as_well():
    view = watched(FineTune("a", model_id="a"), FineTune("b", model_id="b"), most=1)
    found = transitions_of(list(read_text(text(view))))
    assert found == {(model, *pair): 0 for model in ("a", "other") for pair in EXPECTED}


def test_what_was_folded_once_keeps_its_series_while_nobody_is_in_it():
    """A series that comes back above zero would hide a failure from `increase()`."""
    gone = watched(counters=Counters({("other", "none", "training"): 1}))
    found = transitions_of(list(read_text(text(gone))))
    assert found == {("other", *pair): float(pair == ("none", "training")) for pair in EXPECTED}


def test_an_unexpected_transition_is_shown_once_it_was_seen():
    view = watched(counters=Counters({("sonic-2", "unknown", "failed"): 1}))
    found = transitions_of(list(read_text(text(view))))
    assert found["sonic-2", "unknown", "failed"] == 1
    assert len(found) == len(EXPECTED) + 1


def test_accounts_stand_beside_each_other():
    page = text(AccountStatus("one", up=True), AccountStatus("two"))
    assert 'cartesia_up{account="one"} 1.0\ncartesia_up{account="two"} 0.0\n' in page
    assert page.count("# TYPE cartesia_up gauge") == 1


names = st.one_of(st.text(max_size=30), st.text('"\\\n\r\x00nx=,{} #', max_size=12))


@given(st.lists(st.tuples(names, st.sampled_from(["failed", "training", "odd"]))))
@example([(ODD, "failed"), ("", "odd"), ("x" * 5000, "failed")])
def test_any_model_name_is_read_back_as_it_was(fine_tunes):
    made = [FineTune(str(n), model_id=m, status=s) for n, (m, s) in enumerate(fine_tunes)]
    counters = Counters({(m, "none", "failed"): n for n, (m, _) in enumerate(fine_tunes)})
    view = watched(*made, counters=counters)
    assert view.counts is not None
    for read, render in ((read_text, text), (read_openmetrics, openmetrics)):
        found = list(read(render(view)))
        assert counts_of(found) == view.counts
        transitions = transitions_of(found)
        assert transitions.items() >= dict(counters.transitions).items()


@pytest.mark.parametrize(
    "view", [SMALL, AccountStatus("default"), watched(FineTune("a", model_id=ODD)), EVERYTHING]
)
def test_promtool_finds_nothing_to_complain_about(view):
    checked = subprocess.run(
        [required("promtool", package="prometheus"), "check", "metrics"],
        input=text(view).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
