"""Colours and shapes that do not depend on telling red from green.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which people with any of the
common kinds of colour blindness tell apart. Each status has a line of its own beside its colour,
and a state is written out.
"""

from grafana_foundation_sdk.builders import common as made
from grafana_foundation_sdk.builders import dashboard as make
from grafana_foundation_sdk.models import common, dashboard

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREY = "#999999"
PALETTE = frozenset({ORANGE, SKY, GREEN, BLUE, VERMILLION, GREY})

DASHES: dict[str, tuple[str, list[float]]] = {
    "created": (SKY, [2, 6]),
    "training": (BLUE, [10, 6]),
    "completed": (GREEN, []),
    "failed": (VERMILLION, []),
    "unknown": (GREY, [2, 2]),
}
"""The colour of each status, and how many pixels of its line are drawn and left out."""

FAILED_WIDTH = 3

States = dict[int, tuple[str, str]]
"""A text and a colour for each value of a state."""

FROM_NOTHING: tuple[tuple[float, str], ...] = ((1, VERMILLION),)
"""The limit of what should be none."""


def limits(*above: tuple[float, str]) -> make.ThresholdsConfig:
    """Return thresholds: blue, and a colour from each value on."""
    steps = [dashboard.Threshold(None, BLUE), *(dashboard.Threshold(*step) for step in above)]
    return make.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def by_threshold() -> make.FieldColor:
    return make.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def shades(colour: str) -> make.FieldColor:
    """Return light to dark of one colour, for series whose names nobody knows beforehand."""
    return make.FieldColor().mode(dashboard.FieldColorModeId.SHADES).fixed_color(colour)


def coloured(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def dashed(*pixels: float) -> dashboard.DynamicConfigValue:
    style = common.LineStyle("dash", list(pixels)) if pixels else common.LineStyle("solid")
    return dashboard.DynamicConfigValue("custom.lineStyle", style)


def status_style(status: str) -> list[dashboard.DynamicConfigValue]:
    """Return what sets a status apart: colour, dashes, and for `failed` a thicker line."""
    colour, pixels = DASHES[status]
    width = FAILED_WIDTH if status == "failed" else 2
    thick = dashboard.DynamicConfigValue("custom.lineWidth", width)
    return [coloured(colour), dashed(*pixels), thick]


def written_out(states: States) -> list[dashboard.ValueMapping]:
    options = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(states.items())
    }
    return [dashboard.ValueMap(options)]


def legend() -> made.VizLegendOptions:
    """Return a table of the newest and the highest value: readable without any colour."""
    return (
        made.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def tooltip() -> made.VizTooltipOptions:
    return (
        made.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
