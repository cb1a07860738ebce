"""The page shows every change, loses stale data by itself, and renders only what changed."""

import asyncio
import gzip
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric

from exporter.core.counters import Counters, Example
from exporter.core.labels import Labels
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.exposition import page as page_module
from exporter.exposition.families import history_families
from exporter.exposition.page import (
    RenderedPage,
    Renderer,
    TextCache,
    render_history,
    render_metrics,
)
from exporter.exposition.text_format import render_families, to_family
from tests.core.sample_account import EVERYTHING, NOW, OPTIONS
from tests.exposition.page_fixture import PageFixture, sample_names


@pytest.fixture
def page():
    return PageFixture()


def test_an_unchanged_page_is_not_rendered_again(page):
    page.publish()
    first = page.render()
    assert page.render() is first
    page.counter.inc()
    second = page.render()
    assert second is not first
    assert second.text.plain[0] is first.text.plain[0]
    assert second.text.gzipped[0] is first.text.gzipped[0]
    assert b"cartesia_exporter_polls_total 1.0\n" in second.text.plain[1]


def test_data_series_are_rendered_again_only_when_one_changed(page):
    page.publish()
    first = page.render()
    page.publish(polled_at=EVERYTHING.polled_at + 60, up=False)
    second = page.render()
    assert second.text.plain[0] is first.text.plain[0]
    assert b'cartesia_up{account="default"} 0.0\n' in second.text.plain[1]
    page.publish(oldest={"training": 5.0})
    assert page.render().text.plain[0] != first.text.plain[0]


def test_formats_share_the_data_series_and_only_openmetrics_ends_with_eof(page):
    page.publish()
    rendered = page.render()
    assert rendered.text.plain[0] is rendered.openmetrics.plain[0]
    assert b"".join(rendered.openmetrics.plain).count(b"\n# EOF\n") == 1
    assert b"".join(rendered.openmetrics.plain).endswith(b"\n# EOF\n")
    assert b"\n# EOF" not in b"".join(rendered.text.plain)


def test_process_metrics_alone_are_rendered_once_a_second(page):
    page.publish()
    first = page.render()
    page.process.set(7)
    page.now += 0.9
    assert page.render() is first
    page.now += 0.1
    assert b"process_open_fds 7.0\n" in page.render().text.plain[1]


def test_data_series_disappear_when_stale_and_return_when_fresh(page):
    page.publish(stale_at=200.0)
    assert "cartesia_fine_tunes" in sample_names(page.render().text.plain[0])
    page.now = 200.0
    stale = page.render()
    assert sample_names(stale.text.plain[0]) == set()
    assert b'cartesia_stale{account="default"} 1.0\n' in stale.text.plain[1]
    page.publish(stale_at=500.0)
    assert "cartesia_fine_tunes" in sample_names(page.render().text.plain[0])


def test_a_stale_account_loses_only_its_own_series(page):
    page.publish(account="old", stale_at=200.0)
    page.publish(account="fresh")
    page.now = 200.0
    data = page.render().text.plain[0]
    assert b'account="old"' not in data
    assert b'account="fresh"' in data


def test_each_account_becomes_stale_at_its_own_time(page):
    page.publish(account="first", stale_at=200.0)
    page.publish(account="second", stale_at=300.0)
    for page.now, fresh in ((199.9, 2), (200.0, 1), (299.9, 1), (300.0, 0)):
        data = page.render().text.plain[0]
        assert (b'account="first"' in data) + (b'account="second"' in data) == fresh


async def test_the_service_renders_changes(page):
    async with page.running() as service:
        first = await service.newest()
        page.counter.inc()
        while (newest := await service.newest()) is first:  # noqa: ASYNC110 - nothing to wait for
            await asyncio.sleep(0.01)
        assert b"cartesia_exporter_polls_total 1.0\n" in newest.text.plain[1]


