"""Defaults, limits and secrets of the configuration's sections."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exporter.config.models import Account, Config, Poll
from exporter.config.receivers import (
    AlertmanagerReceiver,
    AppriseReceiver,
    SlackReceiver,
    WebhookReceiver,
)
from exporter.config.secrets import ConfigContext

ACCOUNT = {"api_key": "sk_car_hunter2"}
SLACK = {"name": "s", "type": "slack", "url": "https://hunter2.example"}
WEBHOOK = {"name": "w", "type": "webhook", "url": "https://hunter2.example"}


def config(**keys: Any) -> Config:
    return Config.model_validate({"accounts": [ACCOUNT], **keys})


def test_every_default():
    found = config(receivers=[SLACK, WEBHOOK])
    assert dict(found.accounts[0]) | {"api_key": None} == {
        "name": "default",
        "api_key": None,
        "api_key_file": None,
        "api_key_env": None,
        "allow_http": False,
        "base_url": "https://api.cartesia.ai",
        "api_version": "2026-03-01",
        "labels": {},
        "ca_file": None,
        "proxy_url": None,
    }
    assert dict(found.poll) == {
        "interval": 60,
        "timeout": 50,
        "page_size": 100,
        "concurrency": 8,
        "requests_per_second": 0,
        "stale_after": 300,
    }
    assert dict(found.metrics) == {
        "labels": ("model_id",),
        "max_models": 50,
        "per_fine_tune": False,
        "max_fine_tune_series": 1000,
    }
    assert found.alerts.severities.model_dump() == {
        "failed": "warning",
        "stuck": "warning",
        "agent": "critical",
    }
    assert dict(found.alerts) | {"severities": None} == {
        "severities": None,
        "events": ("failed",),
        "failed_statuses": ("failed",),
        "stuck_after": 6 * 3600,
        "first_run": "summary",
        "group_wait": 5,
        "digest_threshold": 5,
        "playground_url": "https://play.cartesia.ai/pro-voice-cloning",
        "grafana_url": None,
        "poll_failing_after": 600,
    }
    assert {key: value for key, value in found.storage if value is not None} == {
        "path": Path("data/state.db"),
        "lease": 15,
        "pool": 4,
        "retention": 90 * 86400,
    }
    assert found.heartbeat_url is None


def test_every_default_of_receivers():
    slack, webhook = config(receivers=[SLACK, WEBHOOK]).receivers
    assert isinstance(slack, SlackReceiver)
    assert isinstance(webhook, WebhookReceiver)
    for receiver in (slack, webhook):
        assert (receiver.timeout, receiver.max_age, receiver.events) == (15, 72 * 3600, None)
        assert (receiver.ca_file, receiver.proxy_url) == (None, None)
        assert not receiver.allow_http
        assert receiver.match.patterns == {}
        assert not receiver.otherwise
    assert slack.mention_events == ("failed", "stuck", "agent")
    assert slack.mentions == ()
    assert (slack.group_interval, webhook.group_interval) == (300, 0)
    assert (slack.mention, slack.text) == (None, None)
    assert (webhook.format, webhook.template, webhook.basic_auth) == ("standard", None, None)
    assert webhook.secrets.keys() == {"url"}
    assert webhook.headers == {}
    keys = {"name": "a", "type": "alertmanager", "urls": ["http://alertmanager:9093"]}
    (alertmanager,) = config(receivers=[keys]).receivers
    assert isinstance(alertmanager, AlertmanagerReceiver)
    assert (alertmanager.hold, alertmanager.group_interval) == (3600, 0)


@pytest.mark.parametrize(
    ("interval", "timeout", "stale_after"),
    [
        ("1s", 5 / 6, 300),
        ("1m", 50, 300),
        ("2m", 100, 360),
        ("6m", 300, 1080),
        ("1d", 300, 3 * 86400),
    ],
)
def test_timeout_and_stale_after_depend_on_the_interval(interval, timeout, stale_after):
    poll = Poll.model_validate({"interval": interval})
    assert (poll.timeout, poll.stale_after) == (timeout, stale_after)


@pytest.mark.parametrize(
    ("section", "key", "valid", "invalid"),
    [
        ("poll", "interval", ["1s", "1d"], ["999ms", "1d1s"]),
        ("poll", "timeout", ["100ms", "59s999ms"], ["99ms", "60s"]),
        ("poll", "page_size", [1, 100], [0, 101, "5", 5.5]),
        ("poll", "concurrency", [1, 16], [0, 17]),
        ("poll", "requests_per_second", [0, 0.5, 1000], [-1, 1001, float("nan"), "5", True]),
        ("poll", "stale_after", ["2m", "30d"], ["119s", "31d"]),
        ("metrics", "max_models", [1, 100_000], [0, 100_001, True]),
        ("metrics", "max_fine_tune_series", [1, 100_000], [0, 100_001]),
        ("metrics", "labels", [[], ["model_id", "language", "dataset"]], [["name"], "model_id"]),
        (
            "alerts",
            "failed_statuses",
            [[], ["failed"], ["Error", "failed "], ["x" * 100], [f"s{n}" for n in range(20)]],
            [
                *(["failed", each] for each in ("completed", "Training", " created", "UNKNOWN")),
                *([each] for each in ("", " \n", "x" * 101, 5, None)),
                *(["error", "ERROR "], [f"s{n}" for n in range(21)], "error"),
            ],
        ),
        ("alerts", "group_wait", [0, "0s", "5m"], ["301s", 0.0, False]),
        ("alerts", "digest_threshold", [1, 1000], [0, 1001]),
        ("alerts", "first_run", ["summary", "silent", "alert"], ["Summary", 1]),
        ("alerts", "poll_failing_after", [0, "10m"], ["2y"]),
        (
            "alerts",
            "playground_url",
            ["http://play.example/{id}", "https://play.example/?id={id}"],
            [
                *(
                    "https://play.example/{}",
                    "https://play.example/{id",
                    "https://play.example/{x}",
                ),
                *("https://u:p@play.example", "https://{id}.example/", ""),
            ],
        ),
        (
            "alerts",
            "grafana_url",
            [
                None,
                "http://grafana.example/d/x",
                "https://grafana.example/d/x?var-a={account}&m={model_id}&i={id}&from={from_ms}&to={to_ms}",
            ],
            [
                *("https://grafana.example/{dataset}", "https://grafana.example/d?from={from}"),
                *("https://u:p@grafana.example", "https://{account}.example/", "grafana.example"),
                *("ftp://grafana.example/", "https://grafana.example/{{id}}", ""),
            ],
        ),
        ("storage", "retention", ["1h", "10y"], ["59m", "11y"]),
        ("storage", "lease", ["5s", "5m"], ["4s", "6m"]),
        ("storage", "pool", [1, 32], [0, 33]),
    ],
)
def test_limits_of_keys(section, key, valid, invalid):
    for value in valid:
        config(**{section: {key: value}})
    for value in invalid:
        with pytest.raises(ValidationError):
            config(**{section: {key: value}})


def test_group_interval_is_between_0s_and_1d():
    for valid in (0, "0s", "5m", "1d"):
        config(receivers=[{**SLACK, "group_interval": valid}])
    for invalid in ("86401s", -1, 300, "soon"):
        with pytest.raises(ValidationError):
            config(receivers=[{**SLACK, "group_interval": invalid}])


def test_names_have_1_to_64_plain_characters():
    for name in ("a", "A.b_c-9", "x" * 64):
        config(accounts=[{**ACCOUNT, "name": name}], receivers=[{**SLACK, "name": name}])
    for invalid in ("", "x" * 65, "a b", "é", "a\n", 5):
        for section, item in (("accounts", ACCOUNT), ("receivers", SLACK)):
            with pytest.raises(ValidationError):
                config(**{section: [{**item, "name": invalid}]})


def test_a_trailing_slash_of_the_base_url_is_removed():
    account = Account.model_validate({**ACCOUNT, "base_url": "https://gateway.example/cartesia/"})
    assert account.base_url == "https://gateway.example/cartesia"


def test_http_is_allowed_for_loopback_or_by_allow_http():
    Account.model_validate({**ACCOUNT, "base_url": "http://localhost:8080"})
    Account.model_validate({**ACCOUNT, "base_url": "http://api.example", "allow_http": True})
    config(receivers=[{**WEBHOOK, "url": "http://hunter2.example", "allow_http": True}])
    with pytest.raises(ValidationError, match="must use https"):
        config(receivers=[{**WEBHOOK, "url": "http://hunter2.example"}])


def test_secrets_have_value_and_source(tmp_path):
    (tmp_path / "key").write_text("sk_car_hunter2\n")
    origin = ConfigContext(tmp_path, {"URL": "https://hunter2.example"})
    keys = {
        "accounts": [{"api_key_file": "key"}],
        "receivers": [{"name": "s", "type": "slack", "url_env": "URL"}],
        "heartbeat_url": "https://hunter3.example",
    }
    found = Config.model_validate(keys, context=origin)
    slack = found.receivers[0]
    assert isinstance(slack, SlackReceiver)
    assert found.accounts[0].secrets["api_key"]() == "sk_car_hunter2"
    assert found.accounts[0].secrets["api_key"].source == str(tmp_path / "key")
    assert (slack.secrets["url"](), slack.secrets["url"].source) == (
        "https://hunter2.example",
        "$URL",
    )
    assert found.secrets["heartbeat_url"]() == "https://hunter3.example"


def test_the_source_of_an_inline_secret_is_its_path_in_the_file():
    header = {"headers": {"X-Key": "hunter2"}, "basic_auth": {"username": "a", "password": "b"}}
    found = config(receivers=[SLACK, {**WEBHOOK, **header}])
    found.set_secret_sources()
    webhook = found.receivers[1]
    assert isinstance(webhook, WebhookReceiver)
    assert webhook.basic_auth is not None
    assert found.accounts[0].secrets["api_key"].source == "accounts[default].api_key"
    assert webhook.secrets["url"].source == "receivers[w].url"
    assert webhook.basic_auth.secrets["password"].source == "receivers[w].basic_auth.password"
    assert webhook.headers["X-Key"].secrets["text"]() == "hunter2"


def test_sections_with_equal_keys_are_equal():
    """A reload restarts only what changed, also when the order in the file did."""
    one, other = config(receivers=[SLACK, WEBHOOK]), config(receivers=[WEBHOOK, SLACK])
    one.set_secret_sources()
    other.set_secret_sources()
    assert one.accounts == other.accounts
    assert one.receivers[0] == other.receivers[1]
    changed = config(receivers=[{**SLACK, "url": "https://hunter3.example"}])
    assert one.receivers[0] != changed.receivers[0]


def test_the_configuration_is_immutable():
    with pytest.raises(ValidationError):
        config().poll.interval = 5


def test_an_apprise_url_may_have_any_scheme():
    keys = {"name": "mail", "type": "apprise", "url": "mailto://user:hunter2@example.com"}
    (receiver,) = config(receivers=[keys]).receivers
    assert isinstance(receiver, AppriseReceiver)
    assert receiver.secrets["url"]() == "mailto://user:hunter2@example.com"
    assert receiver.group_interval == 300


def refusal_of(section) -> str:
    with pytest.raises(ValidationError) as caught:
        config(receivers=[section])
    return str(caught.value)


def test_an_apprise_receiver_needs_the_extra(monkeypatch):
    monkeypatch.setattr("exporter.config.receivers.find_spec", {}.get)
    text = refusal_of(
        {"name": "mail", "type": "apprise", "url": "mailto://user:hunter2@example.com"}
    )
    assert "needs the extra: pip install 'cartesia-exporter[apprise]'" in text
    assert "hunter2" not in text


def test_validating_an_apprise_receiver_does_not_import_apprise():
    code = (
        "import asyncio, sys; from contextlib import AsyncExitStack;"
        "from exporter.agent.build import open_receiver;"
        "from exporter.config.receivers import AppriseReceiver as R;"
        "from exporter.receivers.alerts import AlertLabels as L;"
        "s = R.model_validate({'name': 'a', 'type': 'apprise', 'url': 'mailto://a:b@example.com'});"
        "r = asyncio.run(open_receiver(s, L(), AsyncExitStack()));"
        "sys.exit('apprise' in sys.modules or 'requests' in sys.modules or r.name != 'a')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"proxy_url": "http://user:hunter2@proxy.example:3128"},
            "must be left out; Apprise uses HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        ),
        (
            {"url": "json://hunter2.example mailto://hunter2@example.com"},
            "must be one URL; give each service a receiver of its own",
        ),
        ({"url": "json://hunter2.example/,jsons://hunter2.example"}, "must be one URL"),
        ({"url": "json://hunter2.example\njson://hunter2.example"}, "line breaks"),
    ],
)
def test_unsupported_settings_of_an_apprise_receiver_are_refused(keys, text):
    found = refusal_of({"name": "mail", "type": "apprise", "url": "mailto://example.com", **keys})
    assert text in found
    assert "hunter2" not in found
