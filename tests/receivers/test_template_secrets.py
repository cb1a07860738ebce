"""Secrets of a template are filled in when a message is sent; its stored body has placeholders."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from msgspec.structs import replace as changed
from standardwebhooks import Webhook as Verifier

from exporter.core.compose import build_message
from exporter.core.retry import Outcome
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.template import TemplateBody, with_secrets
from exporter.receivers.template_check import body_faults
from exporter.receivers.webhook import Webhook
from tests.fakes.answers import answer
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server
from tests.receivers.sample_events import AT, FAILED, SETTINGS, VOICE, delivery

KEY = 'R0uting"key\\'
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"
TEMPLATE = {
    "routing_key": "{{ secrets.routing }}",
    "text": "{{ title }}: Bearer {{ secrets.routing }}",
    "other": [1, {"name": "{% if data.fine_tune %}{{ data.fine_tune.name }}{% endif %}"}],
}


def rendered(name: str = "Ada") -> bytes:
    event = replace(FAILED, fine_tune=changed(VOICE, name=name))
    return TemplateBody(TEMPLATE, ["routing"])(build_message([event], SETTINGS), minimal=False)


async def test_the_request_has_the_secret_and_its_signature_is_over_what_is_sent():
    body, secret = rendered(), FakeSecret(KEY)
    assert KEY not in body.decode()
    assert json.loads(body)["text"] == "Fine-tune failed: Ada: Bearer \0routing\0"
    with Server(answer()) as server:
        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            webhook = Webhook(
                "ops", endpoint, FakeSecret(SIGNING), template_secrets={"routing": secret}
            )
            for _ in range(2):
                assert (await webhook.send(delivery(body), AT)).outcome is Outcome.DELIVERED
            secret.value = None
            unreadable = await webhook.send(delivery(body), AT)
    first, second = server.requests
    assert first.body == second.body
    sent = json.loads(first.body)
    assert (sent["routing_key"], sent["text"][-len(KEY) :]) == (KEY, KEY)
    assert sent["other"] == [1, {"name": "Ada"}]
    headers = {name: value for name, value in first.headers.items() if name.startswith("webhook-")}
    signed = Verifier(SIGNING).sign(headers["webhook-id"], _at(headers), first.body.decode())
    assert headers["webhook-signature"] == signed
    assert (unreadable.outcome, unreadable.reason) == (
        Outcome.ENDPOINT,
        "cannot read /etc/cartesia/key: no such file",
    )


def _at(headers):
    return datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)


@given(st.text(st.sampled_from("\0routing\\u0{} ."), max_size=40))
def test_no_text_from_outside_is_taken_for_a_placeholder(name):
    filled = json.loads(with_secrets(rendered(name), {"routing": FakeSecret(KEY)}))
    assert KEY not in filled["other"][1]["name"]
    assert filled["routing_key"] == KEY


@pytest.mark.parametrize(
    "text",
    [
        "{{ secrets.routing|upper }}",
        "{{ secrets.routing ~ title }}",
        "{{ secrets['routing'] }}",
        "{{ secrets }}",
        "{{ secrets.other }}",
        "{% set x = secrets.routing %}{{ x }}",
        "{% for each in secrets %}{{ each }}{% endfor %}",
        "{% if secrets.routing %}x{% endif %}",
    ],
)
def test_a_secret_can_be_printed_only(text):
    [(path, fault)] = body_faults({"a": text}, ["routing"])
    assert path == ("a",)
    assert "must use a secret as {{ secrets.NAME }} only" in fault


def test_a_template_with_secrets_has_no_fault():
    assert body_faults(TEMPLATE, ["routing"]) == []


def test_a_template_without_secrets_knows_none():
    [(_, fault)] = body_faults({"a": "{{ secrets.routing }}"})
    assert "give them as template_secrets" in fault
