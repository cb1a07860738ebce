"""`list`: the fine-tunes of every account, read from the API."""

import asyncio
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME_ERROR, reason, standard_output
from exporter.cli.options import check_account, load, output_option
from exporter.cli.output import Layout, Record, write, write_records
from exporter.cli.source import read_list, report_age, source_options
from exporter.core.model import status_label

if TYPE_CHECKING:
    from datetime import datetime

    from rich.progress import Progress

    from exporter.cartesia.listing import OnPage
    from exporter.config.models import Account, Poll
    from exporter.core.records import FineTuneRecord

_LAYOUT: Final = Layout(
    "fine-tunes",
    ("account", "id", "status", "model_id", "language", "dataset", "name"),
    uncut=frozenset({"id", "status", "model_id"}),
    hidden=("description",),
    styled_by="status",
    styles={"failed": "red", "completed": "green", "training": "cyan"},
)

_STORED_LIMIT: Final = 100

_STORED_LAYOUT: Final = Layout(
    "fine-tunes",
    ("status", "for", "name", "account", "model_id", "trained", "id"),
    uncut=frozenset({"status", "for", "trained"}),
    least={"name": 16, "account": 6, "model_id": 8, "id": 8},
    cut_first="id",
    wide=("dataset",),
    styled_by="status",
    styles=_LAYOUT.styles,
)


@click.command("list")
@source_options
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="NAME",
    help="Only of this account; repeatable.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS",
    help="Only fine-tunes in this status, such as failed; repeatable. unknown means every status"
    " that the API does not document.",
)
@click.option(
    "--stored",
    is_flag=True,
    help="Print what the agent read last, from its state or with --url; do not call the API.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="With --stored: print at most this number, the newest; default 100.",
)
@output_option
def list_command(
    accounts: tuple[str, ...],
    statuses: tuple[str, ...],
    stored: bool,  # noqa: FBT001 - as click passes it
    limit: int | None,
    output: Any,
    **given: Any,
) -> None:
    """Read the fine-tunes of every account from the API and print them.

    An account that cannot be read is named on standard error; the others are printed, and the
    exit status is 1.
    """
    if stored:
        _list_stored(accounts, statuses, limit or _STORED_LIMIT, output, given)
        return
    for flag in ("url", "storage_path", "limit"):
        if {**given, "limit": limit}[flag] is not None:
            raise click.UsageError(f"--{flag.replace('_', '.')} needs --stored")
    config = load(given["config_file"])
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


def _list_stored(
    accounts: Sequence[str], statuses: Sequence[str], limit: int, output: Any, given: Any
) -> None:
    if len(accounts) > 1:
        raise click.UsageError("--stored takes at most one --account")
    stream = standard_output("list the fine-tunes")
    query = {"account": list(accounts), "status": list(statuses)}
    found = read_list("fine-tunes", query, limit, given)
    now = report_age(found)
    if found.as_of is None:
        click.echo("not every account has been read completely yet", err=True)
    rows = found.records[::-1]
    write_records(rows, lambda each: _stored_row(each, now), _STORED_LAYOUT, output, stream)


def _stored_row(fine_tune: "FineTuneRecord", now: "datetime") -> Record:
    from exporter.web.times import age, duration

    trained = fine_tune.trained_seconds
    return {
        "status": "removed" if fine_tune.removed else fine_tune.status_label,
        "for": age((now - fine_tune.since).total_seconds()),
        "name": fine_tune.name or fine_tune.id,
        "account": fine_tune.account,
        "model_id": fine_tune.model_id,
        "trained": "" if trained is None else duration(trained),
        "dataset": fine_tune.dataset,
        "id": fine_tune.id,
    }


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
