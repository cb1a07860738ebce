"""The web configuration in force: its files are checked for each request and TLS connection."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Self

import structlog

from exporter.core.text import os_error_text
from exporter.threads import start_executor

_REQUEST_WAIT_SECONDS: Final = 1.0
_CONNECTION_WAIT_SECONDS: Final = 0.02
"""Maximum wait for a check of the files; after it, the last settings are used. The second one
blocks the event loop: asyncio needs a connection's TLS settings at once."""

log = structlog.get_logger()


class UnusableError(Exception):
    """The web configuration is invalid; ``problems`` has one text per mistake."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request per ``interval`` seconds, and up to ``burst`` at once after a pause."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The web configuration as it was read once.

    Attributes:
        tls: context for new connections; None for plain HTTP.
        headers: added to each response.
        users: bcrypt hashes by name, both as bytes; empty if no password is needed.
        rate_limit: None for no limit.
        notes: keys that are accepted and have no effect, with the reason.
    """

    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    notes: tuple[str, ...] = ()


Source = Callable[[], WebSettings | None]
"""Returns the settings if they changed since the last call, else None.

Blocks on files. Raises UnusableError, once per change, if the new settings are invalid, and OSError
if the files cannot be looked at now.
"""


class ReloadingWebConfig:
    """Newest settings of the web configuration.

    The methods are for the event loop. The files are read in a thread, by one check at a time.
    ``first`` are the settings at the start.
    """

    def __init__(self, first: WebSettings, source: Source) -> None:
        self.first = first
        self._source = source
        self._settings: WebSettings | None = first
        self._tls = first.tls
        self._thread = start_executor("web-config")
        self._check: Future[None] | None = None
        self._slow_check: Future[None] | None = None
        self._is_failing = False

    @property
    def listening_tls(self) -> ssl.SSLContext | None:
        """Context for a listener, which follows changes of the files; None for plain HTTP."""
        return None if self._tls is None else _ReloadingContext(self)

    async def settings(self) -> WebSettings | None:
        """Return the current settings, or None if they are invalid."""
        # Shielded: a request that is cancelled must not cancel the check for the others.
        check = asyncio.shield(asyncio.wrap_future(self._start_check()))
        await asyncio.wait((check,), timeout=_REQUEST_WAIT_SECONDS)
        if check.done():
            check.result()
        return self._settings

    def newest_tls(self) -> ssl.SSLContext:
        """Return the newest valid context for a new connection."""
        check = self._start_check()
        if check is not self._slow_check:
            try:
                check.result(_CONNECTION_WAIT_SECONDS)
            except TimeoutError:
                # Wait once per check: the waits of many connections would add up.
                self._slow_check = check
        assert self._tls is not None  # a listener without TLS never calls this
        return self._tls

    def _start_check(self) -> Future[None]:
        if self._check is None or self._check.done():
            self._check = self._thread.submit(self._read)
        return self._check

    def _read(self) -> None:
        try:
            newest = self._source()
        except UnusableError as error:
            self._refuse(error.problems)
            return
        except OSError as error:
            if not self._is_failing:
                log.warning("the web configuration cannot be checked", error=os_error_text(error))
            self._is_failing = True
            return
        self._is_failing = False
        if newest is None:
            return
        if (newest.tls is None) != (self._tls is None):
            change = "removed" if self._tls else "added"
            text = f"tls_server_config: must not be {change} while the agent runs"
            self._refuse([f"{text}; restart it, or undo the change"])
            return
        self._settings, self._tls = newest, newest.tls
        log.info("web configuration reloaded")
        for note in newest.notes:
            log.warning("a key of the web configuration has no effect", note=note)
        if newest.rate_limit != self.first.rate_limit:
            log.warning("rate_limit changed, it takes effect after a restart")

    def _refuse(self, problems: list[str]) -> None:
        self._settings = None
        log.error(
            "the web configuration cannot be used, requests are answered 500",
            errors="; ".join(problems),
        )


class _ReloadingContext(ssl.SSLContext):
    """Context of a listener that uses the newest settings for each new connection.

    Not a callback for the server name (SNI): with it, OpenSSL changes only the certificate, while
    versions, ciphers and client authorities stay as they were at the start.
    """

    _live: ReloadingWebConfig

    def __new__(cls, live: ReloadingWebConfig) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._live = live
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Wrap a new connection."""
        return self._live.newest_tls().wrap_bio(*arguments, **named)
