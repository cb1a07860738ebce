"""Access of the commands to the state of an agent, which may be running."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail
from exporter.cli.options import load_without_secrets

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.store.database import Database
    from exporter.store.location import StoreLocation

_Result = TypeVar("_Result")

LIST_HINT: Final = "see `cartesia-exporter deliveries list --state all`"


class _UnknownReceiverError(Exception):
    """A receiver is neither in the configuration nor in the state; the text names the others."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """Where a state is, and the configuration that says so; None if only its path was given."""

    location: "StoreLocation"
    config: "Config | None" = None

    def receivers(self, database: "Database") -> frozenset[str]:
        """Return the names of the receivers in the configuration; without one, of all stored."""
        from exporter.store.queries import stored_receivers

        if self.config is None:
            return frozenset(stored_receivers(database))
        return frozenset(receiver.name for receiver in self.config.receivers)

    def check_receiver(self, database: "Database", name: str | None) -> None:
        """Refuse a name that is neither in the configuration nor in the state; None is no name.

        Call it in the function of ``run_in_state``, which reports the error.
        """
        from exporter.store.queries import stored_receivers

        names = self.receivers(database) | {*stored_receivers(database)}
        if name is not None and name not in names:
            _refuse_receiver(name, names)

    def check_configured(self, database: "Database", name: str) -> None:
        """Refuse a receiver that is not configured: its deliveries would never be sent.

        Call it in the function of ``run_in_state``, which reports the error.
        """
        names = self.receivers(database)
        if name not in names:
            _refuse_receiver(name, names, " in the configuration" if self.config else "")


def state_of(config_file: Path | None, storage_path: Path | None) -> StoredState:
    """Return the state of a path, or of a configuration, of which no secret is read here.

    Ends the process with every mistake in the configuration.
    """
    if storage_path is None:
        config = load_without_secrets(config_file)
        return StoredState(config.storage.location, config)
    if config_file is not None:
        raise click.UsageError("--storage.path and --config.file exclude each other")
    return StoredState(storage_path)


def run_in_state(
    state: StoredState, task: str, function: Callable[["Database"], _Result]
) -> _Result:
    """Return the result of ``function``, or end the process with why ``task`` failed."""
    from exporter.store.database import Database
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.queries import UnknownIdError

    async def run() -> _Result:
        async with Database(state.location, exclusive=False) as database:
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


def _refuse_receiver(name: str, names: Iterable[str], where: str = "") -> NoReturn:
    listed = ", ".join(sorted(names)) or "none"
    raise _UnknownReceiverError(f"there is no receiver {name}{where}; receivers: {listed}")
