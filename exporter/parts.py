"""Sections of the configuration made into the parts that talk to others."""

import random
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from exporter.cartesia.client import Api, Limits
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
from exporter.config.events import events_of
from exporter.config.receivers import CommonReceiver
from exporter.config.sources import TextSecret
from exporter.config.values import check_proxy_url, check_web_url
from exporter.core.clock import Clock
from exporter.core.firing import RESOLVED_SECONDS
from exporter.core.routing import TROUBLES, TYPES, Interest
from exporter.core.secret import Secret
from exporter.core.view import Shape
from exporter.http import Exchange
from exporter.receivers.alertmanager import ALERTS_PATH, Alertmanager, Member
from exporter.receivers.alertmanager_body import AlertmanagerBody
from exporter.receivers.apprise import Apprise
from exporter.receivers.receiver import Endpoint, Receiver
from exporter.receivers.sandbox import Template
from exporter.receivers.slack import Slack
from exporter.receivers.standard import Body, standard_body
from exporter.receivers.template import NAMES, TemplateBody
from exporter.receivers.webhook import Basic, Bearer, Webhook

_SPREAD_SECONDS: Final = 5.0
"""Within how long after the start the first poll of every account begins."""

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic, random.random)


def exchange_of(section: Account | ReceiverSection) -> Exchange:
    """Return the connections of an account or a receiver, to be closed at the end.

    Raises OSError when its ca_file can't be used.
    """
    return Exchange(ca_file=section.ca_file, proxy=_proxy(section))


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


def shape_of(account: Account, metrics: Metrics) -> Shape:
    """Return which data series an account has."""
    most = metrics.max_fine_tune_series if metrics.per_fine_tune else 0
    return Shape(metrics.labels, tuple(account.labels.items()), most)


def interest_of(section: CommonReceiver, alerts: Alerts) -> Interest:
    """Return what a receiver is told; an Alertmanager what of it is a trouble."""
    given = section.match.model_dump(exclude_none=True)
    # DOTALL: a pattern such as `.*` must match a name of two lines too, or its failure is not told.
    match = {key: re.compile(pattern, re.DOTALL) for key, pattern in given.items()}
    types = frozenset().union(*(TYPES[name] for name in events_of(section, alerts)))
    if isinstance(section, AlertmanagerReceiver):
        types &= TROUBLES
    return Interest(section.name, types, match)


async def open_receiver(section: ReceiverSection, resources: AsyncExitStack) -> Receiver:
    """Return the receiver of a section; its connections are closed with ``resources``.

    Raises OSError when its ca_file can't be used.
    """
    if not isinstance(section, AlertmanagerReceiver):
        return receiver_of(section, await resources.enter_async_context(exchange_of(section)))
    members = []
    for url in section.urls:
        # Connections of its own: each post closes those that it was sent over.
        exchange = await resources.enter_async_context(exchange_of(section))
        secret = _alerts_url(url.get_secret_value())
        members.append(Member(Endpoint(exchange, secret, section.timeout)))
    return Alertmanager(section.name, members, section.hold)


def _alerts_url(url: str) -> Secret:
    return TextSecret(url.strip().rstrip("/") + ALERTS_PATH, "urls", check_web_url)


def receiver_of(
    section: SlackReceiver | WebhookReceiver | AppriseReceiver, exchange: Exchange
) -> Receiver:
    """Return the receiver of a section that posts to one place."""
    if isinstance(section, AppriseReceiver):
        return Apprise(section.name, section.url_secret, section.timeout, section.ca_file)
    endpoint = Endpoint(exchange, section.url_secret, section.timeout)
    if isinstance(section, SlackReceiver):
        text = None if section.text is None else Template(section.text, NAMES)
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
