"""Signed requests, verified by the library that consumers use."""

import json
import time

import pytest
from standardwebhooks import Webhook as Consumer
from standardwebhooks import WebhookVerificationError

from exporter.core.compose import build_message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.webhook import Webhook
from tests.fakes.answers import answer
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Received, Server
from tests.receivers.sample_events import FAILED, SETTINGS, delivery

NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OTHER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
BODY = json.dumps({"type": "fine_tune.failed", "data": {"name": "звук"}}).encode()


async def send(
    secret: FakeSecret | None, *deliveries: OutboxMessage, now: float | None = None
) -> tuple[list[Attempt], list[Received]]:
    """Send the deliveries, with 30 seconds between their times, to a server that accepts them."""
    # A consumer refuses a request that is more than five minutes old.
    start = time.time() if now is None else now

    with Server(answer(204)) as server:
        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            webhook = Webhook("ops", endpoint, secret)
            attempts = [
                await webhook.send(each, start + 30 * number)
                for number, each in enumerate(deliveries)
            ]
    return attempts, server.requests


def verified(request: Received, secret: str) -> object:
    found: object = Consumer(secret).verify(request.body, request.headers)
    return found


async def test_a_consumer_verifies_the_signature():
    now = time.time()
    [attempt], [request] = await send(FakeSecret(NEW), delivery(BODY), now=now)
    assert attempt == Attempt(Outcome.DELIVERED, "answered 204")
    assert verified(request, NEW) == json.loads(BODY)
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["webhook-timestamp"] == str(int(now))
    assert request.headers["content-type"] == "application/json"


async def test_a_consumer_verifies_a_rendered_failure():
    webhook = Webhook("ops", Endpoint(HttpClient(), FakeSecret(""), 10))
    _, [request] = await send(
        FakeSecret(NEW), delivery(webhook.render(build_message([FAILED], SETTINGS)))
    )
    assert json.loads(json.dumps(verified(request, NEW)))["type"] == "fine_tune.failed"


async def test_another_secret_does_not_verify():
    _, [request] = await send(FakeSecret(NEW), delivery(BODY))
    with pytest.raises(WebhookVerificationError):
        verified(request, OTHER)


async def test_a_changed_body_does_not_verify():
    _, [request] = await send(FakeSecret(NEW), delivery(BODY))
    with pytest.raises(WebhookVerificationError):
        Consumer(NEW).verify(request.body + b" ", request.headers)


async def test_during_a_rotation_the_new_and_the_old_secret_verify():
    _, [request] = await send(FakeSecret(f"{NEW}\n{OLD}"), delivery(BODY))
    assert verified(request, NEW) == verified(request, OLD) == json.loads(BODY)
    assert len(request.headers["webhook-signature"].split()) == 2
    with pytest.raises(WebhookVerificationError):
        verified(request, OTHER)


async def test_a_retry_has_the_same_id_and_bytes_and_a_new_signature():
    _, [first, again] = await send(FakeSecret(NEW), delivery(BODY), delivery(BODY))
    assert first.body == again.body == BODY
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert int(again.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 30
    assert verified(again, NEW) == json.loads(BODY)
    assert first.headers["webhook-signature"] != again.headers["webhook-signature"]


async def test_without_a_secret_there_is_no_signature():
    _, [request] = await send(None, delivery(BODY))
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"] == "evt_1"


async def test_a_rotated_secret_signs_the_next_attempt():
    class Rotated(FakeSecret):
        def __call__(self) -> str:
            value = super().__call__()
            self.value = OLD
            return value

    _, [first, second] = await send(Rotated(NEW), delivery(BODY), delivery(BODY))
    assert verified(first, NEW) == verified(second, OLD) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        verified(second, NEW)


async def test_nothing_is_sent_when_the_secret_is_unreadable():
    secret = FakeSecret(NEW)
    secret.value = None
    [attempt], requests = await send(secret, delivery(BODY))
    reason = "cannot read /etc/cartesia/key: no such file"
    assert attempt == Attempt(Outcome.ENDPOINT, reason)
    assert requests == []


async def test_the_status_alone_decides():
    for status, outcome in {
        400: Outcome.PAYLOAD,
        404: Outcome.ENDPOINT,
        410: Outcome.ENDPOINT,
        429: Outcome.THROTTLED,
        503: Outcome.TRANSIENT,
    }.items():
        with Server(answer(status, b"no_service")) as server:
            async with HttpClient() as http_client:
                endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
                attempt = await Webhook("ops", endpoint).send(delivery(BODY), 0.0)
        assert attempt == Attempt(outcome, f"answered {status}")
