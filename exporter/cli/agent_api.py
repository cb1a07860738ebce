"""Requests of the commands to the API of a running agent."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from exporter.cli.exits import CONFIGURATION_ERROR, fail
from exporter.cli.options import AgentUrl
from exporter.core.text import one_line, os_error_text

if TYPE_CHECKING:
    from exporter.http_client import HttpClient, Response

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Answer = TypeVar("_Answer")

_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_ANSWER: Final = 16 * 1024 * 1024
_LONGEST_PASSWORD: Final = 64 * 1024
_MAX_TEXT: Final = 300
_UNAUTHORIZED: Final = 401
_OK: Final = 200


class AgentApiError(Exception):
    """A request to an agent failed; the text says why."""


def agent_options(command: _Command) -> _Command:
    """Add the options that say which running agent a command uses, and as whom."""
    options = (
        click.option(
            "--url",
            type=AgentUrl(),
            help="Use the running agent at this URL instead of the state.",
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


def refuse_agent_options(given: Mapping[str, Any]) -> None:
    """Refuse the options that need --url, which is not given."""
    for name in ("ca_file", "username", "password_file"):
        if given[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --url")


@dataclass(frozen=True, slots=True)
class AgentApi:
    """The API of the agent at ``url``; ``headers`` authenticate the requests."""

    client: "HttpClient"
    url: str
    headers: Mapping[str, str]

    async def get(self, path: str, answer_type: type[_Answer]) -> _Answer:
        """Return the answer to a GET of a path below the API's. Raises AgentApiError."""
        return await self._send("GET", path, answer_type)

    async def post(self, path: str, body: object, answer_type: type[_Answer]) -> _Answer:
        """Return the answer to a POST of a body that is encoded as JSON. Raises AgentApiError."""
        return await self._send("POST", path, answer_type, body)

    async def _send(
        self, method: str, path: str, answer_type: type[_Answer], body: object = None
    ) -> _Answer:
        import msgspec

        from exporter.http_client import Bounds, Request
        from exporter.transport_errors import HttpClientError
        from exporter.web.api import PREFIX

        headers = {**self.headers, "Content-Type": "application/json"} if body else self.headers
        encoded = msgspec.json.encode(body) if body else None
        request = Request(method, f"{self.url}{PREFIX}{path}", headers, encoded)
        try:
            answer = await self.client.send(request, Bounds(_TIMEOUT_SECONDS, _LONGEST_ANSWER))
        except HttpClientError as error:
            raise AgentApiError(str(error)) from None
        if answer.status != _OK:
            raise AgentApiError(_refusal(answer))
        if answer.error is not None:
            raise AgentApiError(str(answer.error))
        if answer.truncated:
            raise AgentApiError(f"the answer is longer than {_LONGEST_ANSWER // 2**20} MiB")
        try:
            return msgspec.json.decode(answer.body, type=answer_type)
        except (msgspec.MsgspecError, UnicodeError) as error:
            text = f"the answer is not valid for this version of cartesia-exporter: {error}"
            raise AgentApiError(one_line(text, _MAX_TEXT)) from None


@asynccontextmanager
async def open_agent(given: Mapping[str, Any]) -> AsyncIterator[AgentApi]:
    """Yield the API of the agent that ``given``, the values of the options, name.

    Ends the process when they cannot be used.
    """
    from exporter.http_client import HttpClient

    for name in ("storage_path", "config_file"):
        if given[name] is not None:
            raise click.UsageError(f"--url and --{name.replace('_', '.')} exclude each other")
    if (given["username"] is None) != (given["password_file"] is None):
        raise click.UsageError("--username and --password-file need each other")
    headers, ca_file = _credentials(given), given["ca_file"]
    try:
        client = HttpClient(ca_file=ca_file, proxy=lambda: None)
    except OSError as error:
        why = "it contains no certificate" if isinstance(error, ssl.SSLError) else ""
        fail(CONFIGURATION_ERROR, f"cannot use {ca_file}: {why or os_error_text(error)}")
    async with client:
        yield AgentApi(client, given["url"].rstrip("/"), headers)


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
