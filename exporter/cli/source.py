"""Where commands read records from: the state file, or the API of a running agent."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail
from exporter.cli.options import AgentUrl, config_file_option, storage_path_option
from exporter.cli.state import state_of
from exporter.core.text import one_line

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from exporter.web.api import ListAnswer
    from exporter.web.view import View

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PAGE: Final = 100
_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_ANSWER: Final = 16 * 1024 * 1024
_LONGEST_PASSWORD: Final = 64 * 1024
_MAX_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Listed:
    """Records, newest first, whether there are more, and how old and complete they are."""

    records: list[Any]
    has_more: bool
    as_of: Any
    complete: bool


def source_options(command: _Command) -> _Command:
    """Add the options that say where a command reads from."""
    options = (
        config_file_option,
        storage_path_option,
        click.option("--url", type=AgentUrl(), help="Read from the agent that runs at this URL."),
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="With --url: certificates that sign the agent's.",
        ),
        click.option("--username", metavar="NAME", help="With --url: user of the agent's pages."),
        click.option(
            "--password-file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="With --username: the file with the password.",
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
    if given["url"] is None:
        for name in ("ca_file", "username", "password_file"):
            if given[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} is for --url")
        return _read_state(kind, query, limit, given)
    for name in ("storage_path", "config_file"):
        if given[name] is not None:
            raise click.UsageError(f"--url and --{name.replace('_', '.')} exclude each other")
    if (given["username"] is None) != (given["password_file"] is None):
        raise click.UsageError("--username and --password-file belong together")
    return _read_agent(kind, query, limit, given)


def _read_state(
    kind: str, query: Mapping[str, Sequence[str]], limit: int, given: Mapping[str, Any]
) -> Listed:
    from starlette.datastructures import QueryParams

    from exporter.store.database import Database
    from exporter.store.errors import StoreError, StoreRefusedError
    from exporter.store.pages import UnknownCursorError
    from exporter.web.api import LISTS
    from exporter.web.query import QueryError, parse

    path, view_of = _stored_view(given)
    allowed, answer = LISTS[kind]

    def read(connection: "Connection", parameters: Mapping[str, Sequence[str]]) -> Any:
        pairs = [(name, value) for name, values in parameters.items() for value in values]
        return answer(view_of(connection), parse(QueryParams(pairs), allowed), {})

    async def run() -> Listed:
        async with Database(path, exclusive=False) as database, database.reader() as reader:
            pages: list[ListAnswer[Any]] = []
            while not pages or (pages[-1].has_more and _number(pages) < limit):
                pages.append(await reader.read(read, _page(query, limit, pages)))
            return _joined(pages)

    try:
        return asyncio.run(run())
    except StoreError as error:
        status = CONFIGURATION_ERROR if isinstance(error, StoreRefusedError) else RUNTIME_ERROR
        fail(status, f"cannot read the state: {error}")
    except (QueryError, UnknownCursorError) as error:
        fail(CONFIGURATION_ERROR, str(error))


def _stored_view(given: Mapping[str, Any]) -> "tuple[Path, Callable[[Connection], View]]":
    """Return the path of the state file, and what it shows."""
    from exporter.agent.build import SYSTEM_CLOCK, view_settings
    from exporter.web.view import View, stored_settings

    state = state_of(given["config_file"], given["storage_path"])
    settings = None if state.config is None else view_settings(state.config)

    def view(connection: "Connection") -> View:
        shown = settings or stored_settings(connection)
        return View(connection, shown, (), SYSTEM_CLOCK.now(), SYSTEM_CLOCK.monotonic())

    return state.path, view


def _read_agent(
    kind: str, query: Mapping[str, Sequence[str]], limit: int, given: Mapping[str, Any]
) -> Listed:
    import httpx
    import msgspec

    from exporter.web.api import LIST_TYPES, PREFIX

    url = f"{given['url'].rstrip('/')}{PREFIX}/{kind}"
    pages: list[ListAnswer[Any]] = []
    try:
        with httpx.Client(
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
            verify=_tls(given["ca_file"]),
            auth=_credentials(given),
        ) as client:
            while not pages or (pages[-1].has_more and _number(pages) < limit):
                answer = client.get(url, params=_page(query, limit, pages))
                if not answer.is_success:
                    fail(RUNTIME_ERROR, f"{url}: {_refusal(answer)}")
                pages.append(msgspec.json.decode(answer.content, type=LIST_TYPES[kind]))
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        fail(RUNTIME_ERROR, f"{url}: {one_line(str(error), _MAX_TEXT)}")
    return _joined(pages)


def _page(
    query: Mapping[str, Sequence[str]], limit: int, pages: "Sequence[ListAnswer[Any]]"
) -> dict[str, list[str]]:
    """Return the parameters of the page that follows ``pages``."""
    parameters = {name: list(values) for name, values in query.items() if values}
    parameters["limit"] = [str(min(limit - _number(pages), _PAGE))]
    if pages:
        last = pages[-1].data[-1]
        parameters["starting_after"] = [last.id]
        if hasattr(last, "usual_seconds"):  # the id of a fine-tune is one within its account only
            parameters["after_account"] = [last.account]
    return parameters


def _number(pages: "Sequence[ListAnswer[Any]]") -> int:
    return sum(len(each.data) for each in pages)


def _joined(pages: "Sequence[ListAnswer[Any]]") -> Listed:
    records = [record for page in pages for record in page.data]
    return Listed(records, pages[-1].has_more, pages[0].as_of, pages[0].complete)


def _tls(ca_file: Path | None) -> Any:
    import ssl

    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        fail(CONFIGURATION_ERROR, f"cannot use {ca_file}: {error.strerror or error}")


def _credentials(given: Mapping[str, Any]) -> tuple[str, str] | None:
    from exporter.config.secrets import file_error_text, read_bounded

    if given["username"] is None:
        return None
    path = given["password_file"]
    try:
        password = read_bounded(path, _LONGEST_PASSWORD).decode(errors="replace").strip()
    except OSError as error:
        fail(CONFIGURATION_ERROR, f"cannot read {path}: {file_error_text(error)}")
    return given["username"], password


def _refusal(answer: Any) -> str:
    """Return why an agent did not answer a request."""
    status: int = answer.status_code
    if status == 401:  # noqa: PLR2004
        return "the agent wants a user and a password: --username and --password-file"
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = "is this the address of a cartesia-exporter?"
    return f"answered {status}: {one_line(str(message), _MAX_TEXT)}"


_FILTERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "account": {"metavar": "NAME", "help": "Of this account alone."},
    "status": {
        "metavar": "STATUS",
        "multiple": True,
        "help": "Of fine-tunes in this status alone; may be repeated.",
    },
    "receiver": {"metavar": "NAME", "help": "Of this receiver alone."},
    "since": {"metavar": "DURATION", "help": "Of this time until now alone, such as 24h."},
    "type": {"metavar": "TYPE", "multiple": True, "help": "Of this type alone: failed, agent, …"},
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
        if value:
            query[name] = [value] if isinstance(value, str) else list(value)
    return query


def report_age(found: Listed) -> Any:
    """Say on standard error what the records are missing; return the time now, in UTC."""
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.core.records import at
    from exporter.web.times import age, full_time

    now = at(SYSTEM_CLOCK.now())
    if found.as_of is not None and not found.complete:
        seconds = (now - found.as_of).total_seconds()
        click.echo(f"data as of {full_time(found.as_of)}, {age(seconds)} ago", err=True)
    if found.has_more:
        click.echo("older ones are not shown: see --limit", err=True)
    return now
