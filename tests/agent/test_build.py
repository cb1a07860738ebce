"""Routes, limits and retention derived from the configuration."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from exporter.agent import build
from exporter.agent.agent import first_poll_delays
from exporter.agent.build import (
    AgentContext,
    ServiceSpec,
    SpecFactory,
    open_client,
    route_of,
)
from exporter.agent.services import build_services
from exporter.cartesia.client import CartesiaClient, ClientMetrics
from exporter.cartesia.rate_limit import RateLimits
from exporter.config import Config, load
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.core.ownership import ACCOUNT, Claim, Item
from exporter.core.routing import receivers_of
from exporter.core.view import AccountStatus
from exporter.supervisor import Service
from tests.config.config_file import KEY, write_config
from tests.receivers.sample_events import AT
from tests.test_supervisor import FakeService

FILE = """
alerts: {events: [failed, completed]}
receivers:
  - {name: a, type: slack, url: "https://hooks.slack.com/services/x"}
  - {name: b, type: slack, url: "https://hooks.slack.com/services/x", events: [stuck]}
  - {name: c, type: slack, url: "https://hooks.slack.com/services/x", events: []}
  - {name: d, type: slack, url: "https://hooks.slack.com/services/x", match: {name: "A.*"}}
  - {name: e, type: alertmanager, urls: ["http://am:9093"]}
  - {name: f, type: alertmanager, urls: ["http://am:9093"], events: [agent, stuck]}
