"""`health`: ask a running agent whether it is well, as a container's health check does.

Python's own client, not ours: a health check is started every few seconds, and this starts faster.
It knows no proxy and follows no redirect.
"""

import ssl
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

import click

from exporter import __version__
from exporter.cli.exits import CONFIGURATION, RUNTIME, fail
from exporter.core.text import is_loopback, one_line, os_error_text

_SECONDS: Final = 5.0
_BODY_BYTES: Final = 4096
_SHOWN: Final = 300
_WELL: Final = 200


@dataclass(frozen=True, slots=True)
class _Page:
    """What is asked for, and the URL that says so."""

    url: str
    scheme: str
    host: str
    port: int | None
    path: str


class _Url(click.ParamType[_Page]):
    name = "url"

    def convert(self, value: Any, *_: Any) -> _Page:
        """Return the page; a URL with a password would show it to all who see the processes."""
        page = _page(str(value))
        if page is None:
            self.fail("write http://host:port/path or https://host:port/path, without a user")
        return page


def _page(url: str) -> _Page | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    sendable = url.isascii() and url.isprintable() and " " not in url
    if not sendable or parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Page(url, parts.scheme, parts.hostname, port, path) if parts.hostname else None


@click.command()
@click.option(
    "--url",
    "page",
    type=_Url(),
    default="http://127.0.0.1:10060/-/healthy",
    show_default=True,
    help="The page to ask for.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Who must have signed the agent's certificate; without it whom the system trusts.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Take any certificate: for 127.0.0.1, ::1 and localhost, which it seldom names.",
)
def health(page: _Page, ca_file: Path | None, *, insecure: bool) -> None:
    """Ask a running agent whether it is healthy: the status is 0 if it is, 1 if not.

    It waits 5 seconds at the most, uses no proxy and follows no redirect.
    """
    if insecure and not is_loopback(page.host):
        raise click.UsageError("--insecure is for a loopback address; elsewhere use --ca-file")
    if insecure and ca_file is not None:
        raise click.UsageError("--insecure and --ca-file exclude each other")
    status, text = _answer(page, _tls(page, ca_file, insecure=insecure))
    line = one_line(text, _SHOWN)
    if status != _WELL:
        fail(RUNTIME, f"{page.url}: answered {status}: {line or 'nothing more'}")
    click.echo(line)


def _tls(page: _Page, ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext | None:
    if page.scheme == "http":
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else os_error_text(error)
        fail(CONFIGURATION, f"--ca-file {ca_file} cannot be used: {why}")
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _answer(page: _Page, tls: ssl.SSLContext | None) -> tuple[int, str]:
    """Return status and text of the answer, or end with why there is none."""
    from http.client import HTTPException

    answer: Future[tuple[int, str]] = Future()

    def ask() -> None:
        try:
            answer.set_result(_ask(page, tls))
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            answer.set_exception(error)

    # In a thread that is left behind: neither a name that hangs nor a server that drips a byte a
    # second is met by a socket's own timeout.
    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(_SECONDS)
    except (OSError, HTTPException, UnicodeError) as error:
        fail(RUNTIME, f"{page.url}: {_reason(error)}")


def _ask(page: _Page, tls: ssl.SSLContext | None) -> tuple[int, str]:
    from http.client import HTTPConnection, HTTPSConnection

    if tls is None:
        connection = HTTPConnection(page.host, page.port, timeout=_SECONDS)
    else:
        connection = HTTPSConnection(page.host, page.port, timeout=_SECONDS, context=tls)
    try:
        agent = f"cartesia-exporter/{__version__}"
        connection.request("GET", page.path, headers={"User-Agent": agent, "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_BODY_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no complete answer within {_SECONDS:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or 'it was refused'}"
    if isinstance(error, OSError):
        return f"no connection: {error.strerror or 'it was closed'}"
    if isinstance(error, UnicodeError):
        return "no connection: the host's name cannot be looked up"
    return f"the answer is no HTTP ({type(error).__name__})"
