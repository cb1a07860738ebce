"""How the dashboard's file says that a series is drawn: colour, dashes, width, axis."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.documents.dashboard.look import BLUE
from tests.documents.picture.answers import Line, Panel


@dataclass(frozen=True)
class Style:
    """How one series is drawn."""

    colour: str
    dash: str | None
    width: float
    unit: str
    on_the_right: bool


def style(panel: Panel, line: Line, place: int, number: int) -> Style:
    """Return it for the ``place``-th of so many series."""
    own = {name: value for each in _overrides(panel, line) for name, value in each.items()}
    defaults = panel["fieldConfig"]["defaults"]
    colour = own.get("color", defaults.get("color", {})).get("fixedColor", BLUE)
    dash = own.get("custom.lineStyle", {}).get("dash")
    return Style(
        colour=colour if "color" in own else _shade(colour, place, number),
        dash=" ".join(map(str, dash)) if dash else None,
        width=own.get("custom.lineWidth", defaults["custom"].get("lineWidth", 1)),
        unit=own.get("unit", defaults.get("unit", "short")),
        on_the_right=own.get("custom.axisPlacement") == "right",
    )


def colour_at(panel: Panel, value: float) -> str:
    """Return the colour of the highest threshold that a value has reached."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [each["color"] for each in steps if each["value"] is None or value >= each["value"]]
    return str(reached[-1])


def limits(panel: Panel) -> list[tuple[float, str]]:
    """Return the thresholds that are drawn, with their colours."""
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["custom"].get("thresholdsStyle", {}).get("mode") != "dashed":
        return []
    steps = defaults["thresholds"]["steps"]
    return [(each["value"], each["color"]) for each in steps if each["value"] is not None]


def _overrides(panel: Panel, line: Line) -> Iterator[dict[str, Any]]:
    for override in panel["fieldConfig"]["overrides"]:
        kind, wanted = override["matcher"]["id"], override["matcher"]["options"]
        met = {
            "byName": line.name == wanted,
            "byFrameRefID": line.ref == wanted,
            "byRegexp": bool(re.search(wanted.strip("/"), line.name)),
        }
        if met[kind]:
            yield {each["id"]: each["value"] for each in override["properties"]}


def _shade(colour: str, place: int, number: int) -> str:
    """Return one of so many shades of a colour, the first as it is, each other one lighter."""
    light = 0.65 * place / max(number - 1, 1)
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * light):02x}" for part in parts)
