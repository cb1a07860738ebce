"""Specs of the agent's configured services: what each is made of, and how it is built."""

import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from exporter.agent.heartbeat import Heartbeat, HeartbeatSettings
from exporter.cartesia.client import ApiSettings, CartesiaClient, ClientMetrics, RateLimits
from exporter.config.models import Account, Alerts, Config, Metrics, Poll, events_of
from exporter.config.receivers import (
    AlertmanagerReceiver,
    AppriseReceiver,
    CommonReceiver,
    SlackReceiver,
    WebhookReceiver,
)
from exporter.config.receivers import Receiver as ReceiverSection
from exporter.config.secrets import TextSecret
from exporter.config.types import check_proxy_url, check_web_url
from exporter.core.account import Router, Rules
from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.clock import Clock
from exporter.core.events import SUBSCRIPTIONS, TROUBLES
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
from exporter.supervisor import Service

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic, random.random)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How a service is built. A reload rebuilds a service if its ``key`` has changed.

    ``build`` returns the service, and enters what it holds open into the stack. It raises OSError
    when a certificate file cannot be used.
    """

    key: object = field(repr=False)
    build: Callable[[AsyncExitStack], Awaitable[Service]] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What the services of an agent share. It does not change on reload.

    Attributes:
        database: the store.
        external_url: where users reach the agent's pages, for links in messages.
        publish: publishes the status of an account.
        withdraw: removes the status of the account of this name.
        observers: are called with each published status.
        route: returns the receivers of an event by the current configuration.
        wake: wakes the services after a commit that changed the outbox.
        all_fresh: whether every account has a snapshot that is not stale.
        oldest_pending: returns since when the oldest pending delivery waits; see HeartbeatSettings.
    """

    database: Database
    external_url: str | None
    publish: Callable[[AccountStatus], None]
    withdraw: Callable[[str], None]
    observers: list[Callable[[AccountStatus], None]]
    route: Router
    wake: Callable[[], None]
    all_fresh: Callable[[], bool]
    oldest_pending: Callable[[], Awaitable[float | None]]


class SpecFactory:
    """Derives service specs from a configuration. Metrics are registered once, on ``registry``."""

    def __init__(self, context: AgentContext, registry: CollectorRegistry) -> None:
        self._context = context
        self._delivery_metrics = DeliveryMetrics(registry)
        self._poll_metrics = PollMetrics(registry)
        self._client_metrics = ClientMetrics(registry)

    def specs(self, config: Config) -> dict[str, ServiceSpec]:
        """Return the specs by service name, receivers before accounts."""
        specs: dict[str, ServiceSpec] = {}
        for section in config.receivers:
            specs[f"deliver {section.name}"] = self._deliverer(section, config)
        for account in config.accounts:
            specs[poll_service(account)] = self._poller(account, config)
        if config.heartbeat_url_secret is not None:
            specs["heartbeat"] = self._heartbeat(config.heartbeat_url_secret, config)
        return specs

    def _deliverer(self, section: ReceiverSection, config: Config) -> ServiceSpec:
        alerts, context = config.alerts, self._context
        settings = DeliverySettings(
            context.database.store_id,
            alerts.group_wait,
            alerts.digest_threshold,
            section.max_age,
            LinkTemplates(alerts.playground_url, context.external_url),
            context.route,
            context.wake,
        )
        build = partial(self._build_deliverer, section, settings)
        return ServiceSpec((settings, *_section_key(section)), build)

    async def _build_deliverer(
        self, section: ReceiverSection, settings: DeliverySettings, resources: AsyncExitStack
    ) -> Service:
        receiver = await open_receiver(section, resources)
        database, metrics = self._context.database, self._delivery_metrics
        if isinstance(receiver, Alertmanager):
            alerts = AlertOutbox(database, section.name)
            return AlertDeliverer(receiver, alerts, settings, metrics, SYSTEM_CLOCK)
        outbox = Outbox(database, section.name)
        return Deliverer(receiver, outbox, settings, metrics, SYSTEM_CLOCK)

    def _poller(self, account: Account, config: Config) -> ServiceSpec:
        options, context = series_options(account, config.metrics), self._context
        settings = PollSettings(
            interval=config.poll.interval,
            timeout=config.poll.timeout,
            rules=Rules(
                context.database.store_id,
                AccountKey(account.name, account.base_url),
                config.alerts.first_run,
                config.metrics.max_models,
                config.alerts.stuck_after,
                options.names,
            ),
            failing_after=config.alerts.poll_failing_after,
            publish=context.publish,
            withdraw=self._withdraw_account,
            route=context.route,
            wake=context.wake,
            stale_after=config.poll.stale_after,
            options=options,
        )
        build = partial(self._build_poller, account, config.poll, settings)
        return ServiceSpec((settings, config.poll, *_section_key(account)), build)

    def _withdraw_account(self, account: str) -> None:
        self._context.withdraw(account)
        self._client_metrics.forget(account)

    async def _build_poller(
        self, account: Account, poll: Poll, settings: PollSettings, resources: AsyncExitStack
    ) -> Service:
        http_client = await resources.enter_async_context(http_client_of(account))
        api, limits = api_of(account, poll.page_size), limits_of(poll)
        client = CartesiaClient(http_client, api, self._client_metrics, SYSTEM_CLOCK, limits)
        accounts = Accounts(self._context.database)
        return Poller(client, accounts, settings, self._poll_metrics, SYSTEM_CLOCK)

    def _heartbeat(self, url: Secret, config: Config) -> ServiceSpec:
        names = [account.name for account in config.accounts]
        context = self._context
        settings = HeartbeatSettings(names, context.all_fresh, context.oldest_pending)
        return ServiceSpec((url, settings), partial(self._build_heartbeat, url, settings))

    async def _build_heartbeat(
        self, url: Secret, settings: HeartbeatSettings, resources: AsyncExitStack
    ) -> Service:
        http_client = await resources.enter_async_context(HttpClient())
        heartbeat = Heartbeat(url, http_client, settings, SYSTEM_CLOCK)
        self._context.observers.append(heartbeat.note)
        resources.callback(self._context.observers.remove, heartbeat.note)
        return heartbeat


