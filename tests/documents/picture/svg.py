"""Shapes as SVG: each function returns one element."""

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

INK, MUTED, GRID, PAPER = "#24292f", "#6e7781", "#e4e8ec", "#ffffff"

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A place in the picture, in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


def element(name: str, **attributes: object) -> str:
    """Return an element without content; `stroke_width` stands for `stroke-width`."""
    given = "".join(
        f" {key.replace('_', '-')}={quoteattr(_short(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}/>"


def text(at: Point, words: str, size: float = 11, **attributes: object) -> str:
    """Return words that begin at a point, or as `text_anchor` says."""
    opened = element(
        "text", x=at[0], y=at[1], font_size=size, **{"fill": INK, **attributes}
    ).removesuffix("/>")
    return f"{opened}>{escape(words)}</text>"


def rectangle(box: Box, **attributes: object) -> str:
    return element(
        "rect", x=box.x, y=box.y, width=box.width, height=max(box.height, 0), **attributes
    )


def path(points: Iterable[Point], *, close: bool = False, **attributes: object) -> str:
    """Return straight lines from point to point."""
    drawn = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
    return element("path", d=f"M{drawn}{'Z' if close else ''}", **{"fill": "none", **attributes})


def document(width: float, height: float, elements: Iterable[str]) -> str:
    """Return the file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_short(width)} {_short(height)}" '
        'font-family="DejaVu Sans, Verdana, sans-serif">'
    )
    return "\n".join((head, *elements, "</svg>")) + "\n"


def _short(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
