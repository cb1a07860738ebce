"""What Prometheus answers the queries of the dashboard's file, panel by panel."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.deploy.boards import filled_in
from tests.system.prometheus import Prometheus, Series

Panel = dict[str, Any]

POINTS, BARS = 120, 30
"""How many steps of time a panel has; Grafana would take as many as it is wide, or fit."""


@dataclass(frozen=True)
class Line:
    """A series as the legend calls it, and which query of the panel it comes from."""

    name: str
    ref: str
    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Answer:
    """A panel, what its queries gave, and the exemplars: times and values."""

    panel: Panel
    lines: list[Line]
    examples: list[tuple[float, float]]

    @property
    def parts(self) -> int:
        """In how many steps its time is taken."""
        custom = self.panel["fieldConfig"]["defaults"].get("custom", {})
        return BARS if custom.get("drawStyle") == "bars" else POINTS


@dataclass(frozen=True)
class Span:
    """The time of the picture, in Unix seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def answers(panels: list[Panel], scraping: Prometheus, span: Span) -> Iterator[Answer]:
    """Yield what each panel shows."""
    for panel in panels:
        answer = Answer(panel, [], [])
        for target in panel.get("targets", ()):
            step = span.seconds / answer.parts
            # As Grafana: a step and a scrape, or what happens between two steps is in neither.
            query = filled_in(target["expr"], max(round(step) + 1, 4), round(span.seconds))
            found = (
                scraping.now(query, span.end)
                if target["instant"]
                else scraping.series(query, span.start, span.end, step)
            )
            lines = (_line(target, each) for each in found)
            answer.lines.extend(line for line in lines if line.points)
            if target["exemplar"]:
                answer.examples.extend(scraping.examples(query, span.start, span.end))
        yield answer


def _line(target: dict[str, Any], series: Series) -> Line:
    def label(found: re.Match[str]) -> str:
        return series.labels.get(found[1], "")

    name = re.sub(r"\{\{(\w+)\}\}", label, target["legendFormat"])
    # A share of nothing, or a quantile of nothing, is no number: Grafana leaves it out as well.
    points = [(at, value) for at, value in series.points if math.isfinite(value)]
    return Line(name, target["refId"], series.labels, points)
