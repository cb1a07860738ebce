"""What each part of an agent is made of: a reload makes again only those whose recipe differs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from exporter.cartesia.client import Client, ClientMetrics
from exporter.config import Account, Config, Poll, Receiver
from exporter.core.account import Rules
from exporter.core.message import Pages
from exporter.core.model import AccountKey, Event
from exporter.core.secret import Secret
from exporter.core.view import AccountView
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.firing import AlertDeliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.plan import DeliveryPlan
from exporter.heartbeat import Heartbeat, HeartbeatPlan
from exporter.http import Exchange, file_version
from exporter.parts import (
    SYSTEM_CLOCK,
    api_of,
    exchange_of,
    limits_of,
    open_receiver,
    shape_of,
)
from exporter.poll_metrics import PollMetrics
from exporter.poller import Poller, PollPlan
from exporter.receivers.alertmanager import Alertmanager
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.firing import AlertOutbox
from exporter.store.outbox import Outbox
from exporter.supervisor import Part, Running

HEARTBEAT: Final = "heartbeat"
"""The name of the part that sends it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a part is made. Recipes are equal when their ``ingredients`` are.

    ``make`` raises OSError when a certificate file can't be used.
    """

    ingredients: object = field(repr=False)
    make: Callable[[AsyncExitStack], Awaitable[Part]] = field(repr=False, compare=False)

    async def made(self) -> Running:
        """Return the part, ready to run; raise what ``make`` does, and leave nothing open then."""
        async with AsyncExitStack() as resources:
            part = await self.make(resources)
            kept = resources.pop_all()
        return Running(part, kept)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What joins the parts, and outlives each of them.

    ``publish`` is given what the page shows, ``route`` names the receivers of an event, ``wake``
    tells them, ``fresh`` says whether every account has fresh data, and ``oldest_pending`` since
    when an event is owed.
    """

    database: Database
    external_url: str | None
    publish: Callable[[AccountView], None]
    route: Callable[[Event], Sequence[str]]
    wake: Callable[[], None]
    fresh: Callable[[], bool]
    oldest_pending: Callable[[], Awaitable[float | None]]


class Recipes:
    """Turns a configuration into recipes. What is counted is counted on ``registry``."""

    def __init__(self, wiring: Wiring, registry: CollectorRegistry) -> None:
        self._wiring = wiring
        self._deliveries = DeliveryMetrics(registry)
        self._polls = PollMetrics(registry)
        self._requests = ClientMetrics(registry)

    def of(self, config: Config) -> dict[str, Recipe]:
        """Return the recipe of each part, receivers before accounts, by the name of the part."""
        recipes: dict[str, Recipe] = {}
        for section in config.receivers:
            recipes[f"deliver {section.name}"] = self._deliverer(section, config)
        for account in config.accounts:
            recipes[f"poll {account.name}"] = self._poller(account, config)
        url = config.heartbeat_url_secret
        if url is not None:
            recipes[HEARTBEAT] = self._heartbeat(url, config)
        return recipes

    def forget(self, part: Part) -> None:
        """Take a part's series off the page: it is configured no more."""
        if isinstance(part, Poller):
            self._polls.forget(part.account)
            self._requests.forget(part.account)
        elif isinstance(part, Deliverer | AlertDeliverer):
            self._deliveries.forget(part.name)

    def _deliverer(self, section: Receiver, config: Config) -> Recipe:
        alerts = config.alerts
        plan = DeliveryPlan(
            self._wiring.database.store_id,
            alerts.group_wait,
            alerts.digest_threshold,
            section.max_age,
            Pages(alerts.playground_url, self._wiring.external_url),
            self._wiring.route,
            self._wiring.wake,
        )
        make = partial(self._make_deliverer, section, plan)
        return Recipe((plan, *_ingredients(section)), make)

    async def _make_deliverer(
        self, section: Receiver, plan: DeliveryPlan, resources: AsyncExitStack
    ) -> Part:
        receiver = await open_receiver(section, resources)
        database, counts = self._wiring.database, self._deliveries
        if isinstance(receiver, Alertmanager):
            owed = AlertOutbox(database, section.name)
            return AlertDeliverer(receiver, owed, plan, counts, SYSTEM_CLOCK)
        return Deliverer(receiver, Outbox(database, section.name), plan, counts, SYSTEM_CLOCK)

    def _poller(self, account: Account, config: Config) -> Recipe:
        shape = shape_of(account, config.metrics)
        plan = PollPlan(
            interval=config.poll.interval,
            timeout=config.poll.timeout,
            rules=Rules(
                self._wiring.database.store_id,
                AccountKey(account.name, account.base_url),
                config.alerts.first_run,
                config.metrics.max_models,
                config.alerts.stuck_after,
                shape.names,
            ),
            failing_after=config.alerts.poll_failing_after,
            publish=self._wiring.publish,
            route=self._wiring.route,
            wake=self._wiring.wake,
            stale_after=config.poll.stale_after,
            shape=shape,
        )
        make = partial(self._make_poller, account, config.poll, plan)
        return Recipe((plan, config.poll, *_ingredients(account)), make)

    async def _make_poller(
        self, account: Account, polls: Poll, plan: PollPlan, resources: AsyncExitStack
    ) -> Part:
        exchange = await resources.enter_async_context(exchange_of(account))
        api, limits = api_of(account, polls.page_size), limits_of(polls)
        client = Client(exchange, api, self._requests, SYSTEM_CLOCK, limits)
        accounts = Accounts(self._wiring.database)
        return Poller(client, accounts, plan, self._polls, SYSTEM_CLOCK)

    def _heartbeat(self, url: Secret, config: Config) -> Recipe:
        names = [account.name for account in config.accounts]
        plan = HeartbeatPlan(names, self._wiring.fresh, self._wiring.oldest_pending)
        return Recipe((url, plan), partial(_make_heartbeat, url, plan))


async def _make_heartbeat(url: Secret, plan: HeartbeatPlan, resources: AsyncExitStack) -> Part:
    exchange = await resources.enter_async_context(Exchange())
    return Heartbeat(url, exchange, plan, SYSTEM_CLOCK)


def _ingredients(section: Account | Receiver) -> tuple[object, ...]:
    # Also as text: to Python, the 1 and the true of a template are equal.
    return section, repr(section), file_version(section.ca_file)


def changes(old: Mapping[str, Recipe], new: Mapping[str, Recipe]) -> tuple[list[str], list[str]]:
    """Return the names of the parts that have to be made, and of those that have to go."""
    made = [name for name, recipe in new.items() if old.get(name) != recipe]
    gone = [name for name, recipe in old.items() if new.get(name) != recipe]
    return made, gone
