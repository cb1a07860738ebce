"""Our own lines are, byte for byte, what the library writes, and read back what went in."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Exemplar, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from exporter.exposition.text_format import Block, Family, family_of, lines
from tests.core.sample_account import EVERYTHING, ODD
from tests.exposition.rendered import families_of, metric_of

values = st.one_of(st.text(max_size=20), st.text('"\\\n\r\x00nx=,{} #%', max_size=12), st.just(ODD))
numbers = st.one_of(st.integers(0, 2**53), st.floats(0, 1e12), st.just(float("inf")))
names = st.lists(st.sampled_from(["a", "account", "le_", "zz"]), unique=True, min_size=1)


class Given:
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return [metric_of(family) for family in self._families]


KINDS: tuple[Literal["gauge", "counter"], ...] = ("gauge", "counter")
PLAIN = st.text("abc_", min_size=1)


@st.composite
def families(draw: st.DrawFn, ids: st.SearchStrategy[str] = values) -> list[Family]:
    made = []
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(KINDS))
        made.append(Family(f"family_{number}", kind, "What it is.", [draw(blocks(kind, ids))]))
    return made


@st.composite
def blocks(draw: st.DrawFn, kind: str, ids: st.SearchStrategy[str]) -> Block:
    of = draw(names)
    row = st.tuples(*(values for _ in of))
    rows = draw(st.dictionaries(row, numbers, max_size=5))
    fixed = draw(st.dictionaries(st.sampled_from(["b", "team", "y"]), values))
    if kind == "gauge":
        return Block(fixed, tuple(of), list(rows.items()))
    chosen = draw(st.dictionaries(st.sampled_from([*rows]), ids)) if rows else {}
    exemplars = {key: Exemplar({"fine_tune_id": text}, 1.0, 1.8e9) for key, text in chosen.items()}
    return Block(fixed, tuple(of), list(rows.items()), "_total", exemplars)


@given(families())
def test_the_lines_are_those_of_the_library(made):
    found = lines(made)
    assert found.text.encode() == generate_latest(Given(made))
    whole = generate_openmetrics(Given(made))
    assert (found.openmetrics + "# EOF\n").encode() == whole


@given(families(PLAIN))
def test_the_lines_are_read_back_as_what_they_were_made_of(made):
    found = lines(made)
    expected = [(s.name, s.labels, s.value) for f in made for s in metric_of(f).samples]
    for read, text in (
        (read_text, found.text),
        (read_openmetrics, found.openmetrics + "# EOF\n"),
    ):
        samples = [s for family in read(text) for s in family.samples]
        assert [(s.name, s.labels, s.value) for s in samples] == expected


class Kept:
    """The metrics of a registry as they were once, without when they were created."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = list(registry.collect())
        for metric in self._metrics:
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]

    def collect(self) -> list[Metric]:
        return self._metrics


def test_the_lines_of_a_registry_are_those_of_the_library():
    registry = CollectorRegistry()
    counter = Counter("cartesia_counted", ODD, ("z", "a"), registry=registry)
    for value in ("", "z", ODD):
        counter.labels(value, "a").inc(3)
    Counter("cartesia_never", "Never.", ("a",), registry=registry)
    took = Histogram("cartesia_took_seconds", "Took.", ("z",), registry=registry)
    for value in ("", ODD):
        took.labels(value).observe(2)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    kept = Kept(registry)
    found = lines(map(family_of, kept.collect()))
    assert found.text.encode() == generate_latest(kept)
    assert (found.openmetrics + "# EOF\n").encode() == generate_openmetrics(kept)
    assert {metric.type for metric in kept.collect()} == {"gauge", "counter", "histogram"}


def test_the_lines_of_everything_are_those_of_the_library():
    made = families_of([EVERYTHING])
    found = lines(made)
    assert found.text.encode() == generate_latest(Given(made))
    whole = generate_openmetrics(Given(made))
    assert (found.openmetrics + "# EOF\n").encode() == whole
    assert 'fine_tune_id="new"} 1.0 17800' in found.openmetrics
