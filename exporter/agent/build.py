"""What each part of an agent is made of: a reload makes again only those whose recipe differs."""

import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from exporter.agent.heartbeat import Heartbeat, HeartbeatSettings
from exporter.cartesia.client import Api, Client, ClientMetrics, Limits
from exporter.config import (
    Account,
    AlertmanagerReceiver,
    Alerts,
    AppriseReceiver,
    Config,
    Metrics,
    Poll,
    SlackReceiver,
    WebhookReceiver,
)
from exporter.config import Receiver as ReceiverSection
from exporter.config.models import events_of
from exporter.config.receivers import CommonReceiver
from exporter.config.secrets import TextSecret
from exporter.config.types import check_proxy_url, check_web_url
from exporter.core.account import Rules
from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.clock import Clock
from exporter.core.events import SUBSCRIPTIONS, TROUBLES, Event
from exporter.core.message import LinkTemplates
from exporter.core.model import AccountKey
from exporter.core.routing import Route
from exporter.core.secret import Secret
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.delivery.alertmanager import AlertDeliverer
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.http_client import HttpClient, file_version
from exporter.polling.metrics import PollMetrics
from exporter.polling.poller import Poller, PollSettings
from exporter.receivers.alertmanager import ALERTS_PATH, Alertmanager, Member
from exporter.receivers.alerts import AlertmanagerBody
from exporter.receivers.apprise import Apprise
from exporter.receivers.payload import Body, standard_body
from exporter.receivers.receiver import Endpoint, Receiver
from exporter.receivers.slack import Slack
from exporter.receivers.template import Template, TemplateBody
from exporter.receivers.webhook import Basic, Bearer, Webhook
from exporter.store.accounts import Accounts
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from exporter.supervisor import Running, Service

_SPREAD_SECONDS: Final = 5.0
"""Within how long after the start the first poll of every account begins."""

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic, random.random)


def http_client_of(section: Account | ReceiverSection) -> HttpClient:
    """Return the connections of an account or a receiver, to be closed at the end.

    Raises OSError when its ca_file can't be used.
    """
    return HttpClient(ca_file=section.ca_file, proxy=_proxy(section))


def _proxy(section: Account | ReceiverSection) -> Secret | None:
    url = section.proxy_url
    return None if url is None else TextSecret(url.get_secret_value(), "proxy_url", check_proxy_url)


def api_of(account: Account, page_size: int) -> Api:
    """Return which API an account asks, and as whom."""
    return Api(
        account.name, account.base_url, account.api_version, account.api_key_secret, page_size
    )


def limits_of(poll: Poll) -> Limits:
    """Return how gently each account is asked."""
    return Limits(poll.concurrency, poll.requests_per_second)


def first_polls(accounts: int, interval: float) -> list[float]:
    """Return after how many seconds each of so many accounts is polled first.

    The first at once, the others spread out: many accounts do not all meet again at each interval.
    """
    return [n * min(interval, _SPREAD_SECONDS) / accounts for n in range(accounts)]


def series_options(account: Account, metrics: Metrics) -> SeriesOptions:
    """Return which data series an account has."""
    most = metrics.max_fine_tune_series if metrics.per_fine_tune else 0
    return SeriesOptions(metrics.labels, tuple(account.labels.items()), most)


def route_of(section: CommonReceiver, alerts: Alerts) -> Route:
    """Return what a receiver is told; an Alertmanager what of it is a trouble."""
    given = section.match.model_dump(exclude_none=True)
    # DOTALL: a pattern such as `.*` must match a name of two lines too, or its failure is not told.
    match = {key: re.compile(pattern, re.DOTALL) for key, pattern in given.items()}
    types = frozenset().union(*(SUBSCRIPTIONS[name] for name in events_of(section, alerts)))
    if isinstance(section, AlertmanagerReceiver):
        types &= TROUBLES
    return Route(section.name, types, match)


