"""A signed request, checked by the library that consumers use."""

import asyncio
import json
import time

import pytest
from standardwebhooks import Webhook as Consumer
from standardwebhooks import WebhookVerificationError

from exporter.core.message import build_message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.webhook import Webhook
from tests.fakes.answers import answer
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Received, Server
from tests.receivers.sample_events import FAILED, PAGES, delivery

NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
STRANGER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
BODY = json.dumps({"type": "fine_tune.failed", "data": {"name": "звук"}}).encode()


def sent(
    secret: FakeSecret | None, *deliveries: OutboxMessage, now: float | None = None
) -> tuple[list[Attempt], list[Received]]:
    """Send each delivery, half a minute after the other, to a server that takes them all."""
    # A consumer refuses what is more than five minutes old.
    began = time.time() if now is None else now

    async def run() -> list[Attempt]:
        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            webhook = Webhook("ops", endpoint, secret)
            return [
                await webhook.send(each, began + 30 * number)
                for number, each in enumerate(deliveries)
            ]

    with Server(answer(204)) as server:
        return asyncio.run(run()), server.requests


def verified(request: Received, secret: str) -> object:
    found: object = Consumer(secret).verify(request.body, request.headers)
    return found


def test_a_consumer_verifies_the_signature():
    now = time.time()
    [attempt], [request] = sent(FakeSecret(NEW), delivery(BODY), now=now)
    assert attempt == Attempt(Outcome.DELIVERED, "answered 204")
    assert verified(request, NEW) == json.loads(BODY)
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["webhook-timestamp"] == str(int(now))
    assert request.headers["content-type"] == "application/json"


def test_a_rendered_failure_is_what_the_consumer_reads():
    webhook = Webhook("ops", Endpoint(HttpClient(), FakeSecret(""), 10))
    _, [request] = sent(FakeSecret(NEW), delivery(webhook.render(build_message([FAILED], PAGES))))
    assert json.loads(json.dumps(verified(request, NEW)))["type"] == "fine_tune.failed"


def test_another_secret_does_not_verify():
    _, [request] = sent(FakeSecret(NEW), delivery(BODY))
    with pytest.raises(WebhookVerificationError):
        verified(request, STRANGER)


def test_a_changed_body_does_not_verify():
    _, [request] = sent(FakeSecret(NEW), delivery(BODY))
    with pytest.raises(WebhookVerificationError):
        Consumer(NEW).verify(request.body + b" ", request.headers)


def test_during_a_rotation_the_new_and_the_old_secret_verify():
    _, [request] = sent(FakeSecret(f"{NEW}\n{OLD}"), delivery(BODY))
    assert verified(request, NEW) == verified(request, OLD) == json.loads(BODY)
    assert len(request.headers["webhook-signature"].split()) == 2
    with pytest.raises(WebhookVerificationError):
        verified(request, STRANGER)


def test_a_retry_repeats_id_and_bytes_and_is_signed_for_its_own_time():
    _, [first, again] = sent(FakeSecret(NEW), delivery(BODY), delivery(BODY))
    assert first.body == again.body == BODY
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert int(again.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 30
    assert verified(again, NEW) == json.loads(BODY)
    assert first.headers["webhook-signature"] != again.headers["webhook-signature"]


def test_without_a_secret_there_is_no_signature():
    _, [request] = sent(None, delivery(BODY))
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"] == "evt_1"


def test_a_secret_that_is_rotated_in_its_file_signs_the_next_attempt():
    class Rotated(FakeSecret):
        def __call__(self) -> str:
            value = super().__call__()
            self.value = OLD
            return value

    _, [first, second] = sent(Rotated(NEW), delivery(BODY), delivery(BODY))
    assert verified(first, NEW) == verified(second, OLD) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        verified(second, NEW)


def test_a_secret_that_cannot_be_read_sends_nothing_and_names_the_file():
    secret = FakeSecret(NEW)
    secret.value = None
    [attempt], requests = sent(secret, delivery(BODY))
    reason = "cannot read /etc/cartesia/key: no such file"
    assert attempt == Attempt(Outcome.ENDPOINT, reason)
    assert requests == []


@pytest.mark.parametrize("status", [400, 404, 410, 429, 503])
def test_an_answer_means_what_its_status_means(status):
    async def run() -> Attempt:
        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            return await Webhook("ops", endpoint).send(delivery(BODY), 0.0)

    with Server(answer(status, b"no_service")) as server:
        attempt = asyncio.run(run())
    assert attempt.reason == f"answered {status}"
    assert (
        attempt.outcome
        is {
            400: Outcome.PAYLOAD,
            404: Outcome.ENDPOINT,
            410: Outcome.ENDPOINT,
            429: Outcome.THROTTLED,
            503: Outcome.TRANSIENT,
        }[status]
    )
