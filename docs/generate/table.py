"""Tables in Markdown."""

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    """Return one line; a bar in a cell is no end of it."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def head(*names: str) -> str:
    """Return the two lines above the rows."""
    return f"{row(names)}\n|{'---|' * len(names)}"


def code(text: str) -> str:
    """Return a text as it is typed; nothing for none."""
    return f"`{text}`" if text else ""
