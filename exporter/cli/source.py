"""Where commands read records from: the state, or the API of a running agent."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import click

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail
from exporter.cli.options import AgentUrl, Duration, config_file_option, storage_path_option
from exporter.cli.state import state_of
from exporter.core.events import EVENT_TYPES
from exporter.core.text import format_duration, one_line, os_error_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from exporter.http_client import Response
    from exporter.store.location import StoreLocation
    from exporter.web.api import ListAnswer
    from exporter.web.view import ViewSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PAGE: Final = 100
_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_ANSWER: Final = 16 * 1024 * 1024
_LONGEST_PASSWORD: Final = 64 * 1024
_MAX_TEXT: Final = 300
_MOST_NAMES: Final = 1000
_UNAUTHORIZED: Final = 401
_OK: Final = 200


class _ReadError(Exception):
    """A list cannot be read; the text says why."""


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
    options = (
        config_file_option,
        storage_path_option,
        click.option(
            "--url",
            type=AgentUrl(),
            help="Read from the running agent at this URL instead of the state file.",
        ),
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="With --url: CA certificates of the agent; default: the system's.",
        ),
        click.option("--username", metavar="NAME", help="With --url: user of the agent's pages."),
        click.option(
            "--password-file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="With --username: file that contains the password.",
        ),
    )
    for add_option in reversed(options):
        command = add_option(command)
    return command


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
    except _ReadError as error:
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
    for name in ("ca_file", "username", "password_file"):
        if given[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --url")
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


def _served(given: Mapping[str, Any]) -> AbstractAsyncContextManager[_Read]:
    """Return the lists of a running agent."""
    for name in ("storage_path", "config_file"):
        if given[name] is not None:
            raise click.UsageError(f"--url and --{name.replace('_', '.')} exclude each other")
    if (given["username"] is None) != (given["password_file"] is None):
        raise click.UsageError("--username and --password-file need each other")
    return _open_agent(given["url"].rstrip("/"), given["ca_file"], _credentials(given))


@asynccontextmanager
async def _open_agent(
    url: str, ca_file: Path | None, headers: Mapping[str, str]
) -> AsyncIterator[_Read]:
    import msgspec

    from exporter.http_client import Bounds, HttpClient, Request
    from exporter.transport_errors import HttpClientError
    from exporter.web.api import LIST_TYPES, PREFIX

    try:
        client = HttpClient(ca_file=ca_file, proxy=lambda: None)
    except OSError as error:
        why = "it contains no certificate" if isinstance(error, ssl.SSLError) else ""
        fail(CONFIGURATION_ERROR, f"cannot use {ca_file}: {why or os_error_text(error)}")

    async def read(kind: str, parameters: Mapping[str, Sequence[str]]) -> "ListAnswer[Any]":
        request = Request(
            "GET",
            f"{url}{PREFIX}/{kind}?{urlencode(parameters, doseq=True, errors='replace')}",
            headers,
        )
        try:
            answer = await client.send(request, Bounds(_TIMEOUT_SECONDS, _LONGEST_ANSWER))
        except HttpClientError as error:
            raise _ReadError(str(error)) from None
        if answer.status != _OK:
            raise _ReadError(_refusal(answer))
        if answer.error is not None:
            raise _ReadError(str(answer.error))
        if answer.truncated:
            raise _ReadError(f"the answer is longer than {_LONGEST_ANSWER // 2**20} MiB")
        try:
            decoded: ListAnswer[Any] = msgspec.json.decode(answer.body, type=LIST_TYPES[kind])
        except (msgspec.MsgspecError, UnicodeError) as error:
            text = f"the answer is not valid for this version of cartesia-exporter: {error}"
            raise _ReadError(one_line(text, _MAX_TEXT)) from None
        return decoded

    async with client:
        yield read


def _credentials(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that authenticate a request."""
    from exporter.config.secrets import file_error_text, read_bounded

    if given["username"] is None:
        return {}
    path = given["password_file"]
    try:
        password = read_bounded(path, _LONGEST_PASSWORD).strip()
    except OSError as error:
        fail(CONFIGURATION_ERROR, f"cannot read {path}: {file_error_text(error)}")
    user = given["username"].encode(errors="replace") + b":" + password
    return {"Authorization": f"Basic {b64encode(user).decode()}"}


def _refusal(answer: "Response") -> str:
    """Return why an agent did not answer a request."""
    import msgspec

    if answer.status == _UNAUTHORIZED:
        return "the agent refused the user or the password, see --username and --password-file"
    try:
        message = str(msgspec.json.decode(answer.body)["message"])
    except (msgspec.MsgspecError, UnicodeError, KeyError, TypeError):
        message = "this is not the URL of a cartesia-exporter"
    return one_line(f"answered {answer.status}: {message}", _MAX_TEXT)


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
    for name in (*_FILTERS, "fine_tune", "state"):
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
