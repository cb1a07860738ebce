"""The web configuration in force: looked at again for each request and each TLS connection."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self

import structlog


class UnusableError(Exception):
    """The web configuration cannot be used now; problems has one text for each mistake in it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request in ``interval`` seconds, and up to ``burst`` at once after a pause."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What one reading of the file says.

    Attributes:
        tls: what new connections are served with; None for plain HTTP.
        headers: added to each answer.
        users: bcrypt hashes by name, both as bytes; empty when no password is needed.
        rate_limit: None for no limit.
        notes: what was accepted and has no effect, in words.
    """

    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    notes: tuple[str, ...] = ()


Source = Callable[[], WebSettings | None]
"""Returns the settings when they changed since they were read last, else None.

Blocks on files. Raises UnusableError, once a change, when they changed and cannot be used.
"""

_REQUEST_WAITS: Final = 1.0
_CONNECTION_WAITS: Final = 0.02
"""How long, in seconds, a look at the files may take before what was read last is used. The event
loop itself waits for the second: asyncio wants its TLS settings at once."""

_TURNED: Final = (
    "tls_server_config: must not be {} while the agent runs; restart it, or take the change back"
)

log = structlog.get_logger()


class ReloadingWebConfig:
    """What the web configuration says now.

    Its methods belong to the event loop; the files are read in a thread of its own, by one look at
    a time.
    """

    def __init__(self, first: WebSettings, source: Source) -> None:
        self._first = first
        self._source = source
        self._settings: WebSettings | None = first
        self._tls = first.tls
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="web-config")
        self._looking: Future[None] | None = None
        self._slow: Future[None] | None = None

    @property
    def first(self) -> WebSettings:
        """What it said at the start."""
        return self._first

    @property
    def listening_tls(self) -> ssl.SSLContext | None:
        """What to give a listener, None for plain HTTP; it goes with the file."""
        return None if self._tls is None else _Newest(self)

    async def settings(self) -> WebSettings | None:
        """Return what the file says now, None when that cannot be used."""
        # Shielded: whoever gives up waiting must not end the look that others wait for.
        look = asyncio.shield(asyncio.wrap_future(self._look()))
        await asyncio.wait((look,), timeout=_REQUEST_WAITS)
        if look.done():
            look.result()
        return self._settings

    def newest_tls(self) -> ssl.SSLContext:
        """Return what a new connection is to be served with: the newest that could be used."""
        look = self._look()
        if look is not self._slow:
            try:
                look.result(_CONNECTION_WAITS)
            except TimeoutError:
                # Once a look: connections that come while the files hang must not add up.
                self._slow = look
        assert self._tls is not None  # a listener without TLS never asks
        return self._tls

    def _look(self) -> Future[None]:
        if self._looking is None or self._looking.done():
            self._looking = self._thread.submit(self._read)
        return self._looking

    def _read(self) -> None:
        try:
            newest = self._source()
        except UnusableError as error:
            self._refuse(error.problems)
            return
        if newest is None:
            return
        if (newest.tls is None) != (self._tls is None):
            self._refuse([_TURNED.format("removed" if self._tls else "added")])
            return
        self._settings, self._tls = newest, newest.tls
        log.info("the web configuration was read again")
        for note in newest.notes:
            log.warning("a key of the web configuration has no effect", note=note)
        if newest.rate_limit != self._first.rate_limit:
            log.warning("rate_limit changed, which takes a restart to count")

    def _refuse(self, problems: list[str]) -> None:
        self._settings = None
        log.error(
            "the web configuration cannot be used, requests are answered 500",
            errors="; ".join(problems),
        )


class _Newest(ssl.SSLContext):
    """Serves each new connection with the newest settings.

    Not a callback for the server name: OpenSSL then exchanges the certificate alone, and versions,
    ciphers and the authorities of clients stay as they were at the start.
    """

    _live: ReloadingWebConfig

    def __new__(cls, live: ReloadingWebConfig) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._live = live
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self._live.newest_tls().wrap_bio(*arguments, **named)