def poll_service(account: Account) -> str:
    """Return the name of the service that polls an account."""
    return f"poll {account.name}"


def _section_key(section: Account | ReceiverSection) -> tuple[object, ...]:
    # With repr(), because 1 == True in Python, but not in a template.
    return section, repr(section), file_version(section.ca_file)


def api_of(account: Account, page_size: int) -> ApiSettings:
    """Return the address and credentials of an account's API."""
    return ApiSettings(
        account.name, account.base_url, account.api_version, account.api_key_secret, page_size
    )


def limits_of(poll: Poll) -> RateLimits:
    """Return the rate limits of each account's API requests."""
    return RateLimits(poll.concurrency, poll.requests_per_second)


def http_client_of(section: Account | ReceiverSection) -> HttpClient:
    """Return the HTTP client of an account or a receiver; the caller closes it.

    Raises OSError when the ca_file cannot be used.
    """
    proxy, url = None, section.proxy_url
    if url is not None:
        proxy = TextSecret(url.get_secret_value(), "proxy_url", check_proxy_url)
    return HttpClient(ca_file=section.ca_file, proxy=proxy)


def series_options(account: Account, metrics: Metrics) -> SeriesOptions:
    """Return which data series an account has."""
    most = metrics.max_fine_tune_series if metrics.per_fine_tune else 0
    return SeriesOptions(metrics.labels, tuple(account.labels.items()), most)


def route_of(section: CommonReceiver, alerts: Alerts) -> Route:
    """Return which events a receiver gets. An Alertmanager gets troubles only."""
    given = section.match.model_dump(exclude_none=True)
    # DOTALL: the names of fine-tunes may contain line breaks, and `.*` has to match them.
    match = {key: re.compile(pattern, re.DOTALL) for key, pattern in given.items()}
    types = frozenset().union(*(SUBSCRIPTIONS[name] for name in events_of(section, alerts)))
    if isinstance(section, AlertmanagerReceiver):
        types &= TROUBLES
    return Route(section.name, types, match)


def retention_of(config: Config) -> float:
    """Return how long settled events are kept, in seconds.

    At least as long as an Alertmanager needs their rows: while the alert is held and resolved.
    """
    holds = (s.hold for s in config.receivers if isinstance(s, AlertmanagerReceiver))
    return max(config.storage.retention, max(holds, default=0.0) + RESOLVED_SECONDS)


async def open_receiver(section: ReceiverSection, resources: AsyncExitStack) -> Receiver:
    """Return the receiver of a section; ``resources`` closes its connections.

    Raises OSError when the ca_file cannot be used.
    """
    if not isinstance(section, AlertmanagerReceiver):
        return receiver_of(section, await resources.enter_async_context(http_client_of(section)))
    members = []
    for url in section.urls:
        # One client per member: each post closes the connections that it used.
        http_client = await resources.enter_async_context(http_client_of(section))
        address = url.get_secret_value().strip().rstrip("/") + ALERTS_PATH
        secret = TextSecret(address, "urls", check_web_url)
        members.append(Member(Endpoint(http_client, secret, section.timeout)))
    return Alertmanager(section.name, members, section.hold)


def receiver_of(
    section: SlackReceiver | WebhookReceiver | AppriseReceiver, http_client: HttpClient
) -> Receiver:
    """Return the receiver of a section that has one URL."""
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