async def open_receiver(section: ReceiverSection, resources: AsyncExitStack) -> Receiver:
    """Return the receiver of a section; its connections are closed with ``resources``.

    Raises OSError when its ca_file can't be used.
    """
    if not isinstance(section, AlertmanagerReceiver):
        return receiver_of(section, await resources.enter_async_context(http_client_of(section)))
    members = []
    for url in section.urls:
        # Connections of its own: each post closes those that it was sent over.
        http_client = await resources.enter_async_context(http_client_of(section))
        secret = _alerts_url(url.get_secret_value())
        members.append(Member(Endpoint(http_client, secret, section.timeout)))
    return Alertmanager(section.name, members, section.hold)


def _alerts_url(url: str) -> Secret:
    return TextSecret(url.strip().rstrip("/") + ALERTS_PATH, "urls", check_web_url)


def receiver_of(
    section: SlackReceiver | WebhookReceiver | AppriseReceiver, http_client: HttpClient
) -> Receiver:
    """Return the receiver of a section that posts to one place."""
    if isinstance(section, AppriseReceiver):
        return Apprise(section.name, section.url_secret, section.timeout, section.ca_file)
    endpoint = Endpoint(http_client, section.url_secret, section.timeout)
    if isinstance(section, SlackReceiver):
        text = None if section.text is None else Template(section.text)
        return Slack(section.name, endpoint, section.mention or "", text)
    headers = _headers(section)
    return Webhook(section.name, endpoint, section.signing_secret, _body(section), headers)


def _body(section: WebhookReceiver) -> Body:
    if section.format == "alertmanager":
        return AlertmanagerBody(section.name)
    return standard_body if section.template is None else TemplateBody(section.template)


def _headers(section: WebhookReceiver) -> dict[str, Callable[[], str]]:
    headers: dict[str, Callable[[], str]] = {**section.header_secrets}
    token, basic = section.bearer_token_secret, section.basic_auth
    if token is not None:
        headers["Authorization"] = Bearer(token)
    elif basic is not None:
        headers["Authorization"] = Basic(basic.username, basic.password_secret)
    return headers


def retention_of(config: Config) -> float:
    """Return for how many seconds settled events are kept.

    At least as long as they are posted to an Alertmanager: that is done by their rows.
    """
    holds = (s.hold for s in config.receivers if isinstance(s, AlertmanagerReceiver))
    return max(config.storage.retention, max(holds, default=0.0) + RESOLVED_SECONDS)


