"""Lines that are kept say what lines written anew would, and only what changed is written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric

from exporter.core.counters import Counters
from exporter.core.labels import Labels
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.exposition import page as kept_lines
from exporter.exposition.families import history_families
from exporter.exposition.page import HistoryLines, MetricLines
from exporter.exposition.text_format import family_of, lines
from tests.core.sample_account import EVERYTHING

CHANGES: list[dict[str, Any]] = [
    {},
    {"polled_at": 7.0, "up": False},
    {"counts": {("d", "en", "new", "failed"): 1}},
    {"counts": None},
    {"counters": Counters({("sonic-2", "training", "failed"): 9}, {"failed": 2})},
    {"labels": Labels(("sonic-2", "sonic-4"))},
    {"options": SeriesOptions(())},
    {"examples": {}},
]
POLLS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(CHANGES), max_size=3)


def views(accounts: Mapping[str, Mapping[str, Any]]) -> list[AccountStatus]:
    return [replace(EVERYTHING, account=name, **of) for name, of in accounts.items()]


@given(st.lists(POLLS, max_size=6))
def test_what_is_kept_is_what_would_be_written_anew(polls):
    kept = HistoryLines()
    for accounts in polls:
        shown = views(accounts)
        assert kept.of(shown) == lines(history_families(shown))


def test_of_many_accounts_only_the_one_that_changed_is_written_again(monkeypatch):
    written: list[str] = []

    def noted(found: Sequence[AccountStatus]):
        written.extend(view.account for view in found)
        return history_families(found)

    monkeypatch.setattr(kept_lines, "history_families", noted)
    kept, accounts = HistoryLines(), dict.fromkeys(["first", "second", "third"], CHANGES[0])
    kept.of(views(accounts))
    written.clear()
    kept.of(views({**accounts, "fourth": CHANGES[0]}))
    assert written == ["fourth"]
    written.clear()
    kept.of(views({**accounts, "first": CHANGES[1], "second": CHANGES[4]}))
    assert written == ["second"], "when and how the others were polled is shown elsewhere"


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_a_metric_is_written_again_when_a_sample_of_it_changed(registry, monkeypatch):
    counter = Counter("polls", "Polls.", ["account"], registry=registry)
    Gauge("up", "Up.", registry=registry)
    written: list[str] = []

    def noted(metric: Metric):
        written.append(metric.name)
        return family_of(metric)

    monkeypatch.setattr(kept_lines, "family_of", noted)
    kept = MetricLines()

    def now() -> list[str]:
        written.clear()
        found = list(registry.collect())
        assert kept.of(found) == lines(map(family_of, found))
        return list(written)

    assert now() == ["polls", "up"]
    assert now() == []
    counter.labels("a").inc()
    assert now() == ["polls"]
    counter.remove("a")
    assert now() == ["polls"]
