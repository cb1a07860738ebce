"""The data that Prometheus returns for the panels of the dashboard."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.deploy.dashboard_file import fill_in
from tests.system.prometheus import Prometheus, Series

Panel = dict[str, Any]

LINE_STEPS, BAR_STEPS = 120, 30
"""Steps of the time range; in Grafana they depend on the width of a panel."""


@dataclass(frozen=True)
class LegendSeries:
    """A series with its name in the legend, and the query of the panel that it comes from."""

    name: str
    ref: str
    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class PanelData:
    """A panel, the series of its queries, and the times and values of its exemplars."""

    panel: Panel
    series: list[LegendSeries]
    exemplars: list[tuple[float, float]]

    @property
    def steps(self) -> int:
        custom = self.panel["fieldConfig"]["defaults"].get("custom", {})
        return BAR_STEPS if custom.get("drawStyle") == "bars" else LINE_STEPS


@dataclass(frozen=True)
class TimeRange:
    """A time range in Unix seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def query_panels(
    panels: list[Panel], prometheus: Prometheus, time_range: TimeRange
) -> Iterator[PanelData]:
    """Yield the data of each panel."""
    for panel in panels:
        data = PanelData(panel, [], [])
        for target in panel.get("targets", ()):
            step = time_range.seconds / data.steps
            # Step plus scrape interval, as in Grafana: a shorter window would miss what happens
            # between two steps.
            rate_seconds = max(round(step) + 1, 4)
            query = fill_in(target["expr"], rate_seconds, round(time_range.seconds))
            found = (
                prometheus.now(query, time_range.end)
                if target["instant"]
                else prometheus.series(query, time_range.start, time_range.end, step)
            )
            series = (_with_legend(target, each) for each in found)
            data.series.extend(each for each in series if each.points)
            if target["exemplar"]:
                exemplars = prometheus.examples(query, time_range.start, time_range.end)
                data.exemplars.extend(exemplars)
        yield data


def _with_legend(target: dict[str, Any], series: Series) -> LegendSeries:
    def label(found: re.Match[str]) -> str:
        return series.labels.get(found[1], "")

    name = re.sub(r"\{\{(\w+)\}\}", label, target["legendFormat"])
    # A ratio or a quantile of no data is NaN; Grafana leaves it out as well.
    points = [(at, value) for at, value in series.points if math.isfinite(value)]
    return LegendSeries(name, target["refId"], series.labels, points)
