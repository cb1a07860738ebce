"""Panels that are no chart: numbers, states written out over time, and the table."""

import itertools
from collections.abc import Iterator

from tests.documents.picture.answers import POINTS, Answer, Line, Span
from tests.documents.picture.style import colour_at
from tests.documents.picture.svg import GRID, MUTED, PAPER, Box, element, rectangle, text
from tests.documents.picture.units import shown


def number(answer: Answer, box: Box) -> Iterator[str]:
    """Draw the newest value of each query, in the colour of its threshold."""
    panel = answer.panel
    width = box.width / max(len(answer.lines), 1)
    named = len(answer.lines) > 1 or panel["options"]["textMode"] == "value_and_name"
    if not answer.lines:
        words = panel["fieldConfig"]["defaults"]["noValue"]
        yield text((box.x + box.width / 2, box.y + 34), words, 16, text_anchor="middle")
    for place, line in enumerate(answer.lines):
        value, middle = line.points[-1][1], box.x + width * (place + 0.5)
        words = shown(value, panel["fieldConfig"]["defaults"]["unit"])
        look = {"fill": colour_at(panel, value), "text_anchor": "middle", "font_weight": "bold"}
        yield text((middle, box.y + (36 if named else 42)), words, 28, **look)
        if named:
            yield text((middle, box.y + 54), line.name, 11, fill=MUTED, text_anchor="middle")


def states(answer: Answer, box: Box, span: Span) -> Iterator[str]:
    """Draw a row for each series, and write each state where it begins."""
    (mapping,) = answer.panel["fieldConfig"]["defaults"]["mappings"]
    height = min(box.height / max(len(answer.lines), 1), 70)
    for row, line in enumerate(answer.lines):
        top = box.y + row * height
        yield text((box.x + 8, top + height / 2 + 4), line.name, 11)
        inner = Box(box.x + 70, top + height * 0.1, box.width - 80, height * 0.8)
        yield from _row(line, mapping["options"], inner, span)
    yield from _ends(box, span)


def _row(line: Line, words: dict[str, dict[str, str]], box: Box, span: Span) -> Iterator[str]:
    scale = box.width / span.seconds
    for value, found in itertools.groupby(line.points, key=lambda point: point[1]):
        times = [time for time, _ in found]
        begin, end = times[0], min(times[-1] + span.seconds / POINTS, span.end)
        state = words[f"{value:.0f}"]
        part = Box(box.x + (begin - span.start) * scale, box.y, (end - begin) * scale, box.height)
        yield rectangle(part, fill=state["color"], fill_opacity=0.8, stroke=PAPER)
        said = state["text"] if part.width > 7 * len(state["text"]) else state["text"][0]
        yield text((part.x + 4, part.y + part.height / 2 + 4), said, 11, fill=PAPER)


def _ends(box: Box, span: Span) -> Iterator[str]:
    begin = f"-{shown(span.seconds, 's')}"
    for x, words, anchor in ((box.x + 70, begin, "start"), (box.right - 10, "now", "end")):
        yield text((x, box.bottom - 4), words, 9, fill=MUTED, text_anchor=anchor)


def table(answer: Answer, box: Box) -> Iterator[str]:
    """Draw the labels of one field against those of another, as its transformation says."""
    (crossed,) = (each["options"] for each in answer.panel["transformations"])
    row_of, column_of = crossed["rowField"], crossed["columnField"]
    cells = {(e.labels[row_of], e.labels[column_of]): e.points[-1][1] for e in answer.lines}
    columns = sorted({column for _, column in cells})
    width = (box.width - 150) / max(len(columns), 1)
    for place, column in enumerate([f"{row_of}\\{column_of}", *columns]):
        x = box.x + 8 if place == 0 else box.x + 144 + width * place
        anchor = "start" if place == 0 else "end"
        yield text((x, box.y + 16), column, 10, fill=MUTED, text_anchor=anchor)
    for row, name in enumerate(sorted({row for row, _ in cells}), 1):
        y = box.y + 16 + row * 22
        yield element("line", x1=box.x + 8, x2=box.right - 8, y1=y - 15, y2=y - 15, stroke=GRID)
        yield text((box.x + 8, y), name, 10)
        for place, column in enumerate(columns, 1):
            said = shown(cells.get((name, column), 0), "short")
            yield text((box.x + 144 + width * place, y), said, 11, text_anchor="end")
