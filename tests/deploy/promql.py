"""Metrics and labels in PromQL queries, compared with the documented ones."""

import re
from collections.abc import Iterator

from tests.docs.test_documented import documented_metrics

TARGET_LABELS = frozenset({"job", "instance"})
"""Labels that Prometheus adds to scraped series."""

FOREIGN_METRICS = {
    "up": TARGET_LABELS,
    "ALERTS": frozenset({"alertname", "alertstate"}),
    "process_resident_memory_bytes": TARGET_LABELS,
    "process_cpu_seconds_total": TARGET_LABELS,
}
"""Metrics of Prometheus itself and standard process metrics, with their labels."""

_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"")
_SELECTOR = re.compile(r"\b(cartesia_\w+|process_\w+|python_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)")


def documented_series() -> dict[str, frozenset[str]]:
    """Return the labels of every documented series, by its name."""
    series = dict(FOREIGN_METRICS)
    for name, metric_type, labels, *_ in documented_metrics():
        own = TARGET_LABELS | (frozenset(labels.split(", ")) - {""})
        plain = name.strip("`")
        if metric_type == "histogram":
            series |= {f"{plain}_sum": own, f"{plain}_count": own, f"{plain}_bucket": own | {"le"}}
        else:
            series[plain] = own
    return series


def selectors(query: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each series in a query, with the labels of its matchers."""
    bare = _STRING.sub('""', query)
    for name, matchers in _SELECTOR.findall(bare):
        yield name, frozenset(re.findall(r"(\w+) *[=!]", matchers))


def grouping_labels(query: str) -> frozenset[str]:
    """Return the labels by which a query groups and joins."""
    bare = _STRING.sub('""', query)
    return frozenset(
        label for found in _LABELS.findall(bare) for label in re.findall(r"\w+", found)
    )


def undocumented_names(query: str) -> set[str]:
    """Return the metrics in a query that are not documented, and labels that they do not have."""
    series = documented_series()
    named = list(selectors(query))
    unknown = {name for name, _ in named if name not in series}
    wrong = {label for name, labels in named for label in labels - series.get(name, labels)}
    existing = frozenset[str]().union(*(series.get(name, frozenset()) for name, _ in named))
    return unknown | wrong | (grouping_labels(query) - existing)
