"""`list`: the fine-tunes of every account, read from the API."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME_ERROR, fail, reason, standard_output
from exporter.cli.options import config_file_option, load, output_option
from exporter.cli.output import Layout, Record, write

if TYPE_CHECKING:
    from rich.progress import Progress

    from exporter.cartesia.listing import OnPage
    from exporter.config import Config

_LAYOUT: Final = Layout(
    "fine-tunes",
    ("account", "id", "status", "model_id", "language", "dataset", "name"),
    uncut=frozenset({"id", "status", "model_id"}),
    hidden=("description",),
    styled_by="status",
    styles={"failed": "red", "completed": "green", "training": "cyan"},
)


class _ListingError(Exception):
    """An account cannot be read completely; the text names it and the reason."""


@click.command("list")
@config_file_option
@output_option
def list_command(config_file: Path | None, output: Any) -> None:
    """Read every page of every account and print the fine-tunes."""
    config = load(config_file)
    stream = standard_output("list the fine-tunes")
    try:
        records = asyncio.run(_read_all(config))
    except (_ListingError, OSError) as error:
        fail(RUNTIME_ERROR, f"cannot list the fine-tunes: {reason(error)}")
    write(records, _LAYOUT, output, stream)


async def _read_all(config: "Config") -> list[Record]:
    """Return the fine-tunes of all accounts, in the order of the configuration and the API."""
    import msgspec
    from prometheus_client import CollectorRegistry

    from exporter.agent.build import open_client
    from exporter.cartesia.client import ClientMetrics
    from exporter.cartesia.errors import CartesiaError

    metrics = ClientMetrics(CollectorRegistry())
    records: list[Record] = []
    with _progress() as progress:
        for account in config.accounts:
            async with AsyncExitStack() as resources:
                client = await open_client(account, config.poll, metrics, resources)
                try:
                    on_page = _page_counter(progress, account.name)
                    listing = await client.list_fine_tunes(config.poll.timeout, on_page=on_page)
                except CartesiaError as error:
                    raise _ListingError(f"account {account.name}: {error}") from None
            records += [
                {"account": account.name} | msgspec.structs.asdict(fine_tune)
                for fine_tune in listing.fine_tunes.values()
            ]
    return records


def _progress() -> "Progress":
    """Return a progress display on standard error; it shows nothing unless that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[pages]} pages, {task.completed:.0f} fine-tunes"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _page_counter(progress: "Progress", account: str) -> "OnPage":
    """Add an account to the display; return a function that updates its counts."""
    task = progress.add_task(f"Reading {account}", total=None, pages=0)
    return lambda pages, fine_tunes: progress.update(task, completed=fine_tunes, pages=pages)
