"""What the dashboard's file holds, and its queries as Grafana would send them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docs.generate.documents import DASHBOARD

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in BOARD["templating"]["list"]}


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


def filled_in(expr: str, rate: int = 4, whole: int = 60, **chosen: str) -> str:
    """Return a query without variables; what is not chosen is what All stands for.

    ``rate`` is $__rate_interval, four times the interval of the scrapes at least, and ``whole``
    the time of the dashboard, both in seconds.
    """
    expr = expr.replace("$__rate_interval", f"{rate}s").replace("$__range", f"{whole}s")
    for name, variable in VARIABLES.items():
        expr = expr.replace(f"${name}", chosen.get(name, variable.get("allValue", "")))
    assert "$" not in expr, expr
    return expr


def found(node: object, *names: str) -> Iterator[str]:
    """Yield each text that stands under one of the names, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in names and isinstance(value, str):
                yield value
            yield from found(value, *names)
    elif isinstance(node, list):
        for each in node:
            yield from found(each, *names)
