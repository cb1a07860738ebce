"""Whatever changes on the page, in whatever order: it is as if it had been written anew."""

import gzip
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter

from exporter.core.counters import Counters, Example
from exporter.core.labels import Labels
from exporter.exposition.page import RenderedPage, Renderer
from tests.core.sample_account import EVERYTHING, NOW, SHAPE
from tests.exposition.page_fixture import Prefetcher

MOVED = ("sonic-2", "training", "failed")
FIELDS: dict[str, list[Any]] = {
    "up": [True, False],
    "polled_at": [7.0, 8.0],
    "stale_at": [102.0, 104.0, math.inf],
    "counts": [None, {("d1", "en", "sonic-2", "failed"): 1}, EVERYTHING.counts],
    "oldest": [{}, {"failed": 5.0}],
    "series": [(), EVERYTHING.series],
    "options": [SHAPE, replace(SHAPE, constant=()), replace(SHAPE, most_fine_tunes=0)],
    "labels": [Labels(), Labels(("sonic-2", "sonic-4"))],
    "counters": [Counters(), Counters({MOVED: 9}, {"failed": 2})],
    "examples": [{}, {MOVED: Example("a", NOW)}, {MOVED: Example("a", NOW + 1)}],
}
FIELD = [(field, value) for field, values in FIELDS.items() for value in values]
ACCOUNTS = st.sampled_from("ab")
CHANGES = st.one_of(
    st.tuples(st.just("publish"), ACCOUNTS, st.sampled_from(FIELD)),
    st.tuples(st.just("forget"), ACCOUNTS),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("count"), ACCOUNTS),
    st.tuples(st.just("uncount"), ACCOUNTS),
)


class Changing(Prefetcher):
    """A desk to which anything may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, dict[str, Any]] = {}
        for account in ("a", "b"):
            self.publish(account=account)
        self.counts = Counter("counts", "Counts.", ["account"], registry=self.registry)

    def change(self, kind: str, *what: Any) -> None:
        match kind, what:
            case "publish", (account, (field, value)):
                # One field of the last view: nothing else must be what makes the page follow it.
                self.shown[account] = {**self.shown.get(account, {}), field: value}
                self.publish(account=account, **self.shown[account])
            case "forget", (account,):
                self.views.forget(account)
            case "wait", (seconds,):
                self.now += seconds
            case "count", (account,):
                self.counts.labels(account).inc()
            case "uncount", (account,):
                self.counts.remove(account)

    def anew(self) -> RenderedPage:
        return Renderer(self.registry, self.views.newest, lambda: self.now).render()


def read(bodies: RenderedPage) -> list[bytes]:
    plain = [b"".join(each.plain) for each in (bodies.text, bodies.openmetrics)]
    gzipped = [b"".join(each.gzipped) for each in (bodies.text, bodies.openmetrics)]
    assert list(map(gzip.decompress, gzipped)) == plain
    return plain


def follow(turns: list[list[tuple[Any, ...]]]) -> None:
    """Change the page in some turns, and look at it after each."""
    desk = Changing()
    for changes in turns:
        for change in changes:
            desk.change(*change)
        shown, anew = desk.render(), desk.anew()
        assert read(shown) == read(anew)
        assert (shown.views, shown.until) == (anew.views, anew.until)
        assert desk.renderer.shows_newest(shown)


@pytest.mark.parametrize(("field", "value"), FIELD)
def test_the_page_follows_each_field_of_a_view(field, value):
    follow([[], [("publish", "a", (field, value))], [("wait", 3.0)]])


@given(st.lists(st.lists(CHANGES, max_size=3), max_size=12))
def test_what_is_kept_of_the_page_is_what_would_be_written_anew(turns):
    follow(turns)
