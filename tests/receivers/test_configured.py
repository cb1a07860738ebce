"""What a receiver's section says is what goes out."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.agent.build import http_client_of, receiver_of
from exporter.config import SlackReceiver, WebhookReceiver, load
from exporter.core.message import build_message
from exporter.core.model import OutboxMessage
from tests.fakes.answers import answer
from tests.fakes.server import Received, Server
from tests.receivers.alertmanager_v4 import assert_payload
from tests.receivers.sample_events import AT, FAILED, LINK_TEMPLATES


def sent(folder: Path, **section: Any) -> Received:
    """Tell a receiver of this section of a failure, and return the request that it made."""
    with Server(answer(200, b"ok")) as server:
        receiver = {"name": "ops", "type": "webhook", "url": server.base_url, **section}
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({"receivers": [receiver]}), encoding="utf-8")
        [configured] = load(path, {"CARTESIA_API_KEY": "k", "TEAM": "voices"}).receivers
        assert isinstance(configured, SlackReceiver | WebhookReceiver)

        async def run() -> None:
            async with http_client_of(configured) as http_client:
                made = receiver_of(configured, http_client)
                body = made.render(build_message([FAILED], LINK_TEMPLATES))
                await made.send(OutboxMessage("evt_1", "ops", body, 1, AT), AT)

        asyncio.run(run())
    [request] = server.requests
    return request


def test_a_webhook_sends_the_standard_body_unless_it_is_told_otherwise(tmp_path):
    assert json.loads(sent(tmp_path).body)["type"] == "fine_tune.failed"


def test_a_webhook_sends_alertmanagers_payload(tmp_path):
    payload = json.loads(sent(tmp_path, format="alertmanager").body)
    assert_payload(payload)
    assert payload["receiver"] == "ops"


def test_a_webhook_sends_the_operators_template(tmp_path):
    template = {"content": "{{ title }}", "flags": 4}
    body = sent(tmp_path, format="template", template=template).body
    assert json.loads(body) == {"content": "Fine-tune failed: My voice", "flags": 4}


def test_a_slack_message_begins_with_the_operators_line(tmp_path):
    body = sent(tmp_path, type="slack", text="*{{ data.account }}*", mention="<!here>").body
    assert json.loads(body)["text"] == "<!here> *default*"


@pytest.mark.parametrize("format_", ["standard", "alertmanager", "template"])
def test_a_webhook_is_let_in_and_names_its_message_in_every_format(tmp_path, format_):
    (tmp_path / "token").write_text("t0ken\n", encoding="utf-8")
    template = {"template": {"x": "{{ title }}"}} if format_ == "template" else {}
    headers = {"X-Team": {"env": "TEAM"}, "X-Key": "k3y"}
    request = sent(tmp_path, format=format_, bearer_token_file="token", headers=headers, **template)
    assert request.headers["authorization"] == "Bearer t0ken"
    assert (request.headers["x-team"], request.headers["x-key"]) == ("voices", "k3y")
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["content-type"] == "application/json"


def test_a_webhook_is_let_in_by_a_password(tmp_path):
    request = sent(tmp_path, basic_auth={"username": "agent", "password": "pass"})
    encoded = request.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"agent:pass"
