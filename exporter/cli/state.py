"""The state of an agent that may be running, as the commands look into it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import click

from exporter.cli.exits import CONFIGURATION, RUNTIME, fail

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.store.database import Database

_Result = TypeVar("_Result")

HOW_TO_LIST: Final = "`cartesia-exporter deliveries list --state all` shows what there is"


class UnknownReceiverError(Exception):
    """A receiver is neither in the configuration nor in the state; the text names the others."""


def in_state(config: "Config", task: str, work: Callable[["Database"], _Result]) -> _Result:
    """Return what ``work`` makes of the state; or end, saying that ``task`` could not be done."""
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.queries import UnknownIdError

    try:
        return asyncio.run(_in_state(config, work))
    except StoreError as error:
        status = CONFIGURATION if isinstance(error, StoreRefusedError) else RUNTIME
        fail(status, f"cannot {task}: {error}")
    except UnknownReceiverError as error:
        fail(CONFIGURATION, str(error))
    except UnknownIdError as error:
        fail(RUNTIME, f"{error}; {HOW_TO_LIST}")


async def _in_state(config: "Config", work: Callable[["Database"], _Result]) -> _Result:
    from exporter.store.database import Database

    async with Database(config.storage.path, exclusive=False) as database:
        return await database.run(work, database)


def receiver_names(config: "Config") -> frozenset[str]:
    """Return the names of the receivers in the configuration."""
    return frozenset(receiver.name for receiver in config.receivers)


def check_receiver(config: "Config", database: "Database", name: str | None) -> None:
    """Raise UnknownReceiverError for one that nobody knows: it is misspelt."""
    from exporter.store.queries import stored_receivers

    known = sorted(receiver_names(config) | {*stored_receivers(database)})
    if name is not None and name not in known:
        raise UnknownReceiverError(f"there is no receiver {name}; the receivers: {_listed(known)}")


def check_configured(config: "Config", name: str) -> None:
    """End when a receiver is not in the configuration: nobody would send what it is owed."""
    names = receiver_names(config)
    if name not in names:
        fail(
            CONFIGURATION,
            f"there is no receiver {name} in the configuration; its receivers: "
            f"{_listed(sorted(names))}",
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def say_cut(shown: int, total: int) -> None:
    """Say on standard error that there is more than what was shown, if there is."""
    if shown < total:
        click.echo(f"{total - shown} older ones are not shown: see --limit", err=True)
