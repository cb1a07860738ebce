"""Builders of the types of panels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docs.generate.dashboard.style import (
    BLUE,
    States,
    by_threshold,
    legend,
    shades,
    state_texts,
    thresholds,
    tooltip,
)

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

ACCOUNT = 'account=~"$account"'
SELECTED = f'{ACCOUNT},model_id=~"$model"'
RATE = "[$__rate_interval]"

Panel = TypeVar("Panel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)
Thresholds = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Query:
    """A PromQL query, the legend of its series, and whether exemplars are shown."""

    expr: str
    legend: str = ""
    exemplars: bool = False

    def target(self, ref: str) -> prometheus.Dataquery:
        """Return a query over the time range of the dashboard."""
        query = prometheus.Dataquery().expr(self.expr).legend_format(self.legend).ref_id(ref)
        return query.datasource(SOURCE).range().exemplar(self.exemplars)

    def instant_target(self, ref: str) -> prometheus.Dataquery:
        """Return a query at the end of the time range."""
        return self.target(ref).instant()


@dataclass(frozen=True)
class Text:
    """Title and description of a panel."""

    title: str
    description: str


def number_panel(
    text: Text, *queries: Query, unit: str = "short", above: Thresholds = ()
) -> stat.Panel:
    """Return a panel with one number per query."""
    panel = stat.Panel().targets(
        [query.instant_target(_ref_id(index)) for index, query in enumerate(queries)]
    )
    panel = panel.unit(unit).no_value("no data").thresholds(thresholds(*above))
    panel = panel.color_scheme(by_threshold()).color_mode(common.BigValueColorMode.VALUE)
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).reduce_options(
        builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    )
    return _with_text(panel, text).height(4)


def line_panel(
    text: Text, *queries: Query, unit: str = "short", above: Thresholds = ()
) -> timeseries.Panel:
    """Return a line chart; thresholds are dashed lines."""
    panel = timeseries.Panel().targets(
        [query.target(_ref_id(index)) for index, query in enumerate(queries)]
    )
    panel = panel.unit(unit).min(0).line_width(2).fill_opacity(0).legend(legend())
    panel = panel.tooltip(tooltip()).thresholds(thresholds(*above)).color_scheme(shades(BLUE))
    panel = panel.show_points(common.VisibilityMode.AUTO).thresholds_style(
        builders.GraphThresholdsStyleConfig().mode(
            common.GraphThresholdsStyleMode.DASHED if above else common.GraphThresholdsStyleMode.OFF
        )
    )
    return _with_text(panel, text).height(9)


def bar_panel(
    text: Text, *queries: Query, unit: str = "short", colour: str = BLUE
) -> timeseries.Panel:
    """Return a chart of stacked bars with steps of at least 5 minutes.

    $__rate_interval spans at least four scrapes: with shorter steps one increase would be in
    several bars.
    """
    panel = line_panel(text, *queries, unit=unit).color_scheme(shades(colour))
    panel = panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(70).line_width(1)
    panel = panel.interval("5m")
    return panel.stacking(builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))


def state_panel(text: Text, query: Query, texts: States) -> statetimeline.Panel:
    """Return a panel of states over time, shown as the given texts."""
    panel = statetimeline.Panel().with_target(query.target("A")).mappings(state_texts(texts))
    panel = panel.show_value(common.VisibilityMode.ALWAYS).merge_values(True).row_height(0.8)
    panel = panel.thresholds(thresholds()).color_scheme(by_threshold()).fill_opacity(80)
    return _with_text(panel, text).height(9)


def table_panel(text: Text, query: Query, row: str, column: str) -> table.Panel:
    """Return a table with a row and a column for each value of two labels."""
    target = query.instant_target("A").format(PromQueryFormat.TABLE)
    transformation = dashboard.DataTransformerConfig(
        id_val="groupingToMatrix",
        options={"rowField": row, "columnField": column, "valueField": "Value"},
    )
    panel = table.Panel().with_target(target).with_transformation(transformation).unit("short")
    return _with_text(panel.thresholds(thresholds()), text).height(9)


def _with_text(panel: Panel, text: Text) -> Panel:
    return panel.title(text.title).description(text.description).datasource(SOURCE)


def _ref_id(index: int) -> str:
    return "ABCDEFGH"[index]
