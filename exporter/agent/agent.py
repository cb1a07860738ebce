"""One agent: its parts, as the configuration in force wants them, and what joins them."""

import asyncio
import math
import platform
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp

from exporter import __version__
from exporter import http_server as asgi
from exporter.agent.build import (
    HEARTBEAT,
    SYSTEM_CLOCK,
    AgentContext,
    Recipes,
    ServiceSpec,
    changes,
    first_polls,
    retention_of,
    route_of,
)
from exporter.agent.heartbeat import Heartbeat
from exporter.agent.housekeeping import Housekeeper, HousekeepingSettings
from exporter.agent.reload import Reloader, Reloading, ReloadRefusedError
from exporter.agent.systemd import Notifier
from exporter.agent.watchdog import Watchdog
from exporter.config import Config
from exporter.config.masked import render_masked
from exporter.config.secrets import file_error_text
from exporter.core.events import Event
from exporter.core.health import Readiness, readiness
from exporter.core.routing import receivers_of
from exporter.core.view import AccountStatus
from exporter.delivery.alertmanager import AlertDeliverer
from exporter.delivery.deliverer import Deliverer
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.polling.poller import Poller
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.metrics import StoreMetrics
from exporter.store.outbox import Outbox
from exporter.supervisor import Running, Supervisor
from exporter.web.application import Reload, WebContext, application
from exporter.web.auth import AuthMiddleware
from exporter.web.live_config import ReloadingWebConfig

_Kind = TypeVar("_Kind")

log = structlog.get_logger()

