"""Build the parts, run them together, stop them together."""

import asyncio
import platform
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp

from exporter import __version__, asgi
from exporter.cartesia.client import Client, ClientMetrics
from exporter.config import Account, Config
from exporter.core.account import Rules
from exporter.core.exposition import AccountView
from exporter.core.message import Pages
from exporter.core.model import AccountKey, Event
from exporter.core.readiness import Readiness, readiness
from exporter.core.routing import receivers_of
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.plan import DeliveryPlan
from exporter.housekeeping import Housekeeper, HousekeepingPlan
from exporter.parts import (
    SYSTEM_CLOCK,
    BuiltReceiver,
    api_of,
    exchange_of,
    interest_of,
    receiver_of,
)
from exporter.poller import Poller, PollMetrics, PollPlan
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.metrics import StoreMetrics
from exporter.store.outbox import Outbox
from exporter.web.application import Shown, application
from exporter.web.collector import Views

_GRACE_SECONDS: Final = 8.0
"""How long what is in flight may go on after the signal to stop."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surface:
    """Where the agent listens, as pairs of host and port, and how its pages are found.

    ``on_view`` is told each new view of an account, and ``on_listening`` the URLs that answer.
    """

    addresses: tuple[tuple[str, int], ...] = (("", 10060),)
    telemetry_path: str = "/metrics"
    external_url: str | None = None
    on_listening: Callable[[Sequence[str]], None] | None = None
    on_view: Callable[[AccountView], None] | None = None


@dataclass(frozen=True, slots=True)
class _Agent:
    """The parts that run, in the order of the straight line."""

    pollers: list[Poller]
    deliverers: list[Deliverer]
    housekeeper: Housekeeper
    page: ASGIApp

    def wake(self) -> None:
        for deliverer in self.deliverers:
            deliverer.wake()


async def run(config: Config, surface: Surface, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file can't be used, StoreError when the state
    can't. A part that dies of a bug takes the others with it, and its error leaves here: a
    half-dead exporter that still answers /metrics is worse than none.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    for path in config.without_effect():
        log.warning("this key has no effect in this version", key=path)
    async with AsyncExitStack() as resources:
        # First: who starts twice is told who holds the state, not that the port is taken.
        database = await resources.enter_async_context(Database(config.storage.path))
        listeners = [await _listener(resources, *address) for address in surface.addresses]
        agent = await _Builder(config, surface, database, resources).build()
        for poller in agent.pollers:
            await poller.restore()
        urls = [asgi.base_url(listener) for listener in listeners]
        log.info("listening", addresses=" ".join(urls), version=__version__)
        if surface.on_listening is not None:
            surface.on_listening(urls)
        await _run_together(agent, listeners, stop)
    log.info("stopped")


async def _listener(resources: AsyncExitStack, host: str, port: int) -> socket.socket:
    listener = await asgi.listen(host, port)
    resources.callback(listener.close)
    return listener


async def _run_together(
    agent: _Agent, listeners: Sequence[socket.socket], stop: asyncio.Event
) -> None:
    async with asyncio.TaskGroup() as group:
        parts = {
            "web": asgi.serve(agent.page, listeners, stop),
            **{f"poll {poller.account}": poller.run(stop) for poller in agent.pollers},
            **{f"deliver {each.name}": each.run(stop) for each in agent.deliverers},
            "housekeeping": agent.housekeeper.run(stop),
        }
        tasks = [
            group.create_task(_watched(part, work, stop), name=part) for part, work in parts.items()
        ]
        await stop.wait()
        log.info("stopping")
        agent.wake()
        _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        for task in late:
            log.warning("cut off by the end of the process, nothing is lost", part=task.get_name())
            task.cancel()


async def _watched(part: str, work: Coroutine[None, None, None], stop: asyncio.Event) -> None:
    task = asyncio.current_task()
    try:
        await work
    except asyncio.CancelledError as error:
        # A task group takes a cancellation that nobody asked for as a quiet end of the part.
        if task is not None and not task.cancelling():
            raise RuntimeError(f"This part was cancelled by a bug: {part}") from error
        raise
    except Exception as error:
        error.add_note(f"This ended the part: {part}")
        raise
    if not stop.is_set():
        raise RuntimeError(f"This part ended by itself: {part}")


class _Builder:
    """Makes the parts of one agent out of its configuration."""

    def __init__(
        self, config: Config, surface: Surface, database: Database, resources: AsyncExitStack
    ) -> None:
        self._config = config
        self._surface = surface
        self._database = database
        self._resources = resources
        self._registry = _registry()
        self._views = Views()
        self._registry.register(self._views)
        self._registry.register(StoreMetrics(database))
        self._agent = _Agent([], [], self._housekeeper(), self._page())
        self._sections = [s for s in config.receivers if isinstance(s, BuiltReceiver)]
        self._interests = [interest_of(section, config.alerts) for section in self._sections]

    async def build(self) -> _Agent:
        told = DeliveryMetrics(self._registry)
        for section in self._sections:
            self._agent.deliverers.append(await self._deliverer(section, told))
        counts = PollMetrics(self._registry), ClientMetrics(self._registry)
        for account in self._config.accounts:
            self._agent.pollers.append(await self._poller(account, *counts))
        return self._agent

    async def _deliverer(self, section: BuiltReceiver, metrics: DeliveryMetrics) -> Deliverer:
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
        exchange = await self._resources.enter_async_context(exchange_of(section))
        outbox = Outbox(self._database, section.name)
        return Deliverer(receiver_of(section, exchange), outbox, plan, metrics, SYSTEM_CLOCK)

    async def _poller(
        self, account: Account, polls: PollMetrics, requests: ClientMetrics
    ) -> Poller:
        plan = PollPlan(
            interval=self._config.poll.interval,
            timeout=self._config.poll.timeout,
            rules=Rules(
                self._database.store_id,
                AccountKey(account.name, account.base_url),
                self._config.alerts.first_run,
                self._config.metrics.max_models,
            ),
            publish=self._publish,
            route=self._route,
            wake=self._agent.wake,
        )
        exchange = await self._resources.enter_async_context(exchange_of(account))
        api = api_of(account, self._config.poll.page_size)
        client = Client(exchange, api, requests, SYSTEM_CLOCK)
        return Poller(client, Accounts(self._database), plan, polls, SYSTEM_CLOCK)

    def _route(self, event: Event) -> list[str]:
        return receivers_of(event, self._interests)

    def _publish(self, view: AccountView) -> None:
        self._views.publish(view)
        if self._surface.on_view is not None:
            self._surface.on_view(view)

    def _housekeeper(self) -> Housekeeper:
        names = [receiver.name for receiver in self._config.receivers]
        plan = HousekeepingPlan(names, self._config.storage.retention)
        return Housekeeper(self._database, plan, self._registry, SYSTEM_CLOCK)

    def _page(self) -> ASGIApp:
        def ready() -> Readiness:
            stale_after = self._config.poll.stale_after
            now, trouble = SYSTEM_CLOCK.now(), self._database.trouble
            return readiness(self._views.newest(), now, stale_after, trouble=trouble)

        return application(
            Shown(self._registry, ready, self._surface.telemetry_path, self._views.newest)
        )


def _registry() -> CollectorRegistry:
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