async def test_changes_are_checked_four_times_a_second_and_scrapes_do_not_render(page, monkeypatch):
    assert page_module._CHECK_SECONDS == 0.25
    monkeypatch.setattr(page_module, "_CHECK_SECONDS", 3600.0)
    renders: list[int] = []
    render = page.renderer.render

    def counting_render():
        renders.append(1)
        return render()

    monkeypatch.setattr(page.renderer, "render", counting_render)
    async with page.running() as service:
        pages = {id(await service.newest()) for _ in range(3)}
        for _ in range(50):
            page.counter.inc()
            pages.add(id(await service.newest()))
        # One by the service, and one by the first scrape, which did not wait for the service.
        assert len(renders) <= 2
        assert len(pages) <= 2


async def test_a_published_status_is_on_the_page_at_once(page):
    async with page.running() as service:
        for polled_at in range(1, 30):
            page.publish(polled_at=polled_at)
            newest = await service.newest()
            assert f" {polled_at}.0\n".encode() in newest.text.plain[1]


async def test_a_scrape_never_returns_stale_data(page, monkeypatch):
    monkeypatch.setattr(page_module, "_CHECK_SECONDS", 3600.0)
    page.publish(stale_at=200.0)
    async with page.running() as service:
        page.now = 199.9
        assert "cartesia_fine_tunes" in sample_names((await service.newest()).text.plain[0])
        page.now = 200.0
        stale = await service.newest()
        assert sample_names(stale.text.plain[0]) == set()
        assert b'cartesia_stale{account="default"} 1.0\n' in stale.text.plain[1]
        assert await service.newest() is stale


def test_slow_checks_are_less_frequent():
    for seconds, pause in ((0.0, 0.25), (0.027, 0.25), (0.1, 0.9), (60.0, 2.0)):
        assert page_module.pause_after(seconds) == pytest.approx(pause)


async def test_an_exception_from_rendering_ends_the_service(page):
    class BrokenCollector:
        def collect(self):
            raise ZeroDivisionError

    page.registry._collector_to_names[BrokenCollector()] = []
    with pytest.raises(ExceptionGroup, match="unhandled errors") as caught:
        async with page.running():
            await asyncio.sleep(5)
    assert caught.group_contains(ZeroDivisionError)


TRANSITION = ("sonic-2", "training", "failed")
FIELDS: dict[str, list[Any]] = {
    "up": [True, False],
    "polled_at": [7.0, 8.0],
    "stale_at": [102.0, 104.0, math.inf],
    "counts": [None, {("d1", "en", "sonic-2", "failed"): 1}, EVERYTHING.counts],
    "oldest": [{}, {"failed": 5.0}],
    "series": [(), EVERYTHING.series],
    "options": [OPTIONS, replace(OPTIONS, constant=()), replace(OPTIONS, most_fine_tunes=0)],
    "labels": [Labels(), Labels(("sonic-2", "sonic-4"))],
    "counters": [Counters(), Counters({TRANSITION: 9}, {"failed": 2})],
    "examples": [{}, {TRANSITION: Example("a", NOW)}, {TRANSITION: Example("a", NOW + 1)}],
}
FIELD_VALUES = [(field, value) for field, values in FIELDS.items() for value in values]
ACCOUNTS = st.sampled_from("ab")
CHANGES = st.one_of(
    st.tuples(st.just("publish"), ACCOUNTS, st.sampled_from(FIELD_VALUES)),
    st.tuples(st.just("forget"), ACCOUNTS),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("count"), ACCOUNTS),
    st.tuples(st.just("uncount"), ACCOUNTS),
)


