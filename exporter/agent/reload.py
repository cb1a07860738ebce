"""Reload of the configuration while the agent runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final

import structlog
from msgspec import Struct, field
from prometheus_client import CollectorRegistry, Gauge

from exporter.agent.systemd import Notifier
from exporter.config import Config, ConfigError
from exporter.config.errors import unexpected_error_text
from exporter.core.clock import Clock
from exporter.supervisor import Service
from exporter.threads import start_executor

_READ_TIMEOUT_SECONDS: Final = 30.0

log = structlog.get_logger()


class Reloading(Struct, frozen=True):
    """How the configuration is reloaded.

    ``read`` returns the configuration; it may block, and any exception that it raises refuses the
    reload. ``asked`` is set to request a reload; HTTP requests may do so if ``over_http``.
    ``manager`` is notified of each.
    """

    read: Callable[[], Config]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over_http: bool = False
    manager: Notifier = field(default_factory=Notifier)


class Reloader(Service):
    """Runs one reload at a time; requests made during a reload are answered by the next one.

    ``apply`` applies a whole configuration, or raises ConfigError and changes nothing.
    """

    wakeup_deadline: float = inf

    def __init__(
        self,
        reloading: Reloading,
        apply: Callable[[Config], Awaitable[None]],
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self._reloading = reloading
        self._apply = apply
        self._clock = clock
        self._requests: list[asyncio.Future[list[str]]] = []
        # The loop's default threads would all be blocked by a few reads that hang.
        self._thread = start_executor("reload")
        self._successful = Gauge(
            "cartesia_exporter_config_last_reload_successful",
            "Whether the last attempt to load the configuration succeeded (1) or failed (0).",
            registry=registry,
        )
        self._succeeded_at = Gauge(
            "cartesia_exporter_config_last_reload_success_timestamp_seconds",
            "Unix time of the last successful load of the configuration.",
            registry=registry,
        )
        self._record([])

    async def run(self, stop: asyncio.Event) -> None:
        """Reload when a reload is requested, until ``stop`` is set."""
        asked = self._reloading.asked
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: asked.set())
        try:
            while await asked.wait() and not stop.is_set():
                asked.clear()
                requests, self._requests = self._requests, []
                self.wakeup_deadline = self._clock.monotonic() + _READ_TIMEOUT_SECONDS
                _answer(requests, await self._reload())
                self.wakeup_deadline = inf
        finally:
            stopping.cancel()
            _answer(self._requests, ["the agent is about to end"])

    async def reload(self) -> list[str]:
        """Request a reload; return the reasons why it was refused, [] if it succeeded."""
        request: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._requests.append(request)
        self._reloading.asked.set()
        return await request

    async def _reload(self) -> list[str]:
        self._reloading.manager.reloading()
        try:
            await self._apply(await self._read())
            problems: list[str] = []
        except ConfigError as error:
            problems = error.problems
        self._record(problems)
        for problem in problems:
            log.error("reload refused, the old configuration stays in force", error=problem)
        self._reloading.manager.ready("reload refused, see the log" if problems else "reloaded")
        return problems

    async def _read(self) -> Config:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(_READ_TIMEOUT_SECONDS)
        try:
            async with limit:
                return await loop.run_in_executor(self._thread, self._reloading.read)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - no file ends the agent
            why = f"cannot be read: {unexpected_error_text(error)}"
            if limit.expired():
                why = f"could not be read within {_READ_TIMEOUT_SECONDS:.0f} s"
            raise ConfigError([f"the configuration {why}"]) from None

    def _record(self, problems: list[str]) -> None:
        self._successful.set(not problems)
        if not problems:
            self._succeeded_at.set(self._clock.now())


def _answer(requests: Sequence[asyncio.Future[list[str]]], problems: list[str]) -> None:
    for request in requests:
        if not request.done():  # an HTTP client may have disconnected
            request.set_result(problems)
