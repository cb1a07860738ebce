"""`list`: read every page of every account and print the fine-tunes."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Final, Literal, TextIO

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from exporter.cartesia.client import Client, ClientMetrics
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import OnPage
from exporter.config import Config
from exporter.core.model import FineTune
from exporter.core.text import one_line
from exporter.parts import SYSTEM_CLOCK, api_of, exchange_of

Output = Literal["table", "json", "csv"]
Row = tuple[str, FineTune]
"""An account's name and one of its fine-tunes."""

_COLUMNS: Final = ("account", "id", "status", "model_id", "language", "dataset", "name")
_WHOLE: Final = frozenset({"id", "status", "model_id"})
_HEADER: Final = {name: name for name in _COLUMNS}
_LONGEST_CELL: Final = 80
_SHORTEST_CELL: Final = 4
_GAP: Final = 2
_STYLES: Final = {"failed": "red", "completed": "green", "training": "cyan"}
_NOT_A_TERMINAL: Final = 1000  # a line for each, so that grep finds all of it


class ListingError(Exception):
    """An account cannot be read completely; the text says which and why."""


async def read_all(config: Config) -> list[Row]:
    """Return the fine-tunes of all accounts, in the order of the configuration and the API.

    Raises ListingError when one of the accounts can't be read completely.
    """
    metrics = ClientMetrics(CollectorRegistry())
    rows: list[Row] = []
    with _progress() as progress:
        for account in config.accounts:
            async with exchange_of(account) as exchange:
                api = api_of(account, config.poll.page_size)
                client = Client(exchange, api, metrics, SYSTEM_CLOCK)
                try:
                    on_page = progress(account.name)
                    listing = await client.list_fine_tunes(config.poll.timeout, on_page)
                except CartesiaError as error:
                    raise ListingError(f"account {account.name}: {error}") from None
            rows += [(account.name, fine_tune) for fine_tune in listing.fine_tunes.values()]
    return rows


@contextmanager
def _progress() -> Iterator[Callable[[str], OnPage]]:
    """Yield a function that begins an account's line; shown on standard error, on a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[pages]} pages, {task.completed:.0f} fine-tunes"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def begin(account: str) -> OnPage:
            task = progress.add_task(f"Reading {account}", total=None, pages=0)

            def on_page(pages: int, fine_tunes: int) -> None:
                progress.update(task, completed=fine_tunes, pages=pages)

            return on_page

        yield begin


def write(rows: Iterable[Row], output: Output, stream: TextIO) -> None:
    """Write the fine-tunes to ``stream``: a table for people, JSON or CSV for programs.

    CSV holds what the API sent, character by character, as what psql, sqlite3 or gh write does: a
    cell that begins with ``=``, ``+``, ``-`` or ``@`` gets no apostrophe in front, which would
    falsify ids and names for every program to protect those spreadsheets that run formulas from a
    file without asking. Only a terminal gets texts without control characters.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # where the locale is not UTF-8
    if output == "json":
        json.dump([_record(*row) for row in rows], stream, indent=2)
        stream.write("\n")
    elif output == "csv":
        writer = csv.DictWriter(stream, (*_COLUMNS, "description"))
        writer.writeheader()
        for row in rows:
            record = _record(*row)
            if stream.isatty():
                record = {name: one_line(text) for name, text in record.items()}
            writer.writerow(record)
    else:
        _write_table(rows, stream)
    stream.flush()  # here, where the reader's end of a pipe being closed is a quiet end


def _record(account: str, fine_tune: FineTune) -> dict[str, str]:
    return {"account": account} | {
        name: getattr(fine_tune, name) for name in (*_COLUMNS[1:], "description")
    }


def _write_table(rows: Iterable[Row], stream: TextIO) -> None:
    records = [_shown(_record(*row)) for row in rows]
    longest = {name: max(len(text[name]) for text in (*records, _HEADER)) for name in _COLUMNS}
    # An id that is cut short is of no use; a name still is, where the terminal is narrow.
    least = {name: longest[name] if name in _WHOLE else _SHORTEST_CELL for name in _COLUMNS}
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name in _WHOLE, min_width=least[name])
    for record in records:
        # As Text: what people wrote is no markup.
        cells = (Text(record[name], no_wrap=True, overflow="ellipsis") for name in _COLUMNS)
        table.add_row(*cells, style=_STYLES.get(record["status"]))
    console = Console(file=stream, highlight=False)
    wide = console.width if stream.isatty() else _NOT_A_TERMINAL
    console.width = max(wide, sum(least.values()) + _GAP * len(_COLUMNS))
    console.print(table)
    console.print(f"{len(records)} fine-tunes")


def _shown(record: dict[str, str]) -> dict[str, str]:
    """Return texts without control characters, for people and their terminals."""
    return {name: one_line(text, _LONGEST_CELL) for name, text in record.items()}
