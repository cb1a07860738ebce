"""Where commands read records from: the state, or the API of a running agent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import click

from exporter.cli.agent_api import (
    AgentApiError,
    agent_options,
    open_agent,
    refuse_agent_options,
)
from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail
from exporter.cli.options import Duration, config_file_option, storage_path_option
from exporter.cli.state import state_of
from exporter.core.events import EVENT_TYPES
from exporter.core.text import format_duration, one_line

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from exporter.store.location import StoreLocation
    from exporter.web.answers import ListAnswer
    from exporter.web.view import ViewSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PAGE: Final = 100
_MOST_NAMES: Final = 1000


class _UnknownNameError(Exception):
    """A filter names an account or a receiver that is not known; the text names the others."""


class _Read(Protocol):
    """Returns one page of a list of the API for its parameters."""

    async def __call__(
        self, kind: str, parameters: Mapping[str, Sequence[str]]
    ) -> "ListAnswer[Any]": ...


@dataclass(frozen=True, slots=True)
class Listed:
    """Records, newest first, whether there are more, and how old and complete they are."""

    records: list[Any]
    has_more: bool
    as_of: datetime | None
    complete: bool


def source_options(command: _Command) -> _Command:
    """Add the options that say where a command reads from."""
    return config_file_option(storage_path_option(agent_options(command)))


def read_list(
    kind: str, query: Mapping[str, Sequence[str]], limit: int, given: Mapping[str, Any]
) -> Listed:
    """Return at most ``limit`` records of a list of the API; end the process if it fails.

    ``kind`` is the last part of the list's path, ``query`` has its parameters, and ``given`` the
    values of ``source_options``.
    """
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.pages import UnknownCursorError
    from exporter.web.query import QueryError

    source = _stored(given) if given["url"] is None else _served(given)

    async def run() -> Listed:
        async with source as read:
            found = await _collect(read, kind, query, limit)
            if not found.records:
                await _check_names(read, query)
            return found

    try:
        return asyncio.run(run())
    except StoreError as error:
        status = CONFIGURATION_ERROR if isinstance(error, StoreRefusedError) else RUNTIME_ERROR
        fail(status, f"cannot read the state: {error}")
    except (QueryError, UnknownCursorError, _UnknownNameError) as error:
        fail(CONFIGURATION_ERROR, str(error))
    except AgentApiError as error:
        fail(RUNTIME_ERROR, f"{given['url']}: {error}")


async def _collect(
    read: _Read, kind: str, query: Mapping[str, Sequence[str]], limit: int
) -> Listed:
    """Return at most ``limit`` records of as many pages as it takes."""
    records: list[Any] = []
    while True:
        parameters = {name: list(values) for name, values in query.items() if values}
        parameters["limit"] = [str(min(limit - len(records), _PAGE))]
        if records:
            parameters["starting_after"] = [records[-1].id]
            if kind == "fine-tunes":  # the id of a fine-tune is one within its account only
                parameters["after_account"] = [records[-1].account]
        answer = await read(kind, parameters)
        records += answer.data[: limit - len(records)]
        if not (answer.data and answer.has_more) or len(records) >= limit:
            return Listed(records, answer.has_more, answer.as_of, answer.complete)


async def _check_names(read: _Read, query: Mapping[str, Sequence[str]]) -> None:
    """Refuse the name of an account or a receiver that nobody knows.

    It is called when nothing was found: an event may be of an account that was removed.
    """
    for name in ("account", "receiver"):
        for given in query.get(name, ()):
            found = await _collect(read, f"{name}s", {}, _MOST_NAMES)
            names = [each.id for each in found.records]
            if given not in names:
                listed = ", ".join(sorted(names)) or "none"
                raise _UnknownNameError(one_line(f"there is no {name} {given}; {name}s: {listed}"))


def _stored(given: Mapping[str, Any]) -> AbstractAsyncContextManager[_Read]:
    """Return the lists of a state."""
    refuse_agent_options(given)
    state = state_of(given["config_file"], given["storage_path"])
    from exporter.agent.build import view_settings

    return _open_state(
        state.location, None if state.config is None else view_settings(state.config)
    )


@asynccontextmanager
async def _open_state(
    location: "StoreLocation", settings: "ViewSettings | None"
) -> AsyncIterator[_Read]:
    from msgspec.structs import replace
    from starlette.datastructures import QueryParams

    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store.database import Database
    from exporter.web.api import LISTS
    from exporter.web.query import parse
    from exporter.web.view import View, stored_settings

    async with Database(location, exclusive=False) as database, database.reader() as reader:

        async def read(kind: str, parameters: Mapping[str, Sequence[str]]) -> "ListAnswer[Any]":
            allowed, answer = LISTS[kind]
            pairs = [(name, value) for name, values in parameters.items() for value in values]
            query = parse(QueryParams(pairs), allowed)

            def page(connection: "Connection") -> "ListAnswer[Any]":
                shown = settings or stored_settings(connection)
                now = SYSTEM_CLOCK.now()
                view = View(connection, shown, (), now, SYSTEM_CLOCK.monotonic())
                found: ListAnswer[Any] = answer(view, query, {})
                # The state has no results of polls: the age of the last complete one decides.
                age = None if found.as_of is None else now - found.as_of.timestamp()
                return replace(found, complete=age is not None and age <= shown.stale_after)

            return await reader.read(page)

        yield read


@asynccontextmanager
async def _served(given: Mapping[str, Any]) -> AsyncIterator[_Read]:
    """Yield the lists of a running agent."""
    from exporter.web.api import LIST_TYPES

    async with open_agent(given) as api:

        async def read(kind: str, parameters: Mapping[str, Sequence[str]]) -> "ListAnswer[Any]":
            query = urlencode(parameters, doseq=True, errors="replace")
            answer: ListAnswer[Any] = await api.get(f"/{kind}?{query}", LIST_TYPES[kind])
            return answer

        yield read


_EVENT_WORDS: Final = (
    *(each.removeprefix("fine_tune.") for each in EVENT_TYPES if each.startswith("fine_tune.")),
    "agent",
)

_FILTERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "account": {"metavar": "NAME", "help": "Only of this account."},
    "status": {
        "metavar": "STATUS",
        "multiple": True,
        "help": "Only of fine-tunes that entered this status; repeatable.",
    },
    "receiver": {"metavar": "NAME", "help": "Only of this receiver."},
    "since": {
        "metavar": "DURATION",
        "type": Duration(),
        "help": "Only of the last DURATION, such as 24h.",
    },
    "type": {
        "metavar": "TYPE",
        "multiple": True,
        "type": click.Choice([*_EVENT_WORDS, *EVENT_TYPES]),
        "help": f"Only of this type: {', '.join(_EVENT_WORDS)} or a full type; repeatable.",
    },
}


def filter_options(*names: str) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options of these filters."""

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            command = click.option(f"--{name}", name, **_FILTERS[name])(command)
        return command

    return decorate


def query_of(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the parameters of a list for the values of options."""
    query = {}
    for name in (*_FILTERS, "fine_tune", "state", "active"):
        value = given.get(name)
        if isinstance(value, float):
            value = format_duration(value)
        if value:
            query[name] = [value] if isinstance(value, str) else list(value)
    return query


def report_age(found: Listed) -> datetime:
    """Say on standard error what the records are missing; return the time now, in UTC."""
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.core.records import at
    from exporter.web.times import age, full_time

    now = at(SYSTEM_CLOCK.now())
    if found.as_of is not None and not found.complete:
        seconds = (now - found.as_of).total_seconds()
        click.echo(f"data as of {full_time(found.as_of)}, {age(seconds)} ago", err=True)
    if found.has_more:
        click.echo("older records are not shown, see --limit", err=True)
    return now
