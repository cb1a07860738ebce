"""Panels over time: lines, stacked bars and areas, with a legend that holds the numbers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.documents.picture.answers import Answer, Line, Span
from tests.documents.picture.style import Style, limits, style
from tests.documents.picture.svg import GRID, MUTED, Box, Point, element, path, rectangle, text
from tests.documents.picture.units import shown, ticks

_ROW = 14
_MOST_ROWS = 6
_MARGIN = 52

Drawn = tuple[Line, Style]


@dataclass(frozen=True)
class Plane:
    """Where times and values are in the picture; the highest value is at the top.

    ``step`` is how far the values of a series are apart, in seconds.
    """

    box: Box
    span: Span
    highest: float
    step: float

    def at(self, time: float, value: float) -> Point:
        share = (time - self.span.start) / self.span.seconds
        height = self.box.height * value / self.highest
        return self.box.x + share * self.box.width, self.box.bottom - height


def chart(answer: Answer, box: Box, span: Span) -> Iterator[str]:
    """Draw the panel's series into a box."""
    ranked = sorted(answer.lines, key=lambda line: (line.ref, line.name))
    drawn = [(line, style(answer.panel, line, n, len(ranked))) for n, line in enumerate(ranked)]
    rows = min(len(drawn), _MOST_ROWS)
    right = any(look.on_the_right for _, look in drawn)
    height = box.height - rows * _ROW - 34
    inner = Box(box.x + _MARGIN, box.y + 6, box.width - _MARGIN - (34 if right else 10), height)
    for side in (False, True):
        of_side = [each for each in drawn if each[1].on_the_right is side]
        if of_side or not side:
            yield from _side(answer, of_side, inner, span)
    yield from _times(inner, span)
    yield from _legend(drawn, Box(box.x + 8, inner.bottom + 34, box.width - 16, rows * _ROW))


def _side(answer: Answer, drawn: Sequence[Drawn], box: Box, span: Span) -> Iterator[str]:
    """Draw the series of one axis, and that axis."""
    custom = answer.panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    layers = _stacked(drawn) if stacked else [(each, {}) for each in drawn]
    tops = [v + under.get(t, 0) for (line, _), under in layers for t, v in line.points]
    highest = answer.panel["fieldConfig"]["defaults"].get("max") or max(tops, default=1)
    highest = max(highest, max((value for _, value in answer.examples), default=0))
    unit, right = (drawn[0][1].unit, drawn[0][1].on_the_right) if drawn else ("short", False)
    marks = ticks(highest, unit)
    plane = Plane(box, span, marks[-1], span.seconds / answer.parts)
    yield from _axis(plane, marks, unit, right=right)
    for (line, look), under in layers:
        if custom.get("drawStyle") == "bars":
            yield from _bars(plane, line, look, under)
        else:
            yield from _area(plane, line, look, under if stacked else None)
    yield from _limits(answer, plane)
    for time, value in answer.examples:
        x, y = plane.at(time, value)
        corners = ((x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y))
        yield path(corners, close=True, fill="#ffffff", stroke=MUTED, stroke_width=1.5)


def _stacked(drawn: Sequence[Drawn]) -> list[tuple[Drawn, dict[float, float]]]:
    """Return each series with what stands below it, by time."""
    height: dict[float, float] = defaultdict(float)
    layers = []
    for each in drawn:
        layers.append((each, dict(height)))
        for time, value in each[0].points:
            height[time] += value
    return layers


def _axis(plane: Plane, marks: Sequence[float], unit: str, *, right: bool) -> Iterator[str]:
    for mark in marks:
        _, y = plane.at(plane.span.start, mark)
        if right:
            yield text((plane.box.right + 5, y + 3), shown(mark, unit), 9, fill=MUTED)
            continue
        yield element("line", x1=plane.box.x, x2=plane.box.right, y1=y, y2=y, stroke=GRID)
        words = shown(mark, unit)
        yield text((plane.box.x - 5, y + 3), words, 9, fill=MUTED, text_anchor="end")


def _times(box: Box, span: Span) -> Iterator[str]:
    for part in range(5):
        words = f"-{shown(span.seconds * (4 - part) / 4, 's')}" if part < 4 else "now"
        x = box.x + box.width * part / 4
        yield text((x, box.bottom + 14), words, 9, fill=MUTED, text_anchor="middle")


def _area(plane: Plane, line: Line, look: Style, under: dict[float, float] | None) -> Iterator[str]:
    """Draw a line, broken where there is no value; filled down to what is below it, if stacked."""
    below = under or {}
    for run in _runs(line, plane.step):
        top = [plane.at(time, value + below.get(time, 0)) for time, value in run]
        if under is not None:
            bottom = [plane.at(time, below.get(time, 0)) for time, _ in reversed(run)]
            yield path([*top, *bottom], close=True, fill=look.colour, fill_opacity=0.6)
        yield path(top, **_pen(look))


def _pen(look: Style) -> dict[str, Any]:
    return {"stroke": look.colour, "stroke_width": look.width, "stroke_dasharray": look.dash}


def _runs(line: Line, step: float) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for point in line.points:
        if run and point[0] - run[-1][0] > 1.5 * step:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _bars(plane: Plane, line: Line, look: Style, under: dict[float, float]) -> Iterator[str]:
    width = plane.box.width * plane.step / plane.span.seconds
    for time, value in line.points:
        x, y = plane.at(time, value + under.get(time, 0))
        foot = plane.at(time, under.get(time, 0))[1]
        if foot > y:
            bar = Box(x - width * 0.9, y, width * 0.8, foot - y)
            yield rectangle(bar, fill=look.colour, fill_opacity=0.7)


def _limits(answer: Answer, plane: Plane) -> Iterator[str]:
    for limit, colour in limits(answer.panel):
        if limit <= plane.highest:
            ends = [plane.at(time, limit) for time in (plane.span.start, plane.span.end)]
            yield path(ends, stroke=colour, stroke_width=1.5, stroke_dasharray="8 4")


def _legend(drawn: Sequence[Drawn], box: Box) -> Iterator[str]:
    for row, (line, look) in enumerate(drawn[:_MOST_ROWS]):
        y = box.y + row * _ROW
        yield path([(box.x, y - 3), (box.x + 26, y - 3)], **_pen(look))
        left_out = len(drawn) - _MOST_ROWS
        more = f" (and {left_out} more)" if row == _MOST_ROWS - 1 and left_out > 0 else ""
        yield text((box.x + 32, y), f"{line.name}{more}", 10)
        last, most = line.points[-1][1], max(value for _, value in line.points)
        words = f"{shown(last, look.unit)}  /  {shown(most, look.unit)}"
        yield text((box.right, y), words, 10, text_anchor="end")
