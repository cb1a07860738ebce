"""Colours and line styles that colour-blind people can distinguish.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which are distinct with all common
kinds of colour blindness. Each status also has its own line style, and states are shown as text.
"""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common, dashboard

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREY = "#999999"
PALETTE = frozenset({ORANGE, SKY, GREEN, BLUE, VERMILLION, GREY})

STATUS_LINES: dict[str, tuple[str, list[float]]] = {
    "created": (SKY, [2, 6]),
    "training": (BLUE, [10, 6]),
    "completed": (GREEN, []),
    "failed": (VERMILLION, []),
    "unknown": (GREY, [2, 2]),
}
"""Colour of each status, and the lengths of its dashes and gaps in pixels."""

FAILED_WIDTH = 3

States = dict[int, tuple[str, str]]
"""Text and colour of each value of a state."""

ABOVE_ZERO: tuple[tuple[float, str], ...] = ((1, VERMILLION),)
"""Threshold of a number that should be 0."""


def thresholds(*above: tuple[float, str]) -> builders.ThresholdsConfig:
    """Return thresholds: blue, and from each given value on its colour."""
    steps = [dashboard.Threshold(None, BLUE), *(dashboard.Threshold(*step) for step in above)]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def by_threshold() -> builders.FieldColor:
    return builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def shades(colour: str) -> builders.FieldColor:
    """Return shades of one colour, for series whose names are not known in advance."""
    return builders.FieldColor().mode(dashboard.FieldColorModeId.SHADES).fixed_color(colour)


def coloured(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def dashed(*pixels: float) -> dashboard.DynamicConfigValue:
    style = common.LineStyle("dash", list(pixels)) if pixels else common.LineStyle("solid")
    return dashboard.DynamicConfigValue("custom.lineStyle", style)


def status_style(status: str) -> list[dashboard.DynamicConfigValue]:
    """Return the colour and the line of a status; the line of `failed` is thicker."""
    colour, pixels = STATUS_LINES[status]
    width = FAILED_WIDTH if status == "failed" else 2
    thick = dashboard.DynamicConfigValue("custom.lineWidth", width)
    return [coloured(colour), dashed(*pixels), thick]


def state_texts(states: States) -> list[dashboard.ValueMapping]:
    options = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return [dashboard.ValueMap(options)]


def legend() -> common_builders.VizLegendOptions:
    """Return a legend as a table of the last and the maximum value, readable without colour."""
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def tooltip() -> common_builders.VizTooltipOptions:
    return (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
