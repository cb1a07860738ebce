"""The text of account families: golden files, and round trips through parsers."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.core.counters import Counters
from exporter.core.labels import Labels
from exporter.core.model import FineTune
from exporter.core.view import AccountStatus, count
from tests.core.sample_account import EVERYTHING, ODD
from tests.exposition.rendered import openmetrics, text
from tests.programs import required

PAGES = Path(__file__).parent / "pages"

EXPECTED_TRANSITIONS = [
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
    ("unknown", "failed"),
]


def account_status(
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


def test_counters_are_other_series_after_a_takeover():
    counters = Counters({("sonic-3", "training", "failed"): 2}, {"failed": 1})
    status = replace(account_status(counters=counters), moves=3)
    samples = [
        sample
        for family in parse_text(text(status))
        for sample in family.samples
        if sample.labels.get("takeover") == "3"
    ]
    assert {sample.name for sample in samples} == {
        "cartesia_fine_tune_transitions_total",
        "cartesia_fine_tunes_removed_total",
        "cartesia_fine_tune_status_duration_seconds_bucket",
        "cartesia_fine_tune_status_duration_seconds_count",
        "cartesia_fine_tune_status_duration_seconds_sum",
    }
    without = text(replace(status, moves=0))
    assert text(status).replace('takeover="3",', "").replace(',takeover="3"', "") == without


SMALL = account_status(
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


@pytest.mark.parametrize(("name", "status"), [("small", SMALL), ("everything", EVERYTHING)])
@pytest.mark.parametrize(("suffix", "render"), [("txt", text), ("om.txt", openmetrics)])
def test_the_text_equals_the_golden_file(name, status, suffix, render):
    # Not read_text(): it takes some of the odd characters for line breaks.
    assert render(status).encode() == (PAGES / f"{name}.{suffix}").read_bytes()


def test_fine_tunes_are_not_counted_before_the_first_complete_poll():
    restored = AccountStatus(
        "default",
        labels=Labels(("sonic-2", "sonic-3")),
        counters=Counters({("sonic-2", "training", "failed"): 3}, {"failed": 2}),
    )
    families = list(parse_text(text(restored)))
    assert counts_of(families) == {}
    assert samples(families, "cartesia_up") == {(): 0.0}
    assert samples(families, "cartesia_fine_tunes_removed_total", "status")["failed",] == 2
    transitions = transitions_of(families)
    zeros = {
        (model, *pair): 0.0 for model in ("sonic-2", "sonic-3") for pair in EXPECTED_TRANSITIONS
    }
    assert transitions == {**zeros, ("sonic-2", "training", "failed"): 3}


def test_expected_transitions_of_other_start_at_zero():
    status = account_status(FineTune("a", model_id="a"), FineTune("b", model_id="b"), most=1)
    found = transitions_of(list(parse_text(text(status))))
    assert found == {(model, *pair): 0 for model in ("a", "other") for pair in EXPECTED_TRANSITIONS}


def test_series_of_other_stay_without_fine_tunes():
    """A series that reappears above zero would hide a failure from `increase()`."""
    gone = account_status(counters=Counters({("other", "none", "training"): 1}))
    found = transitions_of(list(parse_text(text(gone))))
    assert found == {
        ("other", *pair): float(pair == ("none", "training")) for pair in EXPECTED_TRANSITIONS
    }


def test_an_unexpected_transition_appears_once_counted():
    status = account_status(counters=Counters({("sonic-2", "unknown", "created"): 1}))
    found = transitions_of(list(parse_text(text(status))))
    assert found["sonic-2", "unknown", "created"] == 1
    assert len(found) == len(EXPECTED_TRANSITIONS) + 1


def test_accounts_share_one_family():
    page = text(AccountStatus("one", up=True), AccountStatus("two"))
    assert 'cartesia_up{account="one"} 1.0\ncartesia_up{account="two"} 0.0\n' in page
    assert page.count("# TYPE cartesia_up gauge") == 1


names = st.one_of(st.text(max_size=30), st.text('"\\\n\r\x00nx=,{} #', max_size=12))


@given(st.lists(st.tuples(names, st.sampled_from(["failed", "training", "odd"]))))
@example([(ODD, "failed"), ("", "odd"), ("x" * 5000, "failed")])
def test_parsers_read_back_any_model_name(models_and_statuses):
    fine_tunes = [
        FineTune(str(n), model_id=m, status=s) for n, (m, s) in enumerate(models_and_statuses)
    ]
    counters = Counters({(m, "none", "failed"): n for n, (m, _) in enumerate(models_and_statuses)})
    status = account_status(*fine_tunes, counters=counters)
    assert status.counts is not None
    for parse, render in ((parse_text, text), (parse_openmetrics, openmetrics)):
        families = list(parse(render(status)))
        assert counts_of(families) == status.counts
        transitions = transitions_of(families)
        assert transitions.items() >= dict(counters.transitions).items()


@pytest.mark.parametrize(
    "status",
    [SMALL, AccountStatus("default"), account_status(FineTune("a", model_id=ODD)), EVERYTHING],
)
def test_promtool_accepts_the_text(status):
    checked = subprocess.run(
        [required("promtool", package="prometheus"), "check", "metrics"],
        input=text(status).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
