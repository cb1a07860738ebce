"""`list`: the fine-tunes of every account, read from the API."""

import asyncio
import sys
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME_ERROR, reason, standard_output
from exporter.cli.options import check_account, config_file_option, load, output_option
from exporter.cli.output import Layout, Record, write
from exporter.core.model import status_label

if TYPE_CHECKING:
    from rich.progress import Progress

    from exporter.cartesia.listing import OnPage
    from exporter.config.models import Account, Poll

_LAYOUT: Final = Layout(
    "fine-tunes",
    ("account", "id", "status", "model_id", "language", "dataset", "name"),
    uncut=frozenset({"id", "status", "model_id"}),
    hidden=("description",),
    styled_by="status",
    styles={"failed": "red", "completed": "green", "training": "cyan"},
)


@click.command("list")
@config_file_option
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="NAME",
    help="Read this account only; repeatable.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS",
    help="Print fine-tunes in this status only, such as failed; repeatable. The status unknown"
    " includes every status that the API does not document.",
)
@output_option
def list_command(
    config_file: Path | None, accounts: tuple[str, ...], statuses: tuple[str, ...], output: Any
) -> None:
    """Read every page of every account and print the fine-tunes.

    An account that cannot be read is named on standard error; the others are printed, and the
    exit status is 1.
    """
    config = load(config_file)
    for name in accounts:
        check_account(config, name)
    selected = [each for each in config.accounts if not accounts or each.name in accounts]
    stream = standard_output("list the fine-tunes")
    records, errors = asyncio.run(_read(selected, config.poll))
    wanted = frozenset(status.strip().lower() for status in statuses)
    write(
        [each for each in records if not wanted or _is_in(each["status"], wanted)],
        _LAYOUT,
        output,
        stream,
    )
    for error in errors:
        click.echo(f"cartesia-exporter: cannot list the fine-tunes of account {error}", err=True)
    if errors:
        sys.exit(RUNTIME_ERROR)


def _is_in(status: str, wanted: Collection[str]) -> bool:
    return status.strip().lower() in wanted or status_label(status) in wanted


async def _read(accounts: Iterable["Account"], poll: "Poll") -> tuple[list[Record], list[str]]:
    """Return the fine-tunes of the accounts, and the name and the error of each unreadable one."""
    import msgspec
    from prometheus_client import CollectorRegistry

    from exporter.agent.build import open_client
    from exporter.cartesia.client import ClientMetrics
    from exporter.cartesia.errors import CartesiaError

    metrics = ClientMetrics(CollectorRegistry())
    records: list[Record] = []
    errors: list[str] = []
    with _progress() as progress:
        for account in accounts:
            try:
                async with AsyncExitStack() as resources:
                    client = await open_client(account, poll, metrics, resources)
                    on_page = _page_counter(progress, account.name)
                    listing = await client.list_fine_tunes(poll.timeout, on_page=on_page)
            except (CartesiaError, OSError) as error:
                errors.append(f"{account.name}: {reason(error)}")
                continue
            records += [
                {"account": account.name} | msgspec.structs.asdict(fine_tune)
                for fine_tune in listing.fine_tunes.values()
            ]
    return records, errors


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
