"""The dashboard's file, and its queries as Grafana would send them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docs.generate import documents

DASHBOARD: dict[str, Any] = json.loads(documents.DASHBOARD.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {
    variable["name"]: variable for variable in DASHBOARD["templating"]["list"]
}


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    panel: str
    ref: str
    expr: str
    exemplars: bool
    instant: bool

    def __str__(self) -> str:
        return f"{self.panel} {self.ref}"


def targets() -> list[Target]:
    return [
        Target(panel["title"], each["refId"], each["expr"], each["exemplar"], each["instant"])
        for panel in PANELS
        for each in panel["targets"]
    ]


def fill_in(expr: str, rate_seconds: int = 4, range_seconds: int = 60, **selected: str) -> str:
    """Return a query with its variables replaced, by the value of "All" if not selected.

    ``rate_seconds`` is $__rate_interval, at least four times the scrape interval;
    ``range_seconds`` is $__range, the time range of the dashboard.
    """
    expr = expr.replace("$__rate_interval", f"{rate_seconds}s")
    expr = expr.replace("$__range", f"{range_seconds}s")
    for name, variable in VARIABLES.items():
        expr = expr.replace(f"${name}", selected.get(name, variable.get("allValue", "")))
    assert "$" not in expr, expr
    return expr


def find_texts(node: object, *names: str) -> Iterator[str]:
    """Yield each text that is the value of one of the keys, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in names and isinstance(value, str):
                yield value
            yield from find_texts(value, *names)
    elif isinstance(node, list):
        for each in node:
            yield from find_texts(each, *names)