"""


def event_of(event_type, name="Ada\nof the hotline") -> Event:
    return Event("evt", event_type, "default", AT, FineTune("ft", name))


def receivers(tmp_path, event: Event) -> str:
    config = load(write_config(tmp_path, FILE), KEY)
    routes = [route_of(section, config) for section in config.receivers]
    return "".join(route.receiver for route in routes if route.matches(event))


def test_a_receiver_without_events_gets_those_of_alerts_and_of_the_agent(tmp_path):
    assert receivers(tmp_path, event_of("fine_tune.failed")) == "ade"
    assert receivers(tmp_path, event_of("fine_tune.completed")) == "ad"
    assert receivers(tmp_path, Event("evt", "agent.baseline", "default", AT)) == "ad"


def test_the_events_of_a_receiver_override_those_of_alerts(tmp_path):
    assert receivers(tmp_path, event_of("fine_tune.stuck")) == "bf"


def test_a_pattern_matches_the_whole_name_including_line_breaks(tmp_path):
    assert receivers(tmp_path, event_of("fine_tune.failed", "Bob\nA")) == "ae"


def test_an_alertmanager_gets_troubles_and_no_recoveries(tmp_path):
    for event_type, expected in {
        "fine_tune.removed": "",
        "agent.poll_failing": "adef",
        "agent.poll_recovered": "ad",
    }.items():
        assert receivers(tmp_path, Event("evt", event_type, "default", AT)) == expected  # type: ignore[arg-type]  # str keys


def test_labels_of_the_account_and_otherwise_route_events(tmp_path):
    text = """
        accounts:
          - {name: default, api_key: k, labels: {team: voices}}
          - {name: other, api_key: k, labels: {team: research}}
        receivers:
          - {name: a, type: webhook, url: "https://a.example", match: {label.team: "v.*"}}
          - {name: b, type: webhook, url: "https://b.example", otherwise: true}
    """
    config = load(write_config(tmp_path, text), {})
    routes = [route_of(section, config) for section in config.receivers]
    failed = event_of("fine_tune.failed")
    assert receivers_of(failed, routes) == ["a"]
    assert receivers_of(replace(failed, account="other"), routes) == ["b"]


def changed(base: Config, after: Config) -> set[str]:
    """Return the services that a reload of another configuration would replace."""
    factory = SpecFactory(Mock(AgentContext, external_url=None), CollectorRegistry())
    before, now = factory.specs(base), factory.specs(after)
    return {name for name in before if before[name] != now[name]}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("receivers.0.group_interval", "1m", {"deliver a"}),
        ("receivers.0.mention", "<!here>", {"deliver a"}),
        ("receivers.0.mention_events", ["failed"], {"deliver a"}),
        ("receivers.0.mentions.0.mention", "<!here>", {"deliver a"}),
        ("receivers.0.mentions.0.match", {"label.team": "x"}, {"deliver a"}),
        ("receivers.1.match", {"label.team": ".*"}, {"deliver b"}),
        ("receivers.1.otherwise", True, {"deliver b"}),
        ("alerts.grafana_url", "https://grafana.example/{id}", {"deliver a", "deliver b"}),
        ("accounts.0.labels.team", "other", {"poll default", "deliver a"}),
    ],
)
def test_a_reload_replaces_the_services_whose_keys_changed(tmp_path, path, value, expected):
    mentions = [{"match": {"label.team": "v.*"}, "mention": "<@U1>"}]
    keys: dict[str, Any] = {
        "accounts": [{"api_key": "k", "labels": {"team": "voices"}}],
        "alerts": {},
        "receivers": [
            {"name": "a", "type": "slack", "url": "https://a.example", "mentions": mentions},
            {"name": "b", "type": "slack", "url": "https://b.example", "mention": "<!here>"},
        ],
    }
    base = load(write_config(tmp_path, json.dumps(keys)), {})
    section: Any = keys
    *parents, key = path.split(".")
    for part in parents:
        section = section[int(part) if part.isdigit() else part]
    section[key] = value
    assert changed(base, load(write_config(tmp_path, json.dumps(keys)), {})) == expected


async def test_rate_limits_of_the_configuration(tmp_path, monkeypatch):
    text = "poll: {concurrency: 3, requests_per_second: 0.5}"
    config = load(write_config(tmp_path, text), KEY)
    client = Mock(CartesiaClient)
    monkeypatch.setattr(build, "CartesiaClient", client)
    async with AsyncExitStack() as resources:
        metrics = ClientMetrics(CollectorRegistry())
        await open_client(config.accounts[0], config.poll, metrics, resources)
    assert client.call_args.args[-1] == RateLimits(concurrency=3, per_second=0.5)


def test_labels_of_an_account_have_at_most_200_bytes(tmp_path):
    """Prometheus would drop the whole scrape over a longer value."""
    text = f"accounts: [{{api_key: k, labels: {{team: {'é' * 200}, site: eu}}}}]"
    config = load(write_config(tmp_path, text), {})
    context = Mock(AgentContext)
    key = SpecFactory(context, CollectorRegistry()).specs(config)["poll default"].key
    assert isinstance(key, tuple)
    assert key[0].options.constant == (("team", "é" * 98 + "…"), ("site", "eu"))


def test_first_polls_of_new_pollers_are_spread():
    many = [f"account-{each}" for each in range(500)]
    for accounts, new, interval, delays in (
        ("a", "a", 60, [0]),
        ("ab", "ab", 60, [0, 2.5]),
        ("abcde", "abcde", 60, [0, 1, 2, 3, 4]),
        ("abcd", "abcd", 1, [0, 0.25, 0.5, 0.75]),
        ("abcd", "bd", 60, [0, 2.5]),
        (many, many, 60, [each * 0.02 for each in range(500)]),
        (many, many, 8, [each * 0.016 for each in range(500)]),
    ):
        sections = [{"name": each, "api_key": "k"} for each in accounts]
        config = Config.model_validate({"accounts": sections, "poll": {"interval": f"{interval}s"}})
        built = [f"poll {name}" for name in new]
        expected = dict(zip(built, delays, strict=True))
        assert first_poll_delays(config, ["deliver ops", *built]) == pytest.approx(expected)


async def test_if_a_service_cannot_be_built_the_others_are_closed():
    closed: list[str] = []

    async def build(resources: AsyncExitStack, _: Claim | None) -> Service:
        resources.callback(closed.append, "first")
        return FakeService()

    async def fail(_: AsyncExitStack, claim: Claim | None) -> Service:
        raise OSError("no certificate")

    specs = {
        "first": ServiceSpec(Item(ACCOUNT, "first"), 1, build),
        "second": ServiceSpec(Item(ACCOUNT, "second"), 2, fail),
    }
    with pytest.raises(OSError, match="no certificate"):
        await build_services(specs, None)
    assert closed == ["first"]


async def test_a_closed_heartbeat_observes_no_statuses(tmp_path):
    config = load(write_config(tmp_path, "heartbeat_url: https://hc-ping.com/token"), KEY)
    observers: list[Callable[[AccountStatus], None]] = []
    context = Mock(AgentContext, observers=observers, external_url=None)
    spec = SpecFactory(context, CollectorRegistry()).specs(config)["heartbeat"]
    async with AsyncExitStack() as resources:
        await spec.build(resources, None)
        assert len(observers) == 1
    assert observers == []
