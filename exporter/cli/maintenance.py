"""`state`: backup, check and copy of the state."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail, standard_output
from exporter.cli.options import config_file_option, storage_path_option
from exporter.cli.state import state_of
from exporter.core.text import one_line, os_error_text, timestamp

if TYPE_CHECKING:
    from exporter.store.location import StoreLocation

_KILLED: Final = 128
"""A shell adds this to the number of the signal that ended a process."""


@click.group()
def state() -> None:
    """Back up, check and copy the state. No secret but that of storage.url is read."""


@state.command()
@config_file_option
@storage_path_option
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
def backup(config_file: Path | None, storage_path: Path | None, path: Path) -> None:
    """Write a complete copy of the state to the new file PATH.

    The copy is readable by its owner only. An existing file is never overwritten, and nothing is
    left if the copy cannot be completed. To restore it: stop the agent, move the state and the
    files beside it away, and put the copy in its place.
    """
    found = state_of(config_file, storage_path)
    from exporter.store.database import open_engine
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.files import UNFINISHED
    from exporter.store.integrity import back_up

    try:
        engine = open_engine(found.location)
        with _ended_by_sigterm():
            back_up(engine, path.absolute())
    except StoreError as error:
        status = CONFIGURATION_ERROR if isinstance(error, StoreRefusedError) else RUNTIME_ERROR
        fail(status, f"cannot back up the state: {error}")
    except FileExistsError as error:
        advice = "give another name; an existing file is not overwritten"
        if str(error.filename).endswith(UNFINISHED) and not str(path).endswith(UNFINISHED):
            advice = "another backup writes it, or one was killed: delete it in that case"
        fail(CONFIGURATION_ERROR, f"{error.filename} exists: {advice}")
    except OSError as error:
        fail(RUNTIME_ERROR, f"cannot write the backup {path}: {os_error_text(error)}")
    click.echo(f"{engine.location} copied to {path}: {path.stat().st_size:,} bytes")


@state.command()
@config_file_option
@storage_path_option
def check(config_file: Path | None, storage_path: Path | None) -> None:
    """Check the state, or with --storage.path a backup of it: exit status 0 if it is sound, else 1.

    Reads all of it: pages, indexes, references, tables and rows.
    """
    found = state_of(config_file, storage_path)
    stream = standard_output("check the state")
    from exporter.store.database import open_engine
    from exporter.store.errors import StoreError
    from exporter.store.integrity import DamagedStateError
    from exporter.store.integrity import check as check_state

    try:
        engine = open_engine(found.location)
        contents = check_state(engine)
    except StoreError as error:
        fail(RUNTIME_ERROR, str(error))
    except DamagedStateError as error:
        for problem in error.problems:
            click.echo(one_line(problem), stream)
        fail(
            RUNTIME_ERROR,
            f"the state {engine.location} is damaged: stop the agent, and restore a backup or move "
            "the state and the files beside it away to begin with a new baseline",
        )
    last_poll = "never" if contents.read_at is None else timestamp(contents.read_at)
    click.echo(
        f"{engine.location} is sound: schema version {contents.revision}; accounts: "
        f"{contents.accounts}, fine-tunes: {contents.fine_tunes}, events: {contents.events}, "
        f"pending deliveries: {contents.pending}; last complete poll: {last_poll}",
        stream,
    )


@state.command()
@config_file_option
@storage_path_option
@click.option(
    "--to",
    "target",
    required=True,
    metavar="PATH|URL",
    help="Path of a new state file, or URL of an empty PostgreSQL database.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File with the password for the URL.",
)
def copy(
    config_file: Path | None, storage_path: Path | None, target: str, password_file: Path | None
) -> None:
    """Copy the state to another database, for example from a file to PostgreSQL.

    Stop the agent first. The copy is complete or not made at all, and its rows are counted. Then
    change storage.path or storage.url, and start the agent: it continues where it was stopped.
    Never run agents on both states: each would send every alert.
    """
    found = state_of(config_file, storage_path)
    place = _target(target, password_file)
    from exporter.store.copying import copy_state
    from exporter.store.database import open_engine
    from exporter.store.errors import StoreError, StoreRefusedError

    try:
        source, destination = open_engine(found.location), open_engine(place)
        with _ended_by_sigterm():
            counts = copy_state(source, destination)
    except StoreError as error:
        status = CONFIGURATION_ERROR if isinstance(error, StoreRefusedError) else RUNTIME_ERROR
        fail(status, f"cannot copy the state: {error}")
    except FileExistsError as error:
        fail(CONFIGURATION_ERROR, f"{error.filename} exists: give another name")
    except OSError as error:
        fail(RUNTIME_ERROR, f"cannot write the copy {target}: {os_error_text(error)}")
    rows = ", ".join(f"{table}: {number:,}" for table, number in counts.items() if number)
    click.echo(f"{source.location} copied to {destination.location}; rows: {rows or 'none'}")


def _target(target: str, password_file: Path | None) -> "StoreLocation":
    """Return where a state is to be copied to; end the process if it cannot be used."""
    from exporter.config.secrets import FileSecret, TextSecret
    from exporter.config.types import check_database_url, check_printable
    from exporter.store.location import PostgresLocation

    if "://" not in target:
        if password_file is not None:
            raise click.UsageError("--password-file is for a URL")
        return Path(target)
    try:
        check_database_url(target)
    except ValueError as error:
        raise click.UsageError(f"--to {error}") from None
    user, at, _ = target.partition("://")[2].partition("/")[0].rpartition("@")
    if (at and ":" in user) or "password=" in target:
        raise click.UsageError(
            "--to must not contain a password, which every user of the machine could see: use "
            "--password-file"
        )
    password = None if password_file is None else FileSecret(password_file, check_printable)
    return PostgresLocation(TextSecret(target, "--to", check_database_url), password)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that an unfinished copy is removed."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(_KILLED + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
