"""`health`: ask a running agent whether it is healthy, as the health check of a container.

Uses http.client, because it starts faster than httpx: a health check runs every few seconds. It
uses no proxy and follows no redirect.
"""

import ssl
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Final
from urllib.parse import SplitResult, urlsplit

import click

from exporter import __version__
from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail
from exporter.cli.options import AgentUrl
from exporter.core.text import is_loopback, one_line, os_error_text

_TIMEOUT_SECONDS: Final = 5.0
_MAX_BODY_BYTES: Final = 4096
_MAX_TEXT: Final = 300


@click.command()
@click.option(
    "--url",
    type=AgentUrl(),
    default="http://127.0.0.1:10060/-/healthy",
    show_default=True,
    help="URL of the health endpoint.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="CA certificates that the agent's certificate must be signed by; default: the system's.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Do not verify the certificate; allowed for 127.0.0.1, ::1 and localhost only.",
)
def health(url: str, ca_file: Path | None, *, insecure: bool) -> None:
    """Ask a running agent whether it is healthy; exit with 0 if it is, otherwise with 1.

    It waits for at most 5 seconds, uses no proxy and follows no redirect.
    """
    split = urlsplit(url)
    if insecure and not is_loopback(split.hostname or ""):
        raise click.UsageError("--insecure is for a loopback address; elsewhere use --ca-file")
    if insecure and ca_file is not None:
        raise click.UsageError("--insecure and --ca-file exclude each other")
    tls = None if split.scheme == "http" else _tls_context(ca_file, insecure=insecure)
    status, text = _get_within_timeout(url, tls)
    line = one_line(text, _MAX_TEXT)
    if status != HTTPStatus.OK:
        fail(RUNTIME_ERROR, f"{url}: answered {status}: {line or 'no text'}")
    click.echo(line)


def _tls_context(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        why = (
            "it contains no certificate"
            if isinstance(error, ssl.SSLError)
            else os_error_text(error)
        )
        fail(CONFIGURATION_ERROR, f"--ca-file {ca_file} cannot be used: {why}")
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _get_within_timeout(url: str, tls: ssl.SSLContext | None) -> tuple[int, str]:
    """Return status and text of the response, or end the process with why there is none."""
    from http.client import HTTPException

    response: Future[tuple[int, str]] = Future()

    def get() -> None:
        try:
            response.set_result(_get(urlsplit(url), tls))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            response.set_exception(error)

    # In a daemon thread: a socket timeout limits neither a name lookup that hangs nor a server
    # that sends one byte per second.
    Thread(target=get, daemon=True).start()
    try:
        return response.result(_TIMEOUT_SECONDS)
    except (OSError, HTTPException, UnicodeError) as error:
        fail(RUNTIME_ERROR, f"{url}: {_reason(error)}")


def _get(url: SplitResult, tls: ssl.SSLContext | None) -> tuple[int, str]:
    from http.client import HTTPConnection, HTTPSConnection

    host, timeout = url.hostname or "", _TIMEOUT_SECONDS
    if tls is None:
        connection = HTTPConnection(host, url.port, timeout=timeout)
    else:
        connection = HTTPSConnection(host, url.port, timeout=timeout, context=tls)
    try:
        headers = {"User-Agent": f"cartesia-exporter/{__version__}", "Connection": "close"}
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MAX_BODY_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no complete answer within {_TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or 'it was refused'}"
    if isinstance(error, OSError):
        return f"no connection: {error.strerror or 'it was closed'}"
    if isinstance(error, UnicodeError):
        return "no connection: the host's name cannot be looked up"
    return f"the answer is not HTTP ({type(error).__name__})"