_STORAGE_MOVED: Final = (
    "storage.path: cannot change while the agent runs; restart it, or take the change back"
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where the agent listens, as pairs of host and port, and how its pages are found.

    ``web`` is the web configuration, if there is one, and ``reloading`` how the configuration is
    read again, if it can be. ``on_view`` is told each new view of an account, and ``on_listening``
    the URLs that answer. ``passed`` are sockets that listen already, in place of the addresses, and
    ``manager`` is told how the agent is.
    """

    addresses: tuple[tuple[str, int], ...] = (("", 10060),)
    telemetry_path: str = "/metrics"
    external_url: str | None = None
    web: ReloadingWebConfig | None = None
    reloading: Reloading | None = None
    on_listening: Callable[[Sequence[str]], None] | None = None
    on_view: Callable[[AccountStatus], None] | None = None
    passed: Sequence[socket.socket] = ()
    manager: Notifier = field(default_factory=Notifier)


class Agent:
    """The parts that run, each made by its recipe, and the page that shows what they do."""

    def __init__(
        self, config: Config, surface: RunOptions, database: Database, supervisor: Supervisor
    ) -> None:
        self._surface = surface
        self._database = database
        self._supervisor = supervisor
        self.registry = new_registry()
        self.registry.register(StoreMetrics(database))
        self._views = StatusRegistry()
        renderer = Renderer(self.registry, self._views.newest, SYSTEM_CLOCK.monotonic)
        self._metrics_page = Page(renderer)
        self._health = Watchdog(supervisor.due, SYSTEM_CLOCK.monotonic, surface.manager)
        self._housekeeper = Housekeeper(database, self._upkeep, self.registry, SYSTEM_CLOCK)
        self._recipes = Recipes(self._wiring(), self.registry)
        self._running: dict[str, Running] = {}
        self._take(config, self._recipes.of(config))

    def _wiring(self) -> AgentContext:
        return AgentContext(
            self._database,
            self._surface.external_url,
            self._publish,
            self._route,
            self._wake,
            self._all_fresh,
            self._oldest_pending,
        )

    def _take(self, config: Config, recipes: Mapping[str, ServiceSpec]) -> None:
        """Put a configuration in force for all that asks for it when it is needed."""
        self._config = config
        self._in_force = recipes
        self._interests = [route_of(section, config.alerts) for section in config.receivers]

    async def prepare(self) -> None:
        """Make the parts and load what they remember.

        Raises OSError when a certificate file can't be used, StoreError when the state can't.
        """
        self._running = await _made(self._in_force)
        self._spread(self._running.values())
        for poller in self._parts(Poller):
            await poller.restore()

    def _spread(self, made: Iterable[Running]) -> None:
        """Have pollers that were made together begin one after another."""
        pollers = _of(Poller, made)
        delays = first_polls(len(pollers), self._config.poll.interval)
        for poller, seconds in zip(pollers, delays, strict=True):
            poller.begin_after(seconds)

    def start(self) -> None:
        """Start what was prepared, and what every agent has."""
        for name, running in self._running.items():
            self._supervisor.start(name, running)
        self._supervisor.start("page", Running(self._metrics_page))
        self._supervisor.start("housekeeping", Running(self._housekeeper))
        self._supervisor.start("health", Running(self._health))

    async def reload(self, config: Config) -> None:
        """Put another configuration in force; parts whose recipe is the same are not touched.

        Raises ReloadRefusedError, and then nothing has changed.
        """
        if config.storage.path != self._config.storage.path:
            raise ReloadRefusedError([_STORAGE_MOVED])
        recipes = self._recipes.of(config)
        new, leaving = changes(self._in_force, recipes)
        try:
            made = await _made({name: recipes[name] for name in new})
        except OSError as error:
            raise ReloadRefusedError([file_error_text(error)]) from None
        # Before the parts that leave have ended: what they still find is owed to the new receivers.
        self._take(config, recipes)
        self._spread(made.values())
        # Each by itself: a poll that takes long to end holds up no other account.
        names = dict.fromkeys((*leaving, *made))
        await asyncio.gather(*(self._exchange(name, made.get(name)) for name in names))
        for poller in self._parts(Poller):
            poller.try_again()
        log.info("configuration reloaded", started=_named(made), stopped=_named(leaving))

    async def _exchange(self, name: str, running: Running | None) -> None:
        """End the part of this name, if there is one, and then start the new one, if there is."""
        before = self._running.get(name)
        if before is not None:
            await self._supervisor.stop([name])
            del self._running[name]
        if running is not None:
            await self._begin(name, running, before)
        elif before is not None:
            self._forget(before)

    async def _begin(self, name: str, running: Running, before: Running | None) -> None:
        if isinstance(running.part, Poller):
            if before is not None and isinstance(before.part, Poller):
                running.part.follow(before.part)
            try:
                await running.part.restore()
            except StoreError as error:  # its first poll tries again
                log.error("cannot load the state yet", part=name, error=str(error))  # noqa: TRY400
        self._running[name] = running
        self._supervisor.start(name, running)

    def _forget(self, running: Running) -> None:
        self._recipes.forget(running.part)
        if isinstance(running.part, Poller):
            self._views.forget(running.part.account)

    def application(self, reload: Reload) -> ASGIApp:
        """Return the pages; ``reload`` is what a request for one is answered by."""
        surface = self._surface
        over_http = surface.reloading is not None and surface.reloading.over_http
        page = application(
            WebContext(
                self._metrics_page,
                self._readiness,
                surface.telemetry_path,
                self._views.newest,
                reload if over_http else None,
                lambda: render_masked(self._config),
                self._health.newest,
            )
        )
        return page if surface.web is None else AuthMiddleware(page, surface.web)

    def _parts(self, kind: type[_Kind]) -> list[_Kind]:
        return _of(kind, self._running.values())

    def _wake(self) -> None:
        for running in self._running.values():
            if isinstance(running.part, Deliverer | AlertDeliverer):
                running.part.wake()

    def _route(self, event: Event) -> list[str]:
        return receivers_of(event, self._interests)

    def _all_fresh(self) -> bool:
        return self._readiness().fresh == len(self._config.accounts)

    async def _oldest_pending(self) -> float | None:
        outboxes = [Outbox(self._database, section.name) for section in self._config.receivers]
        backlogs = [await outbox.backlog() for outbox in outboxes]
        return min((each.oldest for each in backlogs if each.oldest is not None), default=None)

    def _publish(self, view: AccountStatus) -> None:
        self._views.publish(view)
        beating = self._running.get(HEARTBEAT)  # not searched for: there may be many parts
        if beating is not None and isinstance(beating.part, Heartbeat):
            beating.part.note(view)
        if self._surface.on_view is not None:
            self._surface.on_view(view)

    def _upkeep(self) -> HousekeepingSettings:
        names = [receiver.name for receiver in self._config.receivers]
        return HousekeepingSettings(names, retention_of(self._config))

    def _readiness(self) -> Readiness:
        now = SYSTEM_CLOCK.monotonic()
        return readiness(self._views.newest(), now, trouble=self._database.trouble)


async def _made(recipes: Mapping[str, ServiceSpec]) -> dict[str, Running]:
    """Return the parts of all recipes; raise OSError and leave nothing open when one can't be."""
    async with AsyncExitStack() as opened:
        made: dict[str, Running] = {}
        for name, recipe in recipes.items():
            made[name] = await recipe.made()
            opened.push_async_exit(made[name].resources)
        opened.pop_all()
    return made


def _of(kind: type[_Kind], running: Iterable[Running]) -> list[_Kind]:
    return [each.part for each in running if isinstance(each.part, kind)]


def _named(parts: Collection[str]) -> str:
    return ", ".join(parts) or "none"


def new_registry() -> CollectorRegistry:
    """Return a registry that shows the process, Python, and which version this is."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Gauge(
        "cartesia_exporter_build_info",
        "Always 1; the version of the exporter and of Python.",
        ("version", "pythonversion"),
        registry=registry,
    )
    build.labels(__version__, platform.python_version()).set(1)
    return registry


async def run(config: Config, surface: RunOptions, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file can't be used, StoreError when the state
    can't. A part that dies of a bug takes the others with it, and its error leaves here in a group.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    _tell_what_has_no_effect(surface)
    async with AsyncExitStack() as resources:
        # First: who starts twice is told who holds the state, not that the port is taken.
        database = await resources.enter_async_context(Database(config.storage.path))
        listeners = await _listeners(surface, resources)
        supervisor = Supervisor()
        agent = Agent(config, surface, database, supervisor)
        reloading = surface.reloading or Reloading(lambda: config)
        reloader = Reloader(reloading, agent.reload, agent.registry, SYSTEM_CLOCK)
        await agent.prepare()
        tls = None if surface.web is None else surface.web.listening_tls
        server = Server(agent.application(reloader.reload), listeners, tls)
        log.info("listening", addresses=" ".join(server.urls), version=__version__)
        if surface.on_listening is not None:
            surface.on_listening(server.urls)
        async with supervisor:
            agent.start()
            supervisor.start("web", Running(server))
            supervisor.start("reload", Running(reloader))
            surface.manager.ready("running")
            await stop.wait()
            log.info("stopping")
            surface.manager.stopping()
            await supervisor.stop_all()
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class Server:
    """The part that answers requests."""

    app: ASGIApp
    listeners: Sequence[socket.socket]
    tls: ssl.SSLContext | None = None

    wakeup_deadline: ClassVar[float] = math.inf  # it waits for requests

    @property
    def urls(self) -> list[str]:
        """The URLs that answer."""
        return [asgi.base_url(listener, tls=self.tls is not None) for listener in self.listeners]

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set."""
        await asgi.serve(self.app, self.listeners, stop, self.tls)


def _tell_what_has_no_effect(surface: RunOptions) -> None:
    for note in () if surface.web is None else surface.web.first.notes:
        log.warning("a key of the web configuration has no effect", note=note)


async def _listeners(surface: RunOptions, resources: AsyncExitStack) -> list[socket.socket]:
    listeners = list(surface.passed)
    for listener in listeners:
        resources.callback(listener.close)
    for address in () if listeners else surface.addresses:
        listeners.append(await asgi.listen(*address))
        resources.callback(listeners[-1].close)
    return listeners
