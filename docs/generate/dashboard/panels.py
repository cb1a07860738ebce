"""The kinds of panels there are, each with its queries, unit, limits and description."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common as made
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docs.generate.dashboard.look import (
    BLUE,
    States,
    by_threshold,
    legend,
    limits,
    shades,
    tooltip,
    written_out,
)

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
HALF, THIRD, SIXTH = 12, 8, 4

ACCOUNT = 'account=~"$account"'
CHOSEN = f'{ACCOUNT},model_id=~"$model"'
RATE = "[$__rate_interval]"

Panel = TypeVar("Panel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)
Limits = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Query:
    """What a panel asks, how its series are called, and whether their examples are shown."""

    expr: str
    legend: str = ""
    exemplars: bool = False

    def target(self, ref: str) -> prometheus.Dataquery:
        """Return the query over the time of the dashboard."""
        asked = prometheus.Dataquery().expr(self.expr).legend_format(self.legend).ref_id(ref)
        return asked.datasource(SOURCE).range().exemplar(self.exemplars)

    def now(self, ref: str) -> prometheus.Dataquery:
        """Return the query at its end."""
        return self.target(ref).instant()


@dataclass(frozen=True)
class Text:
    """What is written about a panel: its title, and what a reader has to know."""

    title: str
    description: str


def number(text: Text, *queries: Query, unit: str = "short", above: Limits = ()) -> stat.Panel:
    """Return a panel of one number for each query, a sixth of the width."""
    panel = stat.Panel().targets([query.now(_ref(at)) for at, query in enumerate(queries)])
    panel = panel.unit(unit).no_value("no data").thresholds(limits(*above))
    panel = panel.color_scheme(by_threshold()).color_mode(common.BigValueColorMode.VALUE)
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).reduce_options(
        made.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    )
    return _framed(panel, text).height(4).span(SIXTH)


def lines(text: Text, *queries: Query, unit: str = "short", above: Limits = ()) -> timeseries.Panel:
    """Return a panel of lines over time, a third of the width; limits are dashed lines in it."""
    panel = timeseries.Panel().targets([query.target(_ref(at)) for at, query in enumerate(queries)])
    panel = panel.unit(unit).min(0).line_width(2).fill_opacity(0).legend(legend())
    panel = panel.tooltip(tooltip()).thresholds(limits(*above)).color_scheme(shades(BLUE))
    panel = panel.show_points(common.VisibilityMode.AUTO).thresholds_style(
        made.GraphThresholdsStyleConfig().mode(
            common.GraphThresholdsStyleMode.DASHED if above else common.GraphThresholdsStyleMode.OFF
        )
    )
    return _framed(panel, text).height(9).span(THIRD)


def bars(text: Text, *queries: Query, unit: str = "short", colour: str = BLUE) -> timeseries.Panel:
    """Return a panel of stacked bars, one for each step of time.

    Steps are of 5 minutes at least: an increase is asked for over four scrapes or more, and would
    stand in several bars if they were closer together.
    """
    panel = lines(text, *queries, unit=unit).color_scheme(shades(colour))
    panel = panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(70).line_width(1)
    panel = panel.interval("5m")
    return panel.stacking(made.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))


def states(text: Text, query: Query, words: States) -> statetimeline.Panel:
    """Return a panel of states over time, each written out as ``words`` say."""
    panel = statetimeline.Panel().with_target(query.target("A")).mappings(written_out(words))
    panel = panel.show_value(common.VisibilityMode.ALWAYS).merge_values(True).row_height(0.8)
    panel = panel.thresholds(limits()).color_scheme(by_threshold()).fill_opacity(80)
    return _framed(panel, text).height(9).span(THIRD)


def matrix(text: Text, query: Query, row: str, column: str) -> table.Panel:
    """Return a table with a row and a column for each value of two labels."""
    target = query.now("A").format(PromQueryFormat.TABLE)
    crossed = dashboard.DataTransformerConfig(
        id_val="groupingToMatrix",
        options={"rowField": row, "columnField": column, "valueField": "Value"},
    )
    panel = table.Panel().with_target(target).with_transformation(crossed).unit("short")
    return _framed(panel.thresholds(limits()), text).height(9).span(THIRD)


def _framed(panel: Panel, text: Text) -> Panel:
    return panel.title(text.title).description(text.description).datasource(SOURCE)


def _ref(place: int) -> str:
    return "ABCDEFGH"[place]