class ChangingPage(PageFixture):
    """A page with two accounts and a counter, changed by the tuples of ``CHANGES``."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, dict[str, Any]] = {}
        for account in ("a", "b"):
            self.publish(account=account)
        self.counts = Counter("counts", "Counts.", ["account"], registry=self.registry)

    def change(self, action: str, *arguments: Any) -> None:
        match action, arguments:
            case "publish", (account, (field, value)):
                # Change one field only, so that no other field causes the rendering.
                self.fields[account] = {**self.fields.get(account, {}), field: value}
                self.publish(account=account, **self.fields[account])
            case "forget", (account,):
                self.statuses.forget(account)
            case "wait", (seconds,):
                self.now += seconds
            case "count", (account,):
                self.counts.labels(account).inc()
            case "uncount", (account,):
                self.counts.remove(account)


def decoded(page: RenderedPage) -> list[bytes]:
    plain = [b"".join(body.plain) for body in (page.text, page.openmetrics)]
    gzipped = [b"".join(body.gzipped) for body in (page.text, page.openmetrics)]
    assert list(map(gzip.decompress, gzipped)) == plain
    return plain


def assert_equals_a_new_rendering(rounds: list[list[tuple[Any, ...]]]) -> None:
    """Apply the changes of each round, then compare the page with that of a new renderer."""
    page = ChangingPage()
    for changes in rounds:
        for change in changes:
            page.change(*change)
        rendered = page.render()
        new = Renderer(page.registry, page.statuses.newest, lambda: page.now).render()
        assert decoded(rendered) == decoded(new), rounds
        assert (rendered.statuses, rendered.valid_until) == (new.statuses, new.valid_until)
        assert page.renderer.is_current(rendered)


def test_the_page_shows_a_change_of_any_field():
    for field, value in FIELD_VALUES:
        assert_equals_a_new_rendering([[], [("publish", "a", (field, value))], [("wait", 3.0)]])


@given(st.lists(st.lists(CHANGES, max_size=3), max_size=12))
def test_a_page_after_any_changes_equals_a_new_rendering(rounds):
    assert_equals_a_new_rendering(rounds)


HISTORY_CHANGES: list[dict[str, Any]] = [
    {},
    {"polled_at": 7.0, "up": False},
    {"counts": {("d", "en", "new", "failed"): 1}},
    {"counts": None},
    {"counters": Counters({("sonic-2", "training", "failed"): 9}, {"failed": 2})},
    {"labels": Labels(("sonic-2", "sonic-4"))},
    {"options": SeriesOptions(())},
    {"examples": {}},
]


def statuses_of(accounts: Mapping[str, Mapping[str, Any]]) -> list[AccountStatus]:
    return [replace(EVERYTHING, account=name, **fields) for name, fields in accounts.items()]


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(HISTORY_CHANGES), max_size=3),
        max_size=6,
    )
)
def test_cached_history_equals_a_new_rendering(polls):
    cache = TextCache()
    for accounts in polls:
        statuses = statuses_of(accounts)
        assert render_history(statuses, cache) == render_families(history_families(statuses))


def test_history_is_rendered_only_for_the_account_that_changed(monkeypatch):
    rendered: list[str] = []

    def recording(statuses: Sequence[AccountStatus]):
        rendered.extend(status.account for status in statuses)
        return history_families(statuses)

    monkeypatch.setattr(page_module, "history_families", recording)
    cache = TextCache()
    accounts = dict.fromkeys(["first", "second", "third"], HISTORY_CHANGES[0])
    render_history(statuses_of(accounts), cache)
    rendered.clear()
    render_history(statuses_of({**accounts, "fourth": HISTORY_CHANGES[0]}), cache)
    assert rendered == ["fourth"]
    rendered.clear()
    changes = {"first": HISTORY_CHANGES[1], "second": HISTORY_CHANGES[4]}
    render_history(statuses_of({**accounts, **changes}), cache)
    assert rendered == ["second"], "the time and result of a poll are not part of the history"


def test_a_metric_is_rendered_only_when_its_samples_changed(monkeypatch):
    registry = CollectorRegistry()
    counter = Counter("polls", "Polls.", ["account"], registry=registry)
    Gauge("up", "Up.", registry=registry)
    rendered: list[str] = []

    def recording(metric: Metric):
        rendered.append(metric.name)
        return to_family(metric)

    monkeypatch.setattr(page_module, "to_family", recording)
    cache = TextCache()

    def rendered_now() -> list[str]:
        rendered.clear()
        metrics = list(registry.collect())
        assert render_metrics(metrics, cache) == render_families(map(to_family, metrics))
        return list(rendered)

    assert rendered_now() == ["polls", "up"]
    assert rendered_now() == []
    counter.labels("a").inc()
    assert rendered_now() == ["polls"]
    counter.remove("a")
    assert rendered_now() == ["polls"]
