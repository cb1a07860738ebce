"""The whole picture: each panel in its place, with its title."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.documents.picture.answers import Answer, Span
from tests.documents.picture.charts import chart
from tests.documents.picture.figures import number, states, table
from tests.documents.picture.svg import (
    GRID,
    MUTED,
    PAPER,
    Box,
    document,
    rectangle,
    text,
)

PICTURE = Path(__file__).parent.parent.parent.parent / "docs" / "dashboard.svg"

_ABOUT = (
    "Drawn by `make picture`, not by Grafana, from the dashboard's file and the answers of a "
    "Prometheus that scraped an agent on a simulated API, with trouble. Legends: last / highest."
)

_COLUMN, _ROW, _GAP, _HEAD = 58, 28, 6, 46
"""Pixels of one step of Grafana's grid, which is 24 wide, and between panels."""


def picture(answers: Iterable[Answer], span: Span) -> str:
    """Return the file."""
    drawn = list(answers)
    lowest = max(each.panel["gridPos"]["y"] + each.panel["gridPos"]["h"] for each in drawn)
    width, height = 24 * _COLUMN + _GAP, lowest * _ROW + _HEAD + _GAP
    parts = [rectangle(Box(0, 0, width, height), fill="#f4f5f7")]
    parts.append(text((_GAP + 2, 19), "Cartesia fine-tunes", 16, font_weight="bold"))
    parts.append(text((_GAP + 2, 36), _ABOUT, 11, fill=MUTED))
    for answer in drawn:
        parts += _panel(answer, span)
    return document(width, height, parts)


def _panel(answer: Answer, span: Span) -> Iterator[str]:
    panel, at = answer.panel, answer.panel["gridPos"]
    place = (at["x"] * _COLUMN + _GAP, at["y"] * _ROW + _HEAD)
    box = Box(*place, at["w"] * _COLUMN - _GAP, at["h"] * _ROW - _GAP)
    if panel["type"] == "row":
        yield text((box.x + 2, box.bottom - 2), panel["title"], 12, font_weight="bold")
        return
    yield rectangle(box, fill=PAPER, stroke=GRID, rx=3)
    yield text((box.x + 8, box.y + 17), panel["title"], 12, font_weight="bold")
    inner = Box(box.x, box.y + 24, box.width, box.height - 28)
    if panel["type"] == "timeseries":
        yield from chart(answer, inner, span)
    elif panel["type"] == "stat":
        yield from number(answer, inner)
    elif panel["type"] == "state-timeline":
        yield from states(answer, inner, span)
    elif panel["type"] == "table":
        yield from table(answer, inner)
