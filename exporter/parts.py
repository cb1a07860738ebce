"""Sections of the configuration made into the parts that talk to others."""

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from exporter.cartesia.client import Api
from exporter.config import Account, Alerts, AppriseReceiver, SlackReceiver, WebhookReceiver
from exporter.config.receivers import CommonReceiver
from exporter.config.sources import TextSecret
from exporter.config.values import check_proxy_url
from exporter.core.clock import Clock
from exporter.core.routing import TYPES, EventName, Interest
from exporter.core.secret import Secret
from exporter.http import Exchange
from exporter.receivers.alertmanager_body import AlertmanagerBody
from exporter.receivers.apprise import Apprise
from exporter.receivers.receiver import Endpoint, Receiver
from exporter.receivers.sandbox import Template
from exporter.receivers.slack import Slack
from exporter.receivers.standard import Body, standard_body
from exporter.receivers.template import NAMES, TemplateBody
from exporter.receivers.webhook import Basic, Bearer, Webhook

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic, random.random)

BuiltReceiver = SlackReceiver | WebhookReceiver | AppriseReceiver
"""The kinds of receiver that this version sends to."""


def exchange_of(section: Account | BuiltReceiver) -> Exchange:
    """Return the connections of an account or a receiver, to be closed at the end.

    Raises OSError when its ca_file can't be used.
    """
    return Exchange(ca_file=section.ca_file, proxy=_proxy(section))


def _proxy(section: Account | BuiltReceiver) -> Secret | None:
    url = section.proxy_url
    return None if url is None else TextSecret(url.get_secret_value(), "proxy_url", check_proxy_url)


def api_of(account: Account, page_size: int) -> Api:
    """Return which API an account asks, and as whom."""
    return Api(
        account.name, account.base_url, account.api_version, account.api_key_secret, page_size
    )


def interest_of(section: CommonReceiver, alerts: Alerts) -> Interest:
    """Return what a receiver is told: its own ``events``, else ``alerts.events`` and agent."""
    own = section.events
    names: Sequence[EventName] = (*alerts.events, "agent") if own is None else own
    given = section.match.model_dump(exclude_none=True)
    # DOTALL: a pattern such as `.*` must match a name of two lines too, or its failure is not told.
    match = {key: re.compile(pattern, re.DOTALL) for key, pattern in given.items()}
    return Interest(section.name, frozenset().union(*(TYPES[name] for name in names)), match)


def receiver_of(section: BuiltReceiver, exchange: Exchange) -> Receiver:
    """Return the receiver of a section."""
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
