"""Outcomes of one attempt to send to Slack."""

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


class FakeHttpClient(HttpClient):
    """Client that returns one response, also in the name of Slack's own hosts."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response

    async def send(self, request: Request, bounds: Bounds) -> Response:
        return self.response


async def send(*script: Answer) -> tuple[Attempt, Server]:
    """Send once to a server with these answers."""
    with Server(answer()).then(*script) as server:
        async with HttpClient() as http_client:
            url = FakeSecret(f"{server.base_url}/services/T/B/x")
            slack = Slack("team", Endpoint(http_client, url, 10))
            return await slack.send(delivery(BODY), AT), server


async def answered(
    host: str, status: int, body: bytes = b"", error: HttpClientError | None = None
) -> Attempt:
    answer = Response(host, status, httpx.Headers(), body, error=error)
    endpoint = Endpoint(FakeHttpClient(answer), FakeSecret(f"https://{host}/x"), 15)
    return await Slack("team", endpoint).send(delivery(BODY), AT)


async def test_the_bytes_are_posted_unchanged_and_ok_is_a_delivery():
    attempt, server = await send(answer(200, b"ok"))
    assert attempt == Attempt(Outcome.DELIVERED, "answered 200")
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/services/T/B/x", BODY)
    assert request.headers["content-type"] == "application/json"
    assert "webhook-signature" not in request.headers


async def test_other_servers_with_slacks_format_need_not_answer_ok():
    assert (await send(answer(204)))[0].outcome is Outcome.DELIVERED
    assert (await answered("chat.example", 200, b'{"id": 1}')).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"ok", Outcome.DELIVERED),  # Mattermost, Discord
        (200, b'{"success":true}', Outcome.DELIVERED),  # Rocket.Chat
        (200, b'{"success":false,"error":"error-invalid-room"}', Outcome.TRANSIENT),
        (200, b'{"result":"success","msg":""}', Outcome.DELIVERED),  # Zulip
        (200, b'{"result":"error","msg":"no such stream"}', Outcome.TRANSIENT),
        (200, b'{"ok":false,"error":"invalid_blocks"}', Outcome.PAYLOAD),
        (200, b'{"ok":false,"error":"ratelimited"}', Outcome.TRANSIENT),
        (200, b"", Outcome.DELIVERED),
        (202, b"", Outcome.DELIVERED),
        (200, b"no_text", Outcome.PAYLOAD),
        # A captive portal, a login page, a maintenance page.
        (200, b"<!DOCTYPE html><html>Sign in</html>", Outcome.TRANSIENT),
        (203, b"\n  <html>", Outcome.TRANSIENT),
        (200, b"Welcome to the guest network", Outcome.TRANSIENT),
        (200, b"{" * 50_000, Outcome.TRANSIENT),
        (400, b"<html>400 Bad Request</html>", Outcome.TRANSIENT),
        (400, b'{"id":"web.incoming_webhook.parse.app_error"}', Outcome.PAYLOAD),
    ],
)
async def test_only_an_answer_of_the_service_itself_counts(status, body, outcome):
    found = await answered("chat.example", status, body)
    assert found.outcome is outcome
    assert found.ambiguous == (status < 300 and outcome is Outcome.TRANSIENT)


@pytest.mark.parametrize("host", ["hooks.slack.com", "hooks.slack-gov.com"])
async def test_slack_itself_accepts_a_message_as_it_documents_only(host):
    assert await answered(host, 200, b"ok") == Attempt(Outcome.DELIVERED, "answered 200")
    assert (await answered(host, 200, b" ok\n")).outcome is Outcome.DELIVERED
    # The webhook of a workflow.
    assert (await answered(host, 200, b'{"ok":true}')).outcome is Outcome.DELIVERED
    for body in (b"", b"OK!", b"<html>log in</html>", b"\xff\x00", b'{"success":true}'):
        found = await answered(host, 200, body)
        assert (found.outcome, found.ambiguous) == (Outcome.TRANSIENT, True)
        assert "an intermediary may have answered" in found.reason


async def test_a_lost_ok_is_transient_and_a_refusal_needs_no_body():
    lost = HttpClientError("connect", "the connection broke", sent=True)
    again = Attempt(Outcome.TRANSIENT, "the connection broke", ambiguous=True)
    assert await answered("hooks.slack.com", 200, error=lost) == again
    assert (await answered("hooks.slack.com", 404, error=lost)).outcome is Outcome.ENDPOINT
    assert (await answered("chat.example", 200, error=lost)).outcome is Outcome.DELIVERED


ANSWERS = [
    (400, b"invalid_payload", Outcome.PAYLOAD),
    (400, b"invalid_blocks", Outcome.PAYLOAD),
    (400, b"no_text", Outcome.PAYLOAD),
    (400, b"user_not_found", Outcome.PAYLOAD),
    (403, b"action_prohibited", Outcome.ENDPOINT),
    (403, b"invalid_token", Outcome.ENDPOINT),
    (404, b"channel_not_found", Outcome.ENDPOINT),
    (404, b"no_service", Outcome.ENDPOINT),
    (410, b"channel_is_archived", Outcome.ENDPOINT),
    # The name decides: these were seen with other statuses too.
    (400, b"invalid_token\n", Outcome.ENDPOINT),
    (400, b"no_team", Outcome.ENDPOINT),
    (200, b"no_service", Outcome.ENDPOINT),
    (500, b"invalid_blocks", Outcome.PAYLOAD),
    # For unknown names the status decides.
    (500, b"rollup_error", Outcome.TRANSIENT),
    (400, b"something_new", Outcome.PAYLOAD),
    (404, b"something_new", Outcome.ENDPOINT),
    (503, b"", Outcome.TRANSIENT),
    (429, b"rate_limited", Outcome.THROTTLED),
    (429, b"invalid_token", Outcome.THROTTLED),
]


async def test_the_error_name_decides_before_the_status():
    for status, body, outcome in ANSWERS:
        found = await answered("hooks.slack.com", status, body)
        assert found.outcome is outcome, (status, body)


async def test_the_reason_has_the_error_name_but_no_other_text_of_an_answer():
    assert (
        await answered("hooks.slack.com", 404, b"no_service")
    ).reason == "answered 404 no_service"
    assert (await answered("hooks.slack.com", 404, b"\x1b[2J<evil>")).reason == "answered 404"


async def test_a_redirect_is_not_followed():
    with Server(answer(200, b"ok")) as elsewhere:
        attempt, _ = await send(answer(302, location=f"{elsewhere.base_url}/x"))
        assert attempt == Attempt(Outcome.ENDPOINT, "answered 302")
        assert elsewhere.requests == []


@pytest.mark.parametrize("wish", ["30", formatdate(int(AT) + 30, usegmt=True)])
async def test_retry_after_of_a_throttled_message_is_kept(wish):
    body = b'{"retry_after":30,"ok":false,"error":"rate_limited"}'
    attempt, _ = await send(answer(429, body, retry_after=wish))
    assert attempt.outcome is Outcome.THROTTLED
    assert attempt.retry_after == pytest.approx(30, abs=1)


async def test_a_throttled_message_can_lack_retry_after():
    assert (await send(answer(429)))[0] == Attempt(Outcome.THROTTLED, "answered 429")
