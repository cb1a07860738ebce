"""The text equals that of prometheus_client byte for byte, and parsers read back the input."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Exemplar, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from exporter.exposition.text_format import Block, Family, render_families, to_family
from tests.core.sample_account import EVERYTHING, ODD
from tests.exposition.rendered import families_of, metric_of

values = st.one_of(st.text(max_size=20), st.text('"\\\n\r\x00nx=,{} #%', max_size=12), st.just(ODD))
numbers = st.one_of(st.integers(0, 2**53), st.floats(0, 1e12), st.just(float("inf")))
label_names = st.lists(st.sampled_from(["a", "account", "le_", "zz"]), unique=True, min_size=1)
plain_ids = st.text("abc_", min_size=1)

TYPES: tuple[Literal["gauge", "counter"], ...] = ("gauge", "counter")


class StubRegistry:
    """A registry that collects the given metrics."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


@st.composite
def family_lists(draw: st.DrawFn, ids: st.SearchStrategy[str] = values) -> list[Family]:
    families = []
    for number in range(draw(st.integers(0, 3))):
        metric_type = draw(st.sampled_from(TYPES))
        block = draw(blocks(metric_type, ids))
        families.append(Family(f"family_{number}", metric_type, "What it is.", [block]))
    return families


@st.composite
def blocks(draw: st.DrawFn, metric_type: str, ids: st.SearchStrategy[str]) -> Block:
    names = draw(label_names)
    row = st.tuples(*(values for _ in names))
    rows = draw(st.dictionaries(row, numbers, max_size=5))
    fixed = draw(st.dictionaries(st.sampled_from(["b", "team", "y"]), values))
    if metric_type == "gauge":
        return Block(fixed, tuple(names), list(rows.items()))
    chosen = draw(st.dictionaries(st.sampled_from([*rows]), ids)) if rows else {}
    exemplars = {key: Exemplar({"fine_tune_id": text}, 1.0, 1.8e9) for key, text in chosen.items()}
    return Block(fixed, tuple(names), list(rows.items()), "_total", exemplars)


def assert_equals_prometheus_client(families: list[Family]) -> None:
    rendered, registry = render_families(families), StubRegistry(list(map(metric_of, families)))
    assert rendered.text.encode() == generate_latest(registry)
    assert (rendered.openmetrics + "# EOF\n").encode() == generate_openmetrics(registry)


@given(family_lists())
def test_text_equals_that_of_prometheus_client(families):
    assert_equals_prometheus_client(families)


def test_text_of_a_full_account_equals_that_of_prometheus_client():
    families = families_of([EVERYTHING])
    assert_equals_prometheus_client(families)
    assert 'fine_tune_id="new"} 1.0 17800' in render_families(families).openmetrics


@given(family_lists(plain_ids))
def test_parsers_read_back_the_samples(families):
    rendered = render_families(families)
    expected = [(s.name, s.labels, s.value) for f in families for s in metric_of(f).samples]
    for parse, text in (
        (parse_text, rendered.text),
        (parse_openmetrics, rendered.openmetrics + "# EOF\n"),
    ):
        samples = [s for family in parse(text) for s in family.samples]
        assert [(s.name, s.labels, s.value) for s in samples] == expected


def test_text_of_a_registry_equals_that_of_prometheus_client():
    registry = CollectorRegistry()
    counter = Counter("cartesia_counted", ODD, ("z", "a"), registry=registry)
    for value in ("", "z", ODD):
        counter.labels(value, "a").inc(3)
    Counter("cartesia_never", "Never.", ("a",), registry=registry)
    histogram = Histogram("cartesia_took_seconds", "Took.", ("z",), registry=registry)
    for value in ("", ODD):
        histogram.labels(value).observe(2)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = list(registry.collect())
    for metric in metrics:
        metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
    rendered, stub = render_families(map(to_family, metrics)), StubRegistry(metrics)
    assert rendered.text.encode() == generate_latest(stub)
    assert (rendered.openmetrics + "# EOF\n").encode() == generate_openmetrics(stub)
    assert {metric.type for metric in metrics} == {"gauge", "counter", "histogram"}
