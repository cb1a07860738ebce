"""Authorization and other headers of webhooks, whose secrets are read again at each attempt."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from exporter.core.retry import Attempt, Outcome
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.webhook import Basic, Bearer, Webhook
from tests.fakes.answers import answer, head, sends_then_resets
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Received, Server
from tests.receivers.sample_events import AT, delivery
from tests.receivers.sending import LeakySecret

TOKEN = "t0ken-of-the-bearer"
BODY = b'{"type":"fine_tune.failed"}'
Headers = Mapping[str, Callable[[], str]]
ACCEPTED = answer(204)


async def send(
    headers: Headers, otherwise: Answer = ACCEPTED, times: int = 1, **more: Any
) -> tuple[list[Attempt], list[Received]]:
    with Server(otherwise) as server:
        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            webhook = Webhook("ops", endpoint, headers=headers, **more)
            attempts = [await webhook.send(delivery(BODY), AT) for _ in range(times)]
    return attempts, server.requests


async def received(headers: Headers, **more: Any) -> Received:
    [attempt], [request] = await send(headers, **more)
    assert attempt.outcome is Outcome.DELIVERED
    return request


async def test_a_token_is_a_bearer_token():
    request = await received({"Authorization": Bearer(FakeSecret(TOKEN))})
    assert request.headers["authorization"] == f"Bearer {TOKEN}"


async def test_user_and_password_are_basic_authentication_in_utf_8():
    request = await received({"Authorization": Basic("agent", FakeSecret("pässword:x"))})
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == "agent:pässword:x"


async def test_headers_are_added_and_do_not_replace_those_of_the_signature():
    signing = FakeSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    mine = {"X-Team": FakeSecret("voices"), "webhook-id": FakeSecret("forged")}
    request = await received(mine, secret=signing)
    assert request.headers["x-team"] == "voices"
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["webhook-signature"].startswith("v1,")
    assert request.headers["content-type"] == "application/json"
    assert request.body == BODY


@pytest.mark.parametrize("header", [Bearer, lambda secret: Basic("agent", secret), lambda s: s])
async def test_each_attempt_reads_its_secrets_again(header):
    class Rotated(FakeSecret):
        def __call__(self) -> str:
            value = super().__call__()
            self.value = "second"
            return value

    secret = Rotated("first")
    _, [one, other] = await send({"Authorization": header(secret)}, times=2)
    assert secret.reads == 2
    assert one.headers["authorization"] != other.headers["authorization"]


@pytest.mark.parametrize("header", [Bearer, lambda secret: Basic("agent", secret), lambda s: s])
async def test_a_secret_that_cannot_be_read_sends_nothing_and_names_the_file(header):
    secret = FakeSecret(TOKEN)
    secret.value = None
    [attempt], requests = await send({"Authorization": header(secret)})
    reason = "cannot read /etc/cartesia/key: no such file"
    assert attempt == Attempt(Outcome.ENDPOINT, reason)
    assert requests == []


HEADERS: Headers = {
    "Authorization": Bearer(LeakySecret(TOKEN)),
    "X-Basic": Basic("agent", LeakySecret(TOKEN)),
    "X-Key": LeakySecret(TOKEN),
}
BASIC = base64.b64encode(f"agent:{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    "otherwise",
    [
        *(answer(status, f"no {TOKEN}".encode()) for status in (200, 400, 401, 404, 429, 500)),
        answer(302, location=f"https://{TOKEN}.example/"),
        answer(200, TOKEN.encode(), content_encoding="gzip"),
        sends_then_resets(head(500, x_token=TOKEN)),
        sends_then_resets(f"HTTP/1.1 {TOKEN}".encode()),
    ],
)
async def test_no_attempt_shows_a_token_a_password_or_a_header(otherwise):
    [attempt], [request] = await send(HEADERS, otherwise)
    assert TOKEN in request.headers["x-key"]
    assert TOKEN not in repr(attempt)
    assert BASIC not in repr(attempt)


@pytest.mark.parametrize("value", ["a\nb", "é", "\x00", "a\r\nX-Evil: 1"])
async def test_a_value_that_cannot_be_sent_is_not_shown(value):
    """The configuration refuses them, but a secret's file can change later."""
    [attempt], requests = await send({"X-Key": LeakySecret(f"{TOKEN}{value}")})
    assert attempt.outcome in {Outcome.TRANSIENT, Outcome.ENDPOINT}
    assert TOKEN not in repr(attempt)
    assert requests == []


def test_no_repr_shows_a_token_a_password_or_a_header():
    endpoint = Endpoint(HttpClient(), LeakySecret(TOKEN), 15)
    for each in (*HEADERS.values(), Webhook("ops", endpoint, headers=HEADERS)):
        if not isinstance(each, LeakySecret):
            assert TOKEN not in repr(each)
