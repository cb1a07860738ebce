"""Output of records as a table, JSON or CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import Any, Final, Literal, TextIO

from exporter.core.text import one_line

Output = Literal["table", "json", "csv"]
Record = Mapping[str, Any]
"""A row: JSON values by column name."""

_MAX_CELL: Final = 80
_MIN_CELL: Final = 4
_GAP: Final = 2
_WIDTH_WITHOUT_TERMINAL: Final = 1000
"""One line per record, so that grep finds all of a record."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of an output; ``noun`` is the plural of what a record is.

    ``columns`` are printed in this order; those in ``uncut`` are never shortened. ``hidden``
    columns are in JSON and CSV only. ``styles`` maps a value of the column ``styled_by`` to the
    style of the row.
    """

    noun: str
    columns: tuple[str, ...]
    uncut: frozenset[str]
    hidden: tuple[str, ...] = ()
    styled_by: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)


def write(records: Sequence[Record], layout: Layout, output: Output, stream: TextIO) -> None:
    """Write records to ``stream``.

    JSON and CSV hold the text of the API unchanged, as the output of psql, sqlite3 and gh does. A
    CSV cell that begins with ``=``, ``+``, ``-`` or ``@`` gets no apostrophe in front: it would
    falsify ids and names for programs, to protect spreadsheets that run formulas from a file
    without asking. Control characters are removed only in tables and for a terminal.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # the locale may not be UTF-8
    names = (*layout.columns, *layout.hidden)
    if output == "json":
        json.dump([{name: record[name] for name in names} for record in records], stream, indent=2)
        stream.write("\n")
    elif output == "csv":
        _write_csv(records, names, stream)
    else:
        _write_table(records, layout, stream)
    stream.flush()  # an EPIPE is handled here; at exit Python would print a traceback


def _write_csv(records: Sequence[Record], names: Sequence[str], stream: TextIO) -> None:
    writer = csv.writer(stream)
    writer.writerow(names)
    for record in records:
        cells = [cell_text(record[name]) for name in names]
        writer.writerow([one_line(cell) for cell in cells] if stream.isatty() else cells)


def _write_table(records: Sequence[Record], layout: Layout, stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = layout.columns
    rows = [
        {name: one_line(cell_text(record[name]), _MAX_CELL) for name in columns}
        for record in records
    ]
    longest = {name: max(len(name), *(len(row[name]) for row in rows), 0) for name in columns}
    # A shortened id is useless; a shortened name is not.
    minimum = {name: longest[name] if name in layout.uncut else _MIN_CELL for name in columns}
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in layout.uncut, min_width=minimum[name])
    for row in rows:
        # Text objects: rich would interpret markup in a string.
        cells = (Text(row[name], no_wrap=True, overflow="ellipsis") for name in columns)
        table.add_row(*cells, style=layout.styles.get(row.get(layout.styled_by, "")))
    console = Console(file=stream, highlight=False)
    width = console.width if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    console.width = max(width, sum(minimum.values()) + _GAP * len(columns))
    console.print(table)
    console.print(f"{len(rows)} {layout.noun}")


def cell_text(value: Any) -> str:
    """Return a value of a record as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def body_lines(body: bytes, *, terminal: bool) -> list[str]:
    """Return a body line by line: JSON indented, other text without control characters."""
    text = body.decode(errors="backslashreplace")
    try:
        lines = json.dumps(json.loads(text), indent=2, ensure_ascii=False).split("\n")
    except ValueError:
        lines = text.splitlines()
        return [one_line(line, len(line) + 1) for line in lines] if terminal else lines
    # No text can move a cursor or turn the reading order; other scripts stay readable.
    return ["".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) for line in lines]
