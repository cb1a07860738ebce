"""The agent: runs the services that the configuration describes, and replaces them on reload."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import Struct, field
from prometheus_client import disable_created_metrics
from starlette.types import ASGIApp

from exporter import __version__, http_client, http_server
from exporter.agent.build import (
    SYSTEM_CLOCK,
    AgentContext,
    ServiceSpec,
    SpecFactory,
    account_labels,
    poll_service,
    route_of,
    view_settings,
)
from exporter.agent.housekeeping import Housekeeper
from exporter.agent.ownership import OwnerMetrics, Ownership, ReplicaObservers
from exporter.agent.registry import new_registry
from exporter.agent.reload import Reloader, Reloading
from exporter.agent.services import Services
from exporter.agent.store_guard import StoreGuard
from exporter.agent.systemd import Notifier
from exporter.agent.watchdog import Watchdog
from exporter.config import Config, ConfigError
from exporter.config.errors import unexpected_error_text
from exporter.config.secrets import file_error_text
from exporter.core.health import Readiness, readiness
from exporter.core.model import AccountKey
from exporter.core.ownership import ACCOUNT, AGENT, Claim, Item
from exporter.core.routing import receivers_of
from exporter.core.text import LONGEST
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.metrics import StoreMetrics
from exporter.store.outbox import Outbox
from exporter.store.reader import Reader
from exporter.store.retention import Retention
from exporter.supervisor import Service, Supervisor
from exporter.web.application import Application, Reload, WebContext

if TYPE_CHECKING:
    from exporter.web.live_config import ReloadingWebConfig
    from exporter.web.pages import PagesContext

_OWNERSHIP: Final = "ownership"

_FIRST_POLLS_SECONDS: Final = 5.0
_FIRST_POLLS_PER_SECOND: Final = 50.0
"""The first polls of all accounts are spread over this time, or longer if they are more than so
many per second, at most over the interval: hundreds at once would delay the renewal of a lease."""

_STORAGE_MOVED: Final = (
    "storage: only retention can change while the agent runs; restart it, or undo the change"
)

log = structlog.get_logger()


class RunOptions(Struct, frozen=True):
    """How the agent is run, apart from its configuration.

    The agent listens at ``addresses``, pairs of host and port, or on the sockets ``passed``.
    Users reach its pages at ``external_url``. ``on_listening`` is called once with the URLs of the
    pages, ``on_loaded`` when everything is imported, ``on_status`` with each published account
    status. If ``init``, a database that was emptied becomes a new state.
    """

    addresses: tuple[tuple[str, int], ...] = (("", 10060),)
    telemetry_path: str = "/metrics"
    external_url: str | None = None
    web: "ReloadingWebConfig | None" = None
    reloading: Reloading | None = None
    on_listening: Callable[[Sequence[str]], object] = lambda _: None
    on_loaded: Callable[[], object] = lambda: None
    on_status: Callable[[AccountStatus], None] = lambda _: None
    passed: Sequence[socket.socket] = ()
    manager: Notifier = field(default_factory=Notifier)
    init: bool = False


async def run(config: Config, options: RunOptions, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file cannot be used, StoreError when the store
    cannot, StoreLostError when it was deleted, replaced or taken over by another agent meanwhile,
    and an exception group when a service fails because of a bug.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    for note in () if options.web is None else options.web.first.notes:
        log.warning("a key of the web configuration has no effect", note=note)
    async with AsyncExitStack() as resources:
        # Before the addresses: a second agent must report who holds the state, not a used port.
        database = await resources.enter_async_context(
            Database(config.storage.location, init=options.init)
        )
        guard = StoreGuard(database, SYSTEM_CLOCK, stop.set)
        resources.push_async_callback(guard.finish)
        listeners = await _listen(options, resources)
        supervisor = Supervisor()
        reader = await resources.enter_async_context(database.reader())
        agent = Agent(config, options, database, reader, supervisor)
        reloading = options.reloading or Reloading(lambda: config)
        reloader = Reloader(reloading, agent.reload, agent.registry, SYSTEM_CLOCK)
        tls = None if options.web is None else options.web.listening_tls
        urls = [http_server.base_url(each, tls=tls is not None) for each in listeners]
        await agent.prepare(urls[0])
        resources.push_async_callback(agent.leave)
        web = agent.application(reloader.reload if reloading.over_http else None)
        server = Server(web, listeners, tls)
        log.info("listening", addresses=" ".join(urls), version=__version__)
        options.on_listening(urls)
        async with supervisor:
            supervisor.start("web", server)
            agent.start_page()
            await agent.load()
            options.on_loaded()
            agent.start()
            supervisor.start("reload", reloader)
            supervisor.start("store", guard)
            options.manager.ready("running")
            await stop.wait()
            log.info("stopping")
            options.manager.stopping()
            await agent.stop()
    if database.lost is not None:
        raise database.lost
    log.info("stopped")


class Agent:
    """The configured services, the metrics page, and what the services share."""

    def __init__(
        self,
        config: Config,
        options: RunOptions,
        database: Database,
        reader: Reader,
        supervisor: Supervisor,
    ) -> None:
        self._options = options
        self._database = database
        self._reader = reader
        self._supervisor = supervisor
        self._statuses = StatusRegistry()
        self._observers = [self._statuses.publish, options.on_status]
        self.registry = new_registry()
        self.registry.register(StoreMetrics(database))
        monotonic = SYSTEM_CLOCK.monotonic
        self._page = Page(Renderer(self.registry, self._statuses.newest, monotonic))
        self._watchdog = Watchdog(supervisor.wakeup_deadlines, monotonic, options.manager)
        self._housekeeper = Housekeeper(
            Retention(database, lambda: (self._claims() or {}).get(AGENT)),
            lambda: self._config,
            self.registry,
            SYSTEM_CLOCK,
            self._statuses.newest,
        )
        context = AgentContext(
            database=database,
            external_url=options.external_url,
            publish=self._publish,
            withdraw=self._statuses.forget,
            observers=self._observers,
            route=lambda event: receivers_of(event, self._routes, self._log_match_error),
            account_labels=lambda: account_labels(self._config),
            wake=self._wake,
            polled_here=self._polled_here,
            all_fresh=self._all_fresh,
            oldest_pending_age=self._oldest_pending_age,
        )
        self._spec_factory = SpecFactory(context, self.registry)
        self._ownership: Ownership | None = None
        self._services = Services(
            supervisor, self._claims, lambda names: first_poll_delays(self._config, names)
        )
        if database.engine.is_shared:
            from exporter.store.ownership import Lease  # noqa: PLC0415 - imports psycopg

            lease = Lease(database, socket.gethostname(), __version__)
            calls = ReplicaObservers(self._wake, self._housekeeper.store_reads)
            self._ownership = Ownership(lease, self._services, SYSTEM_CLOCK, calls)
            database.on_fenced, database.trusts = self._ownership.drop, self._ownership.trusts
        owners = OwnerMetrics(database.store_id, lambda: self._services.items, self._owns)
        self.registry.register(owners)
        self._apply(config, self._spec_factory.specs(config))

    def _apply(self, config: Config, specs: Mapping[str, ServiceSpec]) -> None:
        """Use a configuration from now on."""
        for warning in config.warnings:
            log.warning("configuration has a warning", warning=warning)
        self._config = config
        self._services.configure(specs)
        self._routes = [route_of(section, config) for section in config.receivers]
        self._match_errors: set[tuple[str, str]] = set()

    async def prepare(self, url: str) -> None:
        """Build the services and load their state.

        ``url`` is of the pages, as this machine sees it. Raises OSError when a certificate file
        cannot be used, StoreError when the store cannot.
        """
        if self._ownership is not None:
            await self._ownership.join(url)
        await self._delete_outages()
        await self._services.prepare()

    def start_page(self) -> None:
        """Start the service that renders the metrics."""
        self._supervisor.start("page", self._page)

    async def load(self) -> None:
        """Import what the first /metrics does not need, in a thread.

        From then on nothing is imported for a poll, an alert or a page: an upgrade of the package
        under a running agent cannot break them. A part of the installation that is missing ends the
        process.
        """
        await asyncio.to_thread(http_client.load)
        await self._web.load()

    def start(self) -> None:
        """Start the prepared services and those that every agent has."""
        self._services.start()
        self._supervisor.start("housekeeping", self._housekeeper)
        self._supervisor.start("health", self._watchdog)
        if self._ownership is not None:
            self._supervisor.start(_OWNERSHIP, self._ownership)

    async def leave(self) -> None:
        """Let other replicas take what this one owns."""
        if self._ownership is not None:
            await self._ownership.end()

    async def stop(self) -> None:
        """Stop all services; the lease of a replica is renewed until the last one has ended."""
        if self._ownership is not None:
            self._ownership.leave()
        await self._supervisor.stop_all(last=_OWNERSHIP)

    async def reload(self, config: Config) -> None:
        """Apply another configuration; services whose spec is unchanged keep running.

        Raises ConfigError, and then nothing has changed.
        """
        if config.storage.location != self._config.storage.location:
            raise ConfigError([_STORAGE_MOVED])
        try:
            new = self._spec_factory.specs(config)
            built = await self._services.build(new)
        except OSError as error:
            raise ConfigError([file_error_text(error)]) from None
        except Exception as error:  # noqa: BLE001 - for example of a library that reads a file
            raise ConfigError([unexpected_error_text(error)]) from None
        # Before the old services end: events of their last polls go to the new receivers.
        self._apply(config, new)
        started, stopped = await self._services.replace(built)
        for service in self._services.running:
            service.reloaded()
        try:
            await self._delete_outages()
        except StoreError as error:  # the next start tries again
            log.error("cannot delete the outages of removed accounts", error=str(error))  # noqa: TRY400
        log.info(
            "configuration reloaded",
            started=", ".join(started) or "none",
            stopped=", ".join(stopped) or "none",
        )

    async def _delete_outages(self) -> None:
        """Delete the outages of accounts that are not configured: added again, they begin anew."""
        if self._ownership is not None and not self._ownership.has_peers_only:
            return  # another replica may have other accounts
        accounts = [AccountKey(each.name, each.base_url) for each in self._config.accounts]
        await Accounts(self._database).delete_outages(other_than=accounts)

    def application(self, reload: Reload | None) -> ASGIApp:
        """Return the web application; without ``reload`` requests cannot ask for a reload."""
        options = self._options
        self._web = Application(
            WebContext(
                self._page,
                self._readiness,
                self._pages_context,
                options.telemetry_path,
                self._statuses.newest,
                reload,
                self._watchdog.liveness,
                owned=lambda: None if self._ownership is None else self._ownership.claims,
            )
        )
        if options.web is None:
            return self._web
        from exporter.web.auth import AuthMiddleware  # noqa: PLC0415 - imports bcrypt

        return AuthMiddleware(self._web, options.web)

    def _pages_context(self) -> "PagesContext":
        from exporter.config.masked import render_masked  # noqa: PLC0415 - see web.application
        from exporter.web.actions import Actions  # noqa: PLC0415
        from exporter.web.pages import PagesContext  # noqa: PLC0415

        clock, options = SYSTEM_CLOCK, self._options
        actions = None
        if options.reloading is not None and options.reloading.over_http:
            actions = Actions(
                self._database,
                self._database.form_key,
                lambda: frozenset(section.name for section in self._config.receivers),
                clock.now,
                self._wake,
            )
        return PagesContext(
            self._reader,
            lambda: view_settings(self._config),
            self._shown_statuses,
            lambda: render_masked(self._config),
            clock.now,
            clock.monotonic,
            options.telemetry_path,
            actions,
        )

    def _claims(self) -> Mapping[Item, Claim] | None:
        return None if self._ownership is None else self._ownership.claims

    def _owns(self, item: Item) -> bool:
        return self._ownership is None or item in self._ownership.claims

    def _polled_here(self) -> list[str]:
        names = (each.name for each in self._config.accounts)
        return [name for name in names if self._owns(Item(ACCOUNT, name))]

    def _shown_statuses(self) -> list[AccountStatus]:
        """Return the statuses of all accounts, those of other replicas as they are stored."""
        here = self._statuses.newest()
        if self._ownership is None:
            return here
        names, stale_after = {each.account for each in here}, self._config.poll.stale_after
        return here + [
            self._ownership.remote_status(AccountKey(each.name, each.base_url), stale_after)
            for each in self._config.accounts
            if each.name not in names
        ]

    def _all_fresh(self) -> bool:
        fresh = [s for s in self._shown_statuses() if s.is_fresh(SYSTEM_CLOCK.monotonic())]
        return len(fresh) == len(self._config.accounts)

    def _publish(self, status: AccountStatus) -> None:
        if not self._owns(Item(ACCOUNT, status.account)):
            return  # of a poll that ends after another replica took the account
        for observe in self._observers:
            observe(status)

    def _log_match_error(self, receiver: str, key: str, error: Exception) -> None:
        # Once for each pattern: a poll can have thousands of events.
        if (receiver, key) not in self._match_errors:
            self._match_errors.add((receiver, key))
            log.error(
                "a pattern cannot be evaluated, its receiver gets every event",
                receiver=receiver,
                key=f"match.{key}",
                error=f"{type(error).__name__}: {error}"[:LONGEST],
            )

    def _wake(self) -> None:
        for service in self._services.running:
            service.wake()

    async def _oldest_pending_age(self) -> float:
        backlogs = [
            await Outbox(self._database, section.name).backlog(section.group_interval)
            for section in self._config.receivers
        ]
        return max((each.oldest_age or 0.0 for each in backlogs), default=0.0)

    def _readiness(self) -> Readiness:
        now = SYSTEM_CLOCK.monotonic()
        trouble, standby = self._database.trouble, False
        if self._ownership is not None:
            trouble, standby = trouble or self._ownership.trouble, not self._polled_here()
        return readiness(self._statuses.newest(), now, trouble=trouble, standby=standby)


def first_poll_delays(config: Config, built: Collection[str]) -> dict[str, float]:
    """Return the delay of the first poll of each new poller, in seconds.

    Spread out, so that the accounts are not all polled at the same moment of each interval.
    """
    pollers = [name for name in map(poll_service, config.accounts) if name in built]
    spread = max(_FIRST_POLLS_SECONDS, len(pollers) / _FIRST_POLLS_PER_SECOND)
    spread = min(config.poll.interval, spread)
    return {name: n * spread / len(pollers) for n, name in enumerate(pollers)}


@dataclass(frozen=True, slots=True)
class Server(Service):
    """The service that answers HTTP requests."""

    app: ASGIApp
    listeners: Sequence[socket.socket]
    tls: ssl.SSLContext | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Answer requests until ``stop`` is set."""
        await http_server.serve(self.app, self.listeners, stop, self.tls)


async def _listen(options: RunOptions, resources: AsyncExitStack) -> list[socket.socket]:
    if options.passed:
        return [resources.enter_context(listener) for listener in options.passed]
    addresses = options.addresses
    return [resources.enter_context(await http_server.listen(*each)) for each in addresses]
