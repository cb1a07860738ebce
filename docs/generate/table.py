"""Markdown tables."""

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    """Return one row; a bar in a cell is escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def header(*names: str) -> str:
    """Return the two lines above the rows."""
    return f"{row(names)}\n|{'---|' * len(names)}"


def code(text: str) -> str:
    """Return a text as code; an empty one as it is."""
    return f"`{text}`" if text else ""
