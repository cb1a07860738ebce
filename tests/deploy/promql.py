"""Which metrics and labels a query names, and which of them there are."""

import re
from collections.abc import Iterator

from tests.docs.test_documented import documented

TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to what it scrapes."""

OTHERS = {
    "up": TARGET,
    "ALERTS": frozenset({"alertname", "alertstate"}),
    "process_resident_memory_bytes": TARGET,
    "process_cpu_seconds_total": TARGET,
}
"""Metrics of Prometheus itself, and the usual ones of a process, with their labels."""

_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"")
_SELECTOR = re.compile(r"\b(cartesia_\w+|process_\w+|python_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)")


def known() -> dict[str, frozenset[str]]:
    """Return the labels of every series that there is, by its name."""
    series = dict(OTHERS)
    for name, kind, labels, *_ in documented():
        own = TARGET | (frozenset(labels.split(", ")) - {""})
        plain = name.strip("`")
        if kind == "histogram":
            series |= {f"{plain}_sum": own, f"{plain}_count": own, f"{plain}_bucket": own | {"le"}}
        else:
            series[plain] = own
    return series


def selectors(query: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each series that a query names, with the labels that it is selected by."""
    bare = _STRING.sub('""', query)
    for name, matchers in _SELECTOR.findall(bare):
        yield name, frozenset(re.findall(r"(\w+) *[=!]", matchers))


def grouped(query: str) -> frozenset[str]:
    """Return the labels that a query groups and joins by."""
    bare = _STRING.sub('""', query)
    return frozenset(
        label for found in _LABELS.findall(bare) for label in re.findall(r"\w+", found)
    )


def strangers(query: str) -> set[str]:
    """Return what a query names that is not documented: metrics, and labels that they lack."""
    series = known()
    named = list(selectors(query))
    unknown = {name for name, _ in named if name not in series}
    lacking = {label for name, asked in named for label in asked - series.get(name, asked)}
    there = frozenset[str]().union(*(series.get(name, frozenset()) for name, _ in named))
    return unknown | lacking | (grouped(query) - there)
