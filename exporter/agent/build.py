"""Specs of the agent's configured services: what each is made of, and how it is built."""

import random
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from prometheus_client import CollectorRegistry

from exporter.agent.heartbeat import Heartbeat
from exporter.cartesia.client import ApiSettings, CartesiaClient, ClientMetrics, RateLimits
from exporter.config.models import Account, Alerts, Config, Poll, events_of
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
from exporter.core.clock import Clock
from exporter.core.events import SUBSCRIPTIONS, TROUBLES
from exporter.core.labels import label_value
from exporter.core.links import LinkTemplates
from exporter.core.match import AccountLabels, Match
from exporter.core.mentions import Mentions, mentioning_types
from exporter.core.message import MessageSettings
from exporter.core.model import AccountKey
from exporter.core.ownership import ACCOUNT, AGENT, RECEIVER, Claim, Item
from exporter.core.routing import Route
from exporter.core.secret import Secret
from exporter.core.status import canonical_status
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.http_client import HttpClient, file_version
from exporter.polling.metrics import PollMetrics
from exporter.polling.poller import Poller, PollSettings
from exporter.receivers.receiver import Endpoint, Receiver
from exporter.store.accounts import Accounts
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from exporter.supervisor import Service

if TYPE_CHECKING:
    from exporter.receivers.alertmanager import Alertmanager
    from exporter.receivers.alerts import AlertLabels
    from exporter.receivers.payload import Body
    from exporter.receivers.slack import Slack
    from exporter.receivers.webhook import Webhook
    from exporter.web.view import ViewSettings

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic, random.random)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How a service is built. A reload rebuilds a service if its ``key`` has changed.

    The replica that owns ``item`` runs it. ``build`` returns the service, which writes under the
    given claim, and enters what it holds open into the stack. It raises OSError when a certificate
    file cannot be used.
    """

    item: Item
    key: object = field(repr=False)
    build: Callable[[AsyncExitStack, Claim | None], Awaitable[Service]] = field(
        repr=False, compare=False
    )


class AgentContext(Struct, frozen=True):
    """What the services of an agent share. It does not change on reload.

    Users reach the agent's pages at ``external_url``. ``publish`` publishes the status of an
    account and calls the ``observers`` with it; ``withdraw`` removes that of the account of a name.
    ``route`` returns the receivers of an event by the current configuration, ``account_labels`` the
    labels of its accounts. ``wake`` is called
    after a commit that changed the outbox. For the others see Heartbeat.
    """

    database: Database
    external_url: str | None
    publish: Callable[[AccountStatus], None]
    withdraw: Callable[[str], None]
    observers: list[Callable[[AccountStatus], None]]
    route: Router
    account_labels: Callable[[], AccountLabels]
    wake: Callable[[], None]
    polled_here: Callable[[], Collection[str]]
    all_fresh: Callable[[], bool]
    oldest_pending_age: Callable[[], Awaitable[float]]


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
        if "heartbeat_url" in config.secrets:
            specs["heartbeat"] = self._heartbeat(config.secrets["heartbeat_url"], config)
        return specs

    def _deliverer(self, section: ReceiverSection, config: Config) -> ServiceSpec:
        alerts, context = config.alerts, self._context
        settings = DeliverySettings(
            context.database.store_id,
            alerts.group_wait,
            section.group_interval,
            alerts.digest_threshold,
            section.max_age,
            message_settings(section, alerts, context.external_url),
            context.route,
            context.wake,
            context.account_labels,
        )

        names = tuple(each.name for each in config.receivers)
        labels = alert_labels(config)
        # Only what uses the labels: the others must not be rebuilt.
        sends_alerts = section.type == "alertmanager" or (
            isinstance(section, WebhookReceiver) and section.format == "alertmanager"
        )
        depends_on: tuple[object, ...] = (labels, names) if sends_alerts else ()
        if isinstance(section, SlackReceiver) and section.mentions:
            depends_on = (labels.account_labels,)

        async def build(resources: AsyncExitStack, claim: Claim | None) -> Service:
            database, metrics = context.database, self._delivery_metrics
            if isinstance(section, AlertmanagerReceiver):
                from exporter.delivery.alertmanager import AlertDeliverer  # noqa: PLC0415 - its type

                cluster = await _open_alertmanager(section, labels, resources)
                alert_outbox = AlertOutbox(database, section.name, names, claim)
                return AlertDeliverer(cluster, alert_outbox, settings, metrics, SYSTEM_CLOCK)
            receiver = await open_receiver(section, labels, resources)
            outbox = Outbox(database, section.name, claim)
            return Deliverer(receiver, outbox, settings, metrics, SYSTEM_CLOCK)

        item = Item(RECEIVER, section.name)
        return ServiceSpec(item, (settings, depends_on, *_section_key(section)), build)

    def _poller(self, account: Account, config: Config) -> ServiceSpec:
        context, poll, metrics = self._context, config.poll, config.metrics
        most_fine_tunes = metrics.max_fine_tune_series if metrics.per_fine_tune else 0
        settings = PollSettings(
            interval=poll.interval,
            timeout=poll.timeout,
            rules=Rules(
                context.database.store_id,
                AccountKey(account.name, account.base_url),
                config.alerts.first_run,
                metrics.max_models,
                config.alerts.stuck_after,
                metrics.labels,
                frozenset(map(canonical_status, config.alerts.failed_statuses)),
            ),
            failing_after=config.alerts.poll_failing_after,
            publish=context.publish,
            withdraw=self._withdraw_account,
            route=context.route,
            wake=context.wake,
            stale_after=poll.stale_after,
            options=SeriesOptions(
                metrics.labels,
                tuple((name, label_value(text)) for name, text in account.labels.items()),
                most_fine_tunes,
            ),
        )

        async def build(resources: AsyncExitStack, claim: Claim | None) -> Service:
            store_id = context.database.store_id
            client = await open_client(account, poll, self._client_metrics, resources, store_id)
            accounts = Accounts(context.database, claim)
            return Poller(client, accounts, settings, self._poll_metrics, SYSTEM_CLOCK)

        item = Item(ACCOUNT, account.name)
        return ServiceSpec(item, (settings, poll, *_section_key(account)), build)

    def _withdraw_account(self, account: str) -> None:
        self._context.withdraw(account)
        self._client_metrics.forget(account)

    def _heartbeat(self, url: Secret, config: Config) -> ServiceSpec:
        context, accounts = self._context, tuple(account.name for account in config.accounts)
        interval = config.poll.interval

        async def build(resources: AsyncExitStack, _: Claim | None) -> Service:
            http_client = await resources.enter_async_context(HttpClient())
            age = context.oldest_pending_age
            heartbeat = Heartbeat(
                url,
                http_client,
                context.polled_here,
                context.all_fresh,
                age,
                SYSTEM_CLOCK.monotonic,
                interval,
            )
            context.observers.append(heartbeat.note)
            resources.callback(context.observers.remove, heartbeat.note)
            return heartbeat

        return ServiceSpec(AGENT, (url, accounts, interval), build)


def view_settings(config: Config) -> "ViewSettings":
    """Return what the pages need of a configuration."""
    from exporter.store.overview import ReceiverSummary  # noqa: PLC0415 - see web.application
    from exporter.web.view import ViewSettings, WatchedAccount  # noqa: PLC0415

    return ViewSettings(
        tuple(
            WatchedAccount(each.name, each.base_url, tuple(each.labels.items()))
            for each in config.accounts
        ),
        tuple(
            ReceiverSummary(
                each.name,
                each.type,
                tuple(events_of(each, config.alerts)),
                each.group_interval,
            )
            for each in config.receivers
        ),
        config.poll.interval,
        config.poll.timeout,
        config.poll.stale_after,
        config.storage.retention,
        config.alerts.stuck_after,
        config.alerts.playground_url,
    )


def poll_service(account: Account) -> str:
    """Return the name of the service that polls an account."""
    return f"poll {account.name}"


def _section_key(section: Account | ReceiverSection) -> tuple[object, ...]:
    # With repr(), because 1 == True in Python, but not in a template.
    return section, repr(section), file_version(section.ca_file)


async def open_client(
    account: Account,
    poll: Poll,
    metrics: ClientMetrics,
    resources: AsyncExitStack,
    store_id: str = "",
) -> CartesiaClient:
    """Return the API client of an account; ``resources`` closes its connections.

    Its listings have a fingerprint of the API key if there is a ``store_id``. Raises OSError when
    the ca_file cannot be used.
    """
    http_client = await resources.enter_async_context(_http_client(account))
    key, version = account.secrets["api_key"], account.api_version
    api = ApiSettings(account.name, account.base_url, version, key, poll.page_size, store_id)
    limits = RateLimits(poll.concurrency, poll.requests_per_second)
    return CartesiaClient(http_client, api, metrics, SYSTEM_CLOCK, limits)


def _http_client(section: Account | ReceiverSection) -> HttpClient:
    proxy, url = None, section.proxy_url
    if url is not None:
        proxy = TextSecret(url.get_secret_value(), "proxy_url", check_proxy_url)
    return HttpClient(ca_file=section.ca_file, proxy=proxy)


def route_of(section: CommonReceiver, config: Config) -> Route:
    """Return which events a receiver gets. An Alertmanager gets troubles only."""
    words = events_of(section, config.alerts)
    types = frozenset().union(*(SUBSCRIPTIONS[word] for word in words))
    if section.TROUBLES_ONLY:
        types &= TROUBLES
    match = Match.of(section.match.patterns)
    return Route(section.name, types, match, account_labels(config), section.otherwise)


def account_labels(config: Config) -> AccountLabels:
    """Return the labels of each account, by its name."""
    return {account.name: account.labels for account in config.accounts}


def message_settings(
    section: CommonReceiver, alerts: Alerts, external_url: str | None
) -> MessageSettings:
    """Return what the configuration says about the messages of a receiver."""
    return MessageSettings(
        LinkTemplates(alerts.playground_url, external_url, alerts.grafana_url),
        alerts.severities.model_dump(),
        events_of(section, alerts),
        has_match=section.otherwise or bool(section.match.patterns),
    )


def alert_labels(config: Config) -> "AlertLabels":
    """Return what the configuration adds to the labels of alerts."""
    from exporter.receivers.alerts import AlertLabels  # noqa: PLC0415 - as in open_receiver

    return AlertLabels(config.alerts.severities.model_dump(), account_labels(config))


async def open_receiver(
    section: ReceiverSection, labels: "AlertLabels", resources: AsyncExitStack
) -> Receiver:
    """Return the receiver of a section; ``resources`` closes its connections.

    Imports the module of its type, so that a start imports no other. Raises OSError when the
    ca_file cannot be used.
    """
    if isinstance(section, AlertmanagerReceiver):
        return await _open_alertmanager(section, labels, resources)
    # Also for Apprise: this checks its ca_file.
    http_client = await resources.enter_async_context(_http_client(section))
    if isinstance(section, AppriseReceiver):
        from exporter.receivers.apprise import Apprise  # noqa: PLC0415

        return Apprise(section.name, section.secrets["url"], section.timeout, section.ca_file)
    endpoint = Endpoint(http_client, section.secrets["url"], section.timeout)
    if isinstance(section, WebhookReceiver):
        return _webhook(section, endpoint, labels)
    return _slack(section, endpoint, labels)


async def _open_alertmanager(
    section: AlertmanagerReceiver, labels: "AlertLabels", resources: AsyncExitStack
) -> "Alertmanager":
    from exporter.receivers.alertmanager import (  # noqa: PLC0415 - as in open_receiver
        ALERTS_PATH,
        Alertmanager,
        Member,
    )

    members = []
    for url in section.urls:
        # One client per member: each post closes the connections that it used.
        http_client = await resources.enter_async_context(_http_client(section))
        address = url.get_secret_value().strip().rstrip("/") + ALERTS_PATH
        secret = TextSecret(address, "urls", check_web_url)
        members.append(Member(http_client, secret, section.timeout))
    return Alertmanager(section.name, members, section.hold, labels)


def _slack(section: SlackReceiver, endpoint: Endpoint, labels: "AlertLabels") -> "Slack":
    from exporter.receivers.slack import Slack  # noqa: PLC0415 - as in open_receiver

    text = None
    if section.text is not None:
        from exporter.receivers.template import Template  # noqa: PLC0415 - imports Jinja

        text = Template(section.text)
    mentions = Mentions(
        mentioning_types(section.mention_events),
        section.mention or "",
        tuple((Match.of(rule.match.patterns), rule.mention) for rule in section.mentions),
        labels.account_labels,
    )
    return Slack(section.name, endpoint, mentions, text)


def _webhook(section: WebhookReceiver, endpoint: Endpoint, labels: "AlertLabels") -> "Webhook":
    from exporter.receivers.alerts import AlertmanagerBody  # noqa: PLC0415 - as in open_receiver
    from exporter.receivers.payload import standard_body  # noqa: PLC0415
    from exporter.receivers.webhook import Webhook, basic, bearer  # noqa: PLC0415

    body: Body = standard_body
    if section.format == "alertmanager":
        body = AlertmanagerBody(section.name, labels)
    elif section.template is not None:
        from exporter.receivers.template import TemplateBody  # noqa: PLC0415 - imports Jinja

        body = TemplateBody(section.template, tuple(section.template_secrets))
    headers: dict[str, Callable[[], str]] = {
        name: value.secrets["text"] for name, value in section.headers.items()
    }
    token, login = section.secrets.get("bearer_token"), section.basic_auth
    if token is not None:
        headers["Authorization"] = bearer(token)
    elif login is not None:
        headers["Authorization"] = basic(login.username, login.secrets["password"])
    filled = {name: value.secrets["text"] for name, value in section.template_secrets.items()}
    return Webhook(section.name, endpoint, section.secrets.get("secret"), body, headers, filled)
