"""One attempt to tell Slack, and what each answer means."""

import asyncio
from email.utils import formatdate

import httpx
import pytest

from exporter.core.retry import Attempt, Outcome
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from tests.fakes.answers import answer
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Server
from tests.receivers.sample_events import AT, delivery

BODY = b'{"text":"Fine-tune failed"}'


class Answering(HttpClient):
    """In place of Slack itself: gives one answer in its name."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response

    async def send(self, request: Request, bounds: Bounds) -> Response:
        return self.response


def told(*script: Answer) -> tuple[Attempt, Server]:
    """Send once to a server that answers so."""

    async def run() -> Attempt:
        async with HttpClient() as http_client:
            url = FakeSecret(f"{server.base_url}/services/T/B/x")
            return await Slack("team", Endpoint(http_client, url, 10)).send(delivery(BODY), AT)

    with Server(answer()).then(*script) as server:
        return asyncio.run(run()), server


def judged(
    host: str, status: int, body: bytes = b"", broken: HttpClientError | None = None
) -> Attempt:
    answer = Response(host, status, httpx.Headers(), body, error=broken)
    endpoint = Endpoint(Answering(answer), FakeSecret(f"https://{host}/x"), 15)
    return asyncio.run(Slack("team", endpoint).send(delivery(BODY), AT))


def test_the_bytes_are_posted_as_they_are_and_an_ok_is_a_delivery():
    attempt, server = told(answer(200, b"ok"))
    assert attempt == Attempt(Outcome.DELIVERED, "answered 200")
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/services/T/B/x", BODY)
    assert request.headers["content-type"] == "application/json"
    assert "webhook-signature" not in request.headers


def test_a_server_that_only_speaks_slacks_format_need_not_say_ok():
    assert told(answer(204))[0].outcome is Outcome.DELIVERED
    assert judged("chat.example", 200, b'{"id": 1}').outcome is Outcome.DELIVERED


@pytest.mark.parametrize("host", ["hooks.slack.com", "hooks.slack-gov.com"])
def test_slack_takes_a_message_only_with_ok(host):
    assert judged(host, 200, b"ok") == Attempt(Outcome.DELIVERED, "answered 200")
    assert judged(host, 200, b" ok\n").outcome is Outcome.DELIVERED
    for body in (b"", b"OK!", b"<html>log in</html>", b"\xff\x00"):
        refused = Attempt(Outcome.PAYLOAD, "answered 200, but not ok")
        assert judged(host, 200, body) == refused


def test_an_ok_that_was_lost_is_worth_another_try_and_a_refusal_is_one_without_its_body():
    lost = HttpClientError("connect", "the connection broke", sent=True)
    again = Attempt(Outcome.TRANSIENT, "the connection broke", ambiguous=True)
    assert judged("hooks.slack.com", 200, broken=lost) == again
    assert judged("hooks.slack.com", 404, broken=lost).outcome is Outcome.ENDPOINT
    assert judged("chat.example", 200, broken=lost).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (400, b"invalid_payload", Outcome.PAYLOAD),
        (400, b"invalid_blocks", Outcome.PAYLOAD),
        (400, b"no_text", Outcome.PAYLOAD),
        (400, b"user_not_found", Outcome.PAYLOAD),
        (403, b"action_prohibited", Outcome.ENDPOINT),
        (403, b"invalid_token", Outcome.ENDPOINT),
        (404, b"channel_not_found", Outcome.ENDPOINT),
        (404, b"no_service", Outcome.ENDPOINT),
        (410, b"channel_is_archived", Outcome.ENDPOINT),
        # The name decides: these have been seen with other statuses too.
        (400, b"invalid_token\n", Outcome.ENDPOINT),
        (400, b"no_team", Outcome.ENDPOINT),
        (200, b"no_service", Outcome.ENDPOINT),
        (500, b"invalid_blocks", Outcome.PAYLOAD),
        # Names that are not ours to know leave it to the status.
        (500, b"rollup_error", Outcome.TRANSIENT),
        (400, b"something_new", Outcome.PAYLOAD),
        (404, b"something_new", Outcome.ENDPOINT),
        (503, b"", Outcome.TRANSIENT),
        (429, b"rate_limited", Outcome.THROTTLED),
        (429, b"invalid_token", Outcome.THROTTLED),
    ],
)
def test_what_slack_answers(status, body, outcome):
    assert judged("hooks.slack.com", status, body).outcome is outcome


def test_the_name_of_an_error_is_told_but_no_other_text_of_an_answer():
    assert judged("hooks.slack.com", 404, b"no_service").reason == "answered 404 no_service"
    assert judged("hooks.slack.com", 404, b"\x1b[2J<evil>").reason == "answered 404"


def test_a_redirect_is_not_followed():
    with Server(answer(200, b"ok")) as elsewhere:
        attempt, _ = told(answer(302, location=f"{elsewhere.base_url}/x"))
        assert attempt == Attempt(Outcome.ENDPOINT, "answered 302")
        assert elsewhere.requests == []


@pytest.mark.parametrize("wish", ["30", formatdate(int(AT) + 30, usegmt=True)])
def test_a_throttled_message_says_how_long_to_wait(wish):
    body = b'{"retry_after":30,"ok":false,"error":"rate_limited"}'
    attempt, _ = told(answer(429, body, retry_after=wish))
    assert attempt.outcome is Outcome.THROTTLED
    assert attempt.retry_after == pytest.approx(30, abs=1)


def test_a_throttled_message_without_a_wish_says_none():
    assert told(answer(429))[0] == Attempt(Outcome.THROTTLED, "answered 429")
