"""`list`: read every page of every account and print the fine-tunes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final, TextIO

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from exporter.agent.build import open_client
from exporter.cartesia.client import ClientMetrics
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import OnPage
from exporter.cli.output import Layout, Output
from exporter.cli.output import write as write_records
from exporter.config import Config
from exporter.core.model import FineTune

Row = tuple[str, FineTune]
"""An account's name and one of its fine-tunes."""

_LAYOUT: Final = Layout(
    "fine-tunes",
    ("account", "id", "status", "model_id", "language", "dataset", "name"),
    whole=frozenset({"id", "status", "model_id"}),
    more=("description",),
    styled="status",
    styles={"failed": "red", "completed": "green", "training": "cyan"},
)


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
            async with AsyncExitStack() as resources:
                client = await open_client(account, config.poll, metrics, resources)
                try:
                    on_page = progress(account.name)
                    listing = await client.list_fine_tunes(config.poll.timeout, on_page=on_page)
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
    """Write the fine-tunes to ``stream``."""
    records = [
        {"account": account}
        | {name: getattr(fine_tune, name) for name in FineTune.__struct_fields__}
        for account, fine_tune in rows
    ]
    write_records(records, _LAYOUT, output, stream)
