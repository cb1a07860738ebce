"""Outcomes of all HTTP statuses and of all errors that Slack names."""

import pytest

from exporter.core.retry import Attempt, Outcome
from tests.fakes.answers import answer, head, sends
from tests.fakes.certificates import authority, server_context
from tests.fakes.proxy import tunnel
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Peer, Server
from tests.receivers.sending import (
    RECEIVER_TYPES,
    Connection,
    ReceiverType,
    send,
    send_by_each_type,
    send_concurrently,
)

# Written out: computing them as the code does would test nothing.
DELIVERED = range(200, 300)
THROTTLED = (429,)
ENDPOINT = (*range(300, 400), 401, 403, 404, 405, 410)
PAYLOAD = (400, 413, 414, 415, 422)
TRANSIENT = (
    *(402, 406, 407, 408, 409, 411, 412, 416, 417, 418, 419, 420, 421, 423, 424, 425, 426, 427),
    *(428, *range(430, 600)),
)
OUTCOMES = {
    **dict.fromkeys(DELIVERED, Outcome.DELIVERED),
    **dict.fromkeys(THROTTLED, Outcome.THROTTLED),
    **dict.fromkeys(ENDPOINT, Outcome.ENDPOINT),
    **dict.fromkeys(PAYLOAD, Outcome.PAYLOAD),
    **dict.fromkeys(TRANSIENT, Outcome.TRANSIENT),
}
INTERIM = [status for status in range(100, 200) if status != 101]


def by_path(peer: Peer) -> None:
    """Answer /404 with 404, and so on."""
    status = int(peer.request.path[1:])
    (sends(head(status)) if status < 200 else answer(status))(peer)


async def send_in_batches(
    receiver_type: ReceiverType, urls: list[str], connection: Connection | None = None
) -> list[Attempt]:
    """Send to each URL, 50 at a time: all together would be too many open connections."""
    attempts = []
    for start in range(0, len(urls), 50):
        batch = [(receiver_type, url) for url in urls[start : start + 50]]
        attempts += await send_concurrently(batch, connection)
    return attempts


@pytest.mark.parametrize("receiver_type", RECEIVER_TYPES)
async def test_each_final_status_has_its_outcome_after_one_request(receiver_type):
    assert sorted(OUTCOMES) == list(range(200, 600))
    with Server(by_path) as server:
        urls = [f"{server.base_url}/{status}" for status in sorted(OUTCOMES)]
        found = await send_in_batches(receiver_type, urls)
        assert len(server.requests) == len(urls), "a request was repeated"
    expected = [Attempt(OUTCOMES[status], f"answered {status}") for status in sorted(OUTCOMES)]
    assert found == expected


async def test_an_interim_answer_alone_is_a_timeout():
    """The message may have arrived."""
    with Server(by_path) as server:
        urls = [f"{server.base_url}/{status}" for status in INTERIM]
        receivers = [(each, url) for url in urls for each in RECEIVER_TYPES]
        # Less time than this can end while the connections are still being opened.
        found = await send_concurrently(receivers, Connection(seconds=10))
    reason = f"no complete answer from {server.address} within 10 s"
    lost = Attempt(Outcome.TRANSIENT, reason, ambiguous=True)
    assert found == [lost] * len(receivers)


async def test_status_101_is_a_protocol_error():
    with Server(by_path) as server:
        found = await send_by_each_type(f"{server.base_url}/101")
    reason = f"{server.address} closed the connection or did not answer with HTTP"
    assert found == [Attempt(Outcome.TRANSIENT, reason, ambiguous=True)] * 2


async def test_the_final_status_counts_after_interim_answers():
    interim = head(103, link="</x>; rel=preload") + head(100)
    with Server(sends(interim + head(404, content_length=0))) as server:
        found = await send_by_each_type(server.base_url)
    assert found == [Attempt(Outcome.ENDPOINT, "answered 404")] * 2


async def test_an_invalid_status_is_a_lost_answer():
    for line in (b"HTTP/1.1 99 x", b"HTTP/1.1 1000 x", b"HTTP/1.1 abc x"):
        with Server(sends(line + b"\r\nContent-Length: 0\r\n\r\n")) as server:
            found = await send("webhook", server.base_url)
        assert (found.outcome, found.ambiguous) == (Outcome.TRANSIENT, True), line


# Each error with the statuses it was seen with. The name decides, whatever the status.
_PAYLOAD_ERRORS = {
    "invalid_payload": [400],
    "invalid_blocks": [400, 422],
    "invalid_blocks_format": [400],
    "invalid_attachments": [400],
    "no_text": [400],
    "missing_text_or_fallback_or_attachments": [400],
    "too_many_attachments": [400],
    "user_not_found": [400],
    "msg_blocks_too_long": [400],
}
_ENDPOINT_ERRORS = {
    "action_prohibited": [403],
    "posting_to_general_channel_denied": [403],
    "invalid_token": [403, 400],
    "channel_not_found": [404],
    "no_service": [404],
    "no_service_id": [404],
    "no_active_hooks": [404],
    "no_team": [404],
    "team_disabled": [404],
    "channel_is_archived": [410],
}
_UNUSUAL_STATUSES = [200, 400, 403, 404, 410, 500]
_NAMED = {
    **dict.fromkeys(_PAYLOAD_ERRORS, Outcome.PAYLOAD),
    **dict.fromkeys(_ENDPOINT_ERRORS, Outcome.ENDPOINT),
}


def answer_by_path(peer: Peer) -> None:
    """Answer /404/no_service with that status and body."""
    status, body = peer.request.path[1:].split("/")
    answer(int(status), body.encode())(peer)


@pytest.fixture
def slack(tmp_path):
    """Yield the URL of a fake hooks.slack.com, and the CA and proxy to reach it by."""
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "hooks.slack.com")
    with Server(answer_by_path, context) as server, Server(tunnel) as proxy:
        yield (
            f"https://hooks.slack.com:{server.port}",
            Connection(ca_file=ca_file, proxy=FakeSecret(proxy.base_url)),
        )


async def test_each_error_of_slack_has_its_outcome_with_any_status(slack):
    base_url, connection = slack
    usual = {**_PAYLOAD_ERRORS, **_ENDPOINT_ERRORS}
    answers = [(status, name) for name in usual for status in {*usual[name], *_UNUSUAL_STATUSES}]
    urls = [f"{base_url}/{status}/{name}" for status, name in answers]
    found = await send_in_batches("slack", urls, connection)
    assert found == [Attempt(_NAMED[name], f"answered {status} {name}") for status, name in answers]


_BODIES = [
    (200, "ok", Outcome.DELIVERED),
    (200, "", Outcome.TRANSIENT),
    (200, "OK", Outcome.TRANSIENT),
    (200, "x" * 10_000, Outcome.TRANSIENT),
    (204, "", Outcome.TRANSIENT),
    (429, "rate_limited", Outcome.THROTTLED),
    (500, "rollup_error", Outcome.TRANSIENT),
    (500, "ok", Outcome.TRANSIENT),
    (404, "ok", Outcome.ENDPOINT),
]


async def test_slack_itself_accepts_a_message_as_it_documents_only(slack):
    base_url, connection = slack
    for status, body, outcome in _BODIES:
        found = await send("slack", f"{base_url}/{status}/{body}", connection)
        is_unclear = status < 300 and outcome is Outcome.TRANSIENT
        assert (found.outcome, found.ambiguous) == (outcome, is_unclear), (status, body)
