"""The parts of one agent, made out of its configuration."""

import asyncio
import platform
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp

from exporter import __version__
from exporter.cartesia.client import Client, ClientMetrics
from exporter.config import Account, Config, Receiver
from exporter.core.account import Rules
from exporter.core.message import Pages
from exporter.core.model import AccountKey, Event
from exporter.core.readiness import Readiness, readiness
from exporter.core.routing import receivers_of
from exporter.core.secret import Secret
from exporter.core.view import AccountView
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.firing import AlertDeliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.plan import DeliveryPlan
from exporter.heartbeat import Heartbeat, HeartbeatPlan
from exporter.housekeeping import Housekeeper, HousekeepingPlan
from exporter.http import Exchange
from exporter.parts import (
    SYSTEM_CLOCK,
    api_of,
    exchange_of,
    interest_of,
    open_receiver,
    retention_of,
    shape_of,
)
from exporter.poll_metrics import PollMetrics
from exporter.poller import Poller, PollPlan
from exporter.receivers.alertmanager import Alertmanager
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.firing import AlertOutbox
from exporter.store.metrics import StoreMetrics
from exporter.store.outbox import Outbox
from exporter.web.application import Shown, application
from exporter.web.guard import Guard
from exporter.web.page import Page, Renderer
from exporter.web.reloading import Reloading
from exporter.web.views import Views


@dataclass(frozen=True, slots=True)
class Surface:
    """Where the agent listens, as pairs of host and port, and how its pages are found.

    ``web`` is the web configuration, if there is one. ``on_view`` is told each new view of an
    account, and ``on_listening`` the URLs that answer.
    """

    addresses: tuple[tuple[str, int], ...] = (("", 10060),)
    telemetry_path: str = "/metrics"
    external_url: str | None = None
    web: Reloading | None = None
    on_listening: Callable[[Sequence[str]], None] | None = None
    on_view: Callable[[AccountView], None] | None = None


class Part(Protocol):
    """What runs beside the line."""

    async def run(self, stop: asyncio.Event) -> None:
        """Do its work until ``stop`` is set."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The parts that run, in the order of the straight line; ``others`` by their names."""

    page: ASGIApp
    pollers: list[Poller] = field(default_factory=list)
    deliverers: list[Deliverer | AlertDeliverer] = field(default_factory=list)
    others: dict[str, Part] = field(default_factory=dict)

    def wake(self) -> None:
        """Say to the deliverers that something is owed, or that it is time to stop."""
        for deliverer in self.deliverers:
            deliverer.wake()


class Builder:
    """Makes the parts of one agent; what they hold open is closed with ``resources``."""

    def __init__(
        self, config: Config, surface: Surface, database: Database, resources: AsyncExitStack
    ) -> None:
        self._config = config
        self._surface = surface
        self._database = database
        self._resources = resources
        self._registry = new_registry()
        self._views = Views()
        renderer = Renderer(self._registry, self._views.newest, SYSTEM_CLOCK.monotonic)
        self._metrics_page = Page(renderer)
        self._registry.register(StoreMetrics(database))
        self._agent = Agent(self._page())
        self._heartbeat: Heartbeat | None = None
        self._interests = [interest_of(section, config.alerts) for section in config.receivers]

    async def build(self) -> Agent:
        """Return the agent. Raises OSError when a certificate file can't be used."""
        told = DeliveryMetrics(self._registry)
        for section in self._config.receivers:
            self._agent.deliverers.append(await self._deliverer(section, told))
        counts = PollMetrics(self._registry), ClientMetrics(self._registry)
        for account in self._config.accounts:
            self._agent.pollers.append(await self._poller(account, *counts))
        self._agent.others["page"] = self._metrics_page
        self._agent.others["housekeeping"] = self._housekeeper()
        if self._config.heartbeat_url_secret is not None:
            self._heartbeat = await self._new_heartbeat(self._config.heartbeat_url_secret)
            self._agent.others["heartbeat"] = self._heartbeat
        return self._agent

    async def _deliverer(
        self, section: Receiver, metrics: DeliveryMetrics
    ) -> Deliverer | AlertDeliverer:
        alerts = self._config.alerts
        plan = DeliveryPlan(
            self._database.store_id,
            alerts.group_wait,
            alerts.digest_threshold,
            section.max_age,
            Pages(alerts.playground_url, self._surface.external_url),
            self._route,
            self._agent.wake,
        )
        receiver = await open_receiver(section, self._resources)
        if isinstance(receiver, Alertmanager):
            owed = AlertOutbox(self._database, section.name)
            return AlertDeliverer(receiver, owed, plan, metrics, SYSTEM_CLOCK)
        outbox = Outbox(self._database, section.name)
        return Deliverer(receiver, outbox, plan, metrics, SYSTEM_CLOCK)

    async def _poller(
        self, account: Account, polls: PollMetrics, requests: ClientMetrics
    ) -> Poller:
        shape = shape_of(account, self._config.metrics)
        plan = PollPlan(
            interval=self._config.poll.interval,
            timeout=self._config.poll.timeout,
            rules=Rules(
                self._database.store_id,
                AccountKey(account.name, account.base_url),
                self._config.alerts.first_run,
                self._config.metrics.max_models,
                self._config.alerts.stuck_after,
                shape.names,
            ),
            failing_after=self._config.alerts.poll_failing_after,
            publish=self._publish,
            route=self._route,
            wake=self._agent.wake,
            stale_after=self._config.poll.stale_after,
            shape=shape,
        )
        exchange = await self._resources.enter_async_context(exchange_of(account))
        api = api_of(account, self._config.poll.page_size)
        client = Client(exchange, api, requests, SYSTEM_CLOCK)
        return Poller(client, Accounts(self._database), plan, polls, SYSTEM_CLOCK)

    def _route(self, event: Event) -> list[str]:
        return receivers_of(event, self._interests)

    async def _new_heartbeat(self, url: Secret) -> Heartbeat:
        names = [account.name for account in self._config.accounts]
        exchange = await self._resources.enter_async_context(Exchange())
        plan = HeartbeatPlan(names, self._all_fresh, self._oldest_pending)
        return Heartbeat(url, exchange, plan, SYSTEM_CLOCK)

    def _all_fresh(self) -> bool:
        return self._readiness().fresh == len(self._config.accounts)

    async def _oldest_pending(self) -> float | None:
        outboxes = [Outbox(self._database, section.name) for section in self._config.receivers]
        backlogs = [await outbox.backlog() for outbox in outboxes]
        return min((each.oldest for each in backlogs if each.oldest is not None), default=None)

    def _publish(self, view: AccountView) -> None:
        self._views.publish(view)
        if self._heartbeat is not None:
            self._heartbeat.note(view)
        if self._surface.on_view is not None:
            self._surface.on_view(view)

    def _housekeeper(self) -> Housekeeper:
        names = [receiver.name for receiver in self._config.receivers]
        plan = HousekeepingPlan(names, retention_of(self._config))
        return Housekeeper(self._database, plan, self._registry, SYSTEM_CLOCK)

    def _readiness(self) -> Readiness:
        now = SYSTEM_CLOCK.monotonic()
        return readiness(self._views.newest(), now, trouble=self._database.trouble)

    def _page(self) -> ASGIApp:
        shown = (
            self._metrics_page,
            self._readiness,
            self._surface.telemetry_path,
            self._views.newest,
        )
        page = application(Shown(*shown))
        return page if self._surface.web is None else Guard(page, self._surface.web)


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
