"""Reads the configuration again while the agent runs, and puts it in force or says why not."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from exporter.agent.systemd import Notifier
from exporter.config import Config, ConfigError
from exporter.core.clock import Clock

_READ_SECONDS: Final = 30.0
_SLOW: Final = f"the configuration could not be read within {_READ_SECONDS:.0f} s"
_ENDING: Final = "the agent is about to end"

log = structlog.get_logger()


class ReloadRefusedError(Exception):
    """A valid configuration that a running agent can't take; problems has one text for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Reloading:
    """How the configuration is read again, and who may ask for it.

    ``read`` may block and raises ConfigError; ``asked`` is set when somebody wants it; with
    ``over_http`` that may be anybody who can send a request. ``manager`` is told of each reload.
    """

    read: Callable[[], Config]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over_http: bool = False
    manager: Notifier = field(default_factory=Notifier)


class Reloader:
    """Reloads, one at a time; whoever asks during one is answered by the next.

    ``apply`` puts a configuration in force as a whole, or raises ReloadRefusedError and changes
    nothing. ``due_at`` is the monotonic time by which a reload will have read all it needs; between
    them it waits to be asked.
    """

    def __init__(
        self,
        reloading: Reloading,
        apply: Callable[[Config], Awaitable[None]],
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self.wakeup_deadline = math.inf
        self._reloading = reloading
        self._apply = apply
        self._clock = clock
        self._waiting: list[asyncio.Future[list[str]]] = []
        # Not the loop's own threads: reads that hang, one per reload, would fill them.
        self._thread = ThreadPoolExecutor(1, "reload")
        self._successful = Gauge(
            "cartesia_exporter_config_last_reload_successful",
            "Whether the last attempt to load the configuration succeeded.",
            registry=registry,
        )
        self._succeeded_at = Gauge(
            "cartesia_exporter_config_last_reload_success_timestamp_seconds",
            "Unix time when the configuration was loaded last.",
            registry=registry,
        )
        self._note([])

    async def run(self, stop: asyncio.Event) -> None:
        """Reload whenever it is asked for, until ``stop`` is set."""
        asked = self._reloading.asked
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: asked.set())
        try:
            while await asked.wait() and not stop.is_set():
                asked.clear()
                waiting, self._waiting = self._waiting, []
                self.wakeup_deadline = self._clock.monotonic() + _READ_SECONDS
                _answer(waiting, await self._reload())
                self.wakeup_deadline = math.inf
        finally:
            stopping.cancel()
            _answer(self._waiting, [_ENDING])

    async def reload(self) -> list[str]:
        """Have it reloaded; return every reason why the old one stays in force, [] if none."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._reloading.asked.set()
        found: list[str] = await future
        return found

    async def _reload(self) -> list[str]:
        self._reloading.manager.reloading()
        try:
            await self._apply(await self._read())
            problems: list[str] = []
        except (ConfigError, ReloadRefusedError) as error:
            problems = error.problems
        self._note(problems)
        for problem in problems:
            log.error("reload refused, the old configuration stays in force", error=problem)
        self._reloading.manager.ready("reload refused, see the log" if problems else "reloaded")
        return problems

    async def _read(self) -> Config:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await loop.run_in_executor(self._thread, self._reloading.read)
        except TimeoutError:
            raise ReloadRefusedError([_SLOW]) from None

    def _note(self, problems: list[str]) -> None:
        self._successful.set(not problems)
        if not problems:
            self._succeeded_at.set(self._clock.now())


def _answer(waiting: Sequence[asyncio.Future[list[str]]], problems: list[str]) -> None:
    for each in waiting:
        if not each.done():  # whoever asked may have gone
            each.set_result(problems)
