"""Access of the commands to the state of an agent, which may be running."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

import click

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.store.database import Database

_Result = TypeVar("_Result")

LIST_HINT: Final = "`cartesia-exporter deliveries list --state all` shows what there is"


class _UnknownReceiverError(Exception):
    """A receiver is neither in the configuration nor in the state; the text names the others."""


def run_in_state(config: "Config", task: str, function: Callable[["Database"], _Result]) -> _Result:
    """Return the result of ``function``, or end the process with why ``task`` failed."""
    from exporter.store.database import Database
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.queries import UnknownIdError

    async def run() -> _Result:
        async with Database(config.storage.path, exclusive=False) as database:
            return await database.run(function, database)

    try:
        return asyncio.run(run())
    except StoreError as error:
        status = CONFIGURATION_ERROR if isinstance(error, StoreRefusedError) else RUNTIME_ERROR
        fail(status, f"cannot {task}: {error}")
    except _UnknownReceiverError as error:
        fail(CONFIGURATION_ERROR, str(error))
    except UnknownIdError as error:
        fail(RUNTIME_ERROR, f"{error}; {LIST_HINT}")


def configured_receivers(config: "Config") -> frozenset[str]:
    """Return the names of the receivers in the configuration."""
    return frozenset(receiver.name for receiver in config.receivers)


def check_receiver(config: "Config", database: "Database", name: str | None) -> None:
    """Refuse a name that is neither in the configuration nor in the state; None is no name.

    Call it in the function of ``run_in_state``, which reports the error.
    """
    from exporter.store.queries import stored_receivers

    names = configured_receivers(config) | {*stored_receivers(database)}
    if name is not None and name not in names:
        raise _UnknownReceiverError(f"there is no receiver {name}; the receivers: {_listed(names)}")


def check_configured(config: "Config", name: str) -> None:
    """End the process if a receiver is not configured: its deliveries would never be sent."""
    names = configured_receivers(config)
    if name not in names:
        fail(
            CONFIGURATION_ERROR,
            f"there is no receiver {name} in the configuration; its receivers: {_listed(names)}",
        )


def report_omitted(printed: int, total: int) -> None:
    """Print to standard error how many rows ``--limit`` left out, if any."""
    if printed < total:
        click.echo(f"{total - printed} older ones are not shown: see --limit", err=True)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
