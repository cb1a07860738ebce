"""Requests that configured receivers send."""

import base64
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.agent.build import open_receiver
from exporter.config import load
from exporter.config.receivers import SlackReceiver, WebhookReceiver
from exporter.core.compose import build_message
from exporter.core.model import OutboxMessage
from exporter.receivers.alerts import AlertLabels
from tests.fakes.answers import answer
from tests.fakes.server import Received, Server
from tests.receivers.alertmanager_v4 import assert_payload
from tests.receivers.sample_events import AT, FAILED, SETTINGS


async def send(folder: Path, **section: Any) -> Received:
    """Send a failure by a receiver with this configuration, and return its request."""
    with Server(answer(200, b"ok")) as server:
        receiver = {"name": "ops", "type": "webhook", "url": server.base_url, **section}
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({"receivers": [receiver]}), encoding="utf-8")
        [configured] = load(path, {"CARTESIA_API_KEY": "k", "TEAM": "voices"}).receivers
        assert isinstance(configured, SlackReceiver | WebhookReceiver)

        async with AsyncExitStack() as resources:
            built = await open_receiver(configured, AlertLabels(), resources)
            body = built.render(build_message([FAILED], SETTINGS))
            await built.send(OutboxMessage("evt_1", "ops", body, 1, AT), AT)
    [request] = server.requests
    return request


async def test_a_webhook_sends_the_standard_body_by_default(tmp_path):
    assert json.loads((await send(tmp_path)).body)["type"] == "fine_tune.failed"


async def test_a_webhook_sends_alertmanagers_payload(tmp_path):
    payload = json.loads((await send(tmp_path, format="alertmanager")).body)
    assert_payload(payload)
    assert payload["receiver"] == "ops"


async def test_a_webhook_sends_the_operators_template(tmp_path):
    template = {"content": "{{ title }}", "flags": 4}
    body = (await send(tmp_path, format="template", template=template)).body
    assert json.loads(body) == {"content": "Fine-tune failed: My voice", "flags": 4}


async def test_a_slack_message_begins_with_the_operators_line(tmp_path):
    request = await send(tmp_path, type="slack", text="*{{ data.account }}*", mention="<!here>")
    assert json.loads(request.body)["text"].startswith("<!here> *default*\n")


@pytest.mark.parametrize("format_", ["standard", "alertmanager", "template"])
async def test_a_webhook_sends_its_headers_in_every_format(tmp_path, format_):
    (tmp_path / "token").write_text("t0ken\n", encoding="utf-8")
    template = {"template": {"x": "{{ title }}"}} if format_ == "template" else {}
    headers = {"X-Team": {"env": "TEAM"}, "X-Key": "k3y"}
    request = await send(
        tmp_path, format=format_, bearer_token_file="token", headers=headers, **template
    )
    assert request.headers["authorization"] == "Bearer t0ken"
    assert (request.headers["x-team"], request.headers["x-key"]) == ("voices", "k3y")
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["content-type"] == "application/json"


async def test_a_webhook_sends_basic_authentication(tmp_path):
    request = await send(tmp_path, basic_auth={"username": "agent", "password": "pass"})
    encoded = request.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"agent:pass"
