"""The agent: runs the services that the configuration describes, and replaces them on reload."""

import asyncio
import platform
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp

from exporter import __version__, http_server
from exporter.agent.build import (
    SYSTEM_CLOCK,
    AgentContext,
    ServiceSpec,
    SpecFactory,
    poll_service,
    retention_of,
    route_of,
)
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
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.metrics import StoreMetrics
from exporter.store.outbox import Outbox
from exporter.supervisor import DefaultService, Service, Supervisor
from exporter.web.application import Reload, WebContext, application
from exporter.web.auth import AuthMiddleware
from exporter.web.live_config import ReloadingWebConfig

_FIRST_POLLS_SECONDS: Final = 5.0
"""The first polls of all accounts are spread over this time, or over the interval if shorter."""

_STORAGE_MOVED: Final = (
    "storage.path: cannot change while the agent runs; restart it, or take the change back"
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the agent is run, apart from its configuration.

    Attributes:
        addresses: where to listen, as pairs of host and port.
        telemetry_path: path of the metrics.
        external_url: where users reach the pages.
        web: the web configuration, if there is one.
        reloading: how the configuration is reloaded, if it can be.
        on_listening: is called once with the URLs of the pages.
        on_status: is called with each published account status.
        passed: listening sockets to use in place of ``addresses``.
        manager: notifies the service manager.
    """

    addresses: tuple[tuple[str, int], ...] = (("", 10060),)
    telemetry_path: str = "/metrics"
    external_url: str | None = None
    web: ReloadingWebConfig | None = None
    reloading: Reloading | None = None
    on_listening: Callable[[Sequence[str]], None] | None = None
    on_status: Callable[[AccountStatus], None] | None = None
    passed: Sequence[socket.socket] = ()
    manager: Notifier = field(default_factory=Notifier)


async def run(config: Config, options: RunOptions, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file cannot be used, StoreError when the store
    cannot, and an exception group when a service fails because of a bug.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    for note in () if options.web is None else options.web.first.notes:
        log.warning("a key of the web configuration has no effect", note=note)
    async with AsyncExitStack() as resources:
        # Before the addresses: a second agent must report who holds the state, not a used port.
        database = await resources.enter_async_context(Database(config.storage.path))
        listeners = await _listen(options, resources)
        supervisor = Supervisor()
        agent = Agent(config, options, database, supervisor)
        reloading = options.reloading or Reloading(lambda: config)
        reloader = Reloader(reloading, agent.reload, agent.registry, SYSTEM_CLOCK)
        await agent.prepare()
        tls = None if options.web is None else options.web.listening_tls
        server = Server(agent.application(reloader.reload), listeners, tls)
        log.info("listening", addresses=" ".join(server.urls), version=__version__)
        if options.on_listening is not None:
            options.on_listening(server.urls)
        async with supervisor:
            agent.start()
            supervisor.start("web", server)
            supervisor.start("reload", reloader)
            options.manager.ready("running")
            await stop.wait()
            log.info("stopping")
            options.manager.stopping()
            await supervisor.stop_all()
    log.info("stopped")


BuiltServices = dict[str, tuple[Service, AsyncExitStack]]
"""Services that are not started yet, with what they hold open, by name."""


class Agent:
    """The configured services, the metrics page, and what the services share."""

    def __init__(
        self, config: Config, options: RunOptions, database: Database, supervisor: Supervisor
    ) -> None:
        self._options = options
        self._database = database
        self._supervisor = supervisor
        self._statuses = StatusRegistry()
        self._observers = [] if options.on_status is None else [options.on_status]
        self.registry = new_registry()
        self.registry.register(StoreMetrics(database))
        renderer = Renderer(self.registry, self._statuses.newest, SYSTEM_CLOCK.monotonic)
        self._page = Page(renderer)
        self._watchdog = Watchdog(
            supervisor.wakeup_deadlines, SYSTEM_CLOCK.monotonic, options.manager
        )
        self._housekeeper = Housekeeper(
            database, self._housekeeping_settings, self.registry, SYSTEM_CLOCK
        )
        self._spec_factory = SpecFactory(self._context(), self.registry)
        self._prepared: BuiltServices = {}
        self._services: dict[str, Service] = {}
        self._apply(config, self._spec_factory.specs(config))

    def _context(self) -> AgentContext:
        return AgentContext(
            database=self._database,
            external_url=self._options.external_url,
            publish=self._publish,
            withdraw=self._statuses.forget,
            observers=self._observers,
            route=self._route,
            wake=self._wake,
            all_fresh=self._all_fresh,
            oldest_pending=self._oldest_pending,
        )

    def _apply(self, config: Config, specs: Mapping[str, ServiceSpec]) -> None:
        """Use a configuration from now on."""
        self._config = config
        self._specs = specs
        self._routes = [route_of(section, config.alerts) for section in config.receivers]

    async def prepare(self) -> None:
        """Build the services and load their state.

        Raises OSError when a certificate file cannot be used, StoreError when the store cannot.
        """
        self._prepared = await build_services(self._specs)
        for service, _ in self._prepared.values():
            await service.prepare(None)

    def start(self) -> None:
        """Start the prepared services and those that every agent has."""
        delays = self._first_poll_delays(self._prepared)
        for name, (service, resources) in self._prepared.items():
            self._start(name, service, resources, delays.get(name, 0.0))
        self._supervisor.start("page", self._page)
        self._supervisor.start("housekeeping", self._housekeeper)
        self._supervisor.start("health", self._watchdog)

    def _first_poll_delays(self, built: Collection[str]) -> dict[str, float]:
        pollers = [poll_service(account) for account in self._config.accounts]
        new = [name for name in pollers if name in built]
        return first_poll_delays(new, self._config.poll.interval)

    def _start(self, name: str, service: Service, resources: AsyncExitStack, delay: float) -> None:
        self._services[name] = service
        self._supervisor.start(name, service, resources, delay=delay)

    async def reload(self, config: Config) -> None:
        """Apply another configuration; services whose spec is unchanged keep running.

        Raises ReloadRefusedError, and then nothing has changed.
        """
        if config.storage.path != self._config.storage.path:
            raise ReloadRefusedError([_STORAGE_MOVED])
        old, new = self._specs, self._spec_factory.specs(config)
        try:
            built = await build_services({n: spec for n, spec in new.items() if old.get(n) != spec})
        except OSError as error:
            raise ReloadRefusedError([file_error_text(error)]) from None
        stopped = [name for name, spec in old.items() if new.get(name) != spec]
        # Before the old services end: events of their last polls go to the new receivers.
        self._apply(config, new)
        delays = self._first_poll_delays(built)
        # Concurrently: a poll that takes long to end must not delay other accounts.
        await asyncio.gather(
            *(self._stop(name) for name in stopped if name not in built),
            *(self._replace(name, *built[name], delays.get(name, 0.0)) for name in built),
        )
        for service in self._services.values():
            service.reloaded()
        log.info("configuration reloaded", started=_joined(built), stopped=_joined(stopped))

    async def _stop(self, name: str) -> None:
        """Stop a service that left the configuration."""
        await self._supervisor.stop([name])
        self._services.pop(name).forget()

    async def _replace(
        self, name: str, service: Service, resources: AsyncExitStack, delay: float
    ) -> None:
        """Start a service in place of the one of the same name, if there is one."""
        await self._supervisor.stop([name])
        try:
            await service.prepare(self._services.pop(name, None))
        except StoreError as error:  # the first poll tries again
            log.error("cannot load the state yet", service=name, error=str(error))  # noqa: TRY400
        self._start(name, service, resources, delay)

    def application(self, reload: Reload) -> ASGIApp:
        """Return the web application; ``reload`` is called when a request asks for a reload."""
        options = self._options
        over_http = options.reloading is not None and options.reloading.over_http
        pages = application(
            WebContext(
                self._page,
                self._readiness,
                options.telemetry_path,
                self._statuses.newest,
                reload if over_http else None,
                lambda: render_masked(self._config),
                self._watchdog.liveness,
            )
        )
        return pages if options.web is None else AuthMiddleware(pages, options.web)

    def _publish(self, status: AccountStatus) -> None:
        self._statuses.publish(status)
        for observe in self._observers:
            observe(status)

    def _route(self, event: Event) -> list[str]:
        return receivers_of(event, self._routes)

    def _wake(self) -> None:
        for service in self._services.values():
            service.wake()

    def _all_fresh(self) -> bool:
        return self._readiness().fresh == len(self._config.accounts)

    async def _oldest_pending(self) -> float | None:
        outboxes = [Outbox(self._database, section.name) for section in self._config.receivers]
        backlogs = [await outbox.backlog() for outbox in outboxes]
        return min((each.oldest for each in backlogs if each.oldest is not None), default=None)

    def _housekeeping_settings(self) -> HousekeepingSettings:
        names = [receiver.name for receiver in self._config.receivers]
        return HousekeepingSettings(names, retention_of(self._config))

    def _readiness(self) -> Readiness:
        now = SYSTEM_CLOCK.monotonic()
        return readiness(self._statuses.newest(), now, trouble=self._database.trouble)


async def build_services(specs: Mapping[str, ServiceSpec]) -> BuiltServices:
    """Build the services of all specs; if one fails, raise OSError and close the others."""
    built: BuiltServices = {}
    async with AsyncExitStack() as opened:
        for name, spec in specs.items():
            resources = await opened.enter_async_context(AsyncExitStack())
            built[name] = await spec.build(resources), resources
        opened.pop_all()
    return built


def first_poll_delays(pollers: Sequence[str], interval: float) -> dict[str, float]:
    """Return the delay of each poller's first poll, in seconds.

    Spread out, so that the accounts are not all polled at the same moment of each interval.
    """
    spread = min(interval, _FIRST_POLLS_SECONDS)
    return {name: n * spread / len(pollers) for n, name in enumerate(pollers)}


def _joined(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


def new_registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process, of Python, and the build info."""
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


@dataclass(frozen=True, slots=True)
class Server(DefaultService):
    """The service that answers HTTP requests."""

    app: ASGIApp
    listeners: Sequence[socket.socket]
    tls: ssl.SSLContext | None = None

    wakeup_deadline: ClassVar[float] = inf  # it waits for requests

    @property
    def urls(self) -> list[str]:
        """URLs of the listeners."""
        tls = self.tls is not None
        return [http_server.base_url(listener, tls=tls) for listener in self.listeners]

    async def run(self, stop: asyncio.Event) -> None:
        """Answer requests until ``stop`` is set."""
        await http_server.serve(self.app, self.listeners, stop, self.tls)


async def _listen(options: RunOptions, resources: AsyncExitStack) -> list[socket.socket]:
    listeners = list(options.passed)
    for listener in listeners:
        resources.callback(listener.close)
    for address in () if listeners else options.addresses:
        listeners.append(await http_server.listen(*address))
        resources.callback(listeners[-1].close)
    return listeners