HEARTBEAT: Final = "heartbeat"
"""The name of the part that sends it."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How a part is made. Recipes are equal when their ``ingredients`` are.

    ``make`` raises OSError when a certificate file can't be used.
    """

    ingredients: object = field(repr=False)
    make: Callable[[AsyncExitStack], Awaitable[Service]] = field(repr=False, compare=False)

    async def made(self) -> Running:
        """Return the part, ready to run; raise what ``make`` does, and leave nothing open then."""
        async with AsyncExitStack() as resources:
            part = await self.make(resources)
            kept = resources.pop_all()
        return Running(part, kept)


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What joins the parts, and outlives each of them.

    ``publish`` is given what the page shows, ``route`` names the receivers of an event, ``wake``
    tells them, ``fresh`` says whether every account has fresh data, and ``oldest_pending`` since
    when an event is owed.
    """

    database: Database
    external_url: str | None
    publish: Callable[[AccountStatus], None]
    route: Callable[[Event], Sequence[str]]
    wake: Callable[[], None]
    fresh: Callable[[], bool]
    oldest_pending: Callable[[], Awaitable[float | None]]


class Recipes:
    """Turns a configuration into recipes. What is counted is counted on ``registry``."""

    def __init__(self, wiring: AgentContext, registry: CollectorRegistry) -> None:
        self._wiring = wiring
        self._deliveries = DeliveryMetrics(registry)
        self._polls = PollMetrics(registry)
        self._requests = ClientMetrics(registry)

    def of(self, config: Config) -> dict[str, ServiceSpec]:
        """Return the recipe of each part, receivers before accounts, by the name of the part."""
        recipes: dict[str, ServiceSpec] = {}
        for section in config.receivers:
            recipes[f"deliver {section.name}"] = self._deliverer(section, config)
        for account in config.accounts:
            recipes[f"poll {account.name}"] = self._poller(account, config)
        url = config.heartbeat_url_secret
        if url is not None:
            recipes[HEARTBEAT] = self._heartbeat(url, config)
        return recipes

    def forget(self, part: Service) -> None:
        """Take a part's series off the page: it is configured no more."""
        if isinstance(part, Poller):
            self._polls.forget(part.account)
            self._requests.forget(part.account)
        elif isinstance(part, Deliverer | AlertDeliverer):
            self._deliveries.forget(part.name)

    def _deliverer(self, section: ReceiverSection, config: Config) -> ServiceSpec:
        alerts = config.alerts
        plan = DeliverySettings(
            self._wiring.database.store_id,
            alerts.group_wait,
            alerts.digest_threshold,
            section.max_age,
            LinkTemplates(alerts.playground_url, self._wiring.external_url),
            self._wiring.route,
            self._wiring.wake,
        )
        make = partial(self._make_deliverer, section, plan)
        return ServiceSpec((plan, *_ingredients(section)), make)

    async def _make_deliverer(
        self, section: ReceiverSection, plan: DeliverySettings, resources: AsyncExitStack
    ) -> Service:
        receiver = await open_receiver(section, resources)
        database, counts = self._wiring.database, self._deliveries
        if isinstance(receiver, Alertmanager):
            owed = AlertOutbox(database, section.name)
            return AlertDeliverer(receiver, owed, plan, counts, SYSTEM_CLOCK)
        return Deliverer(receiver, Outbox(database, section.name), plan, counts, SYSTEM_CLOCK)

    def _poller(self, account: Account, config: Config) -> ServiceSpec:
        options = series_options(account, config.metrics)
        plan = PollSettings(
            interval=config.poll.interval,
            timeout=config.poll.timeout,
            rules=Rules(
                self._wiring.database.store_id,
                AccountKey(account.name, account.base_url),
                config.alerts.first_run,
                config.metrics.max_models,
                config.alerts.stuck_after,
                options.names,
            ),
            failing_after=config.alerts.poll_failing_after,
            publish=self._wiring.publish,
            route=self._wiring.route,
            wake=self._wiring.wake,
            stale_after=config.poll.stale_after,
            options=options,
        )
        make = partial(self._make_poller, account, config.poll, plan)
        return ServiceSpec((plan, config.poll, *_ingredients(account)), make)

    async def _make_poller(
        self, account: Account, polls: Poll, plan: PollSettings, resources: AsyncExitStack
    ) -> Service:
        http_client = await resources.enter_async_context(http_client_of(account))
        api, limits = api_of(account, polls.page_size), limits_of(polls)
        client = Client(http_client, api, self._requests, SYSTEM_CLOCK, limits)
        accounts = Accounts(self._wiring.database)
        return Poller(client, accounts, plan, self._polls, SYSTEM_CLOCK)

    def _heartbeat(self, url: Secret, config: Config) -> ServiceSpec:
        names = [account.name for account in config.accounts]
        plan = HeartbeatSettings(names, self._wiring.fresh, self._wiring.oldest_pending)
        return ServiceSpec((url, plan), partial(_make_heartbeat, url, plan))


async def _make_heartbeat(
    url: Secret, plan: HeartbeatSettings, resources: AsyncExitStack
) -> Service:
    http_client = await resources.enter_async_context(HttpClient())
    return Heartbeat(url, http_client, plan, SYSTEM_CLOCK)


def _ingredients(section: Account | ReceiverSection) -> tuple[object, ...]:
    # Also as text: to Python, the 1 and the true of a template are equal.
    return section, repr(section), file_version(section.ca_file)


def changes(
    old: Mapping[str, ServiceSpec], new: Mapping[str, ServiceSpec]
) -> tuple[list[str], list[str]]:
    """Return the names of the parts that have to be made, and of those that have to go."""
    made = [name for name, recipe in new.items() if old.get(name) != recipe]
    gone = [name for name, recipe in old.items() if new.get(name) != recipe]
    return made, gone
