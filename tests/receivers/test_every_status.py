"""Every status that a server can answer, and every error that Slack is known to name."""

import pytest

from exporter.core.retry import Attempt, Outcome
from tests.fakes.answers import answer, head, sends
from tests.fakes.certificates import authority, server_context
from tests.fakes.proxy import tunnel
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Peer, Server
from tests.receivers.faults import KINDS, Kind, Way, told, told_at_once, told_each_kind

# Written out, and not computed as the code does it.
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


def told_in_turn(kind: Kind, urls: list[str], way: Way | None = None) -> list[Attempt]:
    """Tell one after the other, and some at once: there are more than may be open at a time."""
    groups = [urls[begin : begin + 50] for begin in range(0, len(urls), 50)]
    return [
        attempt for group in groups for attempt in told_at_once([(kind, u) for u in group], way)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_final_status_is_of_its_class_and_no_answer_is_lost(kind):
    assert sorted(OUTCOMES) == list(range(200, 600))
    with Server(by_path) as server:
        urls = [f"{server.base_url}/{status}" for status in sorted(OUTCOMES)]
        found = told_in_turn(kind, urls)
        assert len(server.requests) == len(urls), "a status is answered by no second request"
    expected = [Attempt(OUTCOMES[status], f"answered {status}") for status in sorted(OUTCOMES)]
    assert found == expected


def test_an_interim_answer_that_no_other_follows_is_waited_for_to_the_deadline():
    """It is as if there was none: what was sent may have arrived."""
    with Server(by_path) as server:
        receivers = [(kind, f"{server.base_url}/{each}") for each in INTERIM for kind in KINDS]
        found = told_at_once(receivers, Way(seconds=2))
    lost = Attempt(Outcome.TRANSIENT, "no complete answer within 2 s", ambiguous=True)
    assert found == [lost] * len(receivers)


def test_switching_protocols_is_no_answer_to_what_was_asked():
    with Server(by_path) as server:
        found = told_each_kind(f"{server.base_url}/101")
    broken = "the server broke off or did not speak HTTP"
    assert found == [Attempt(Outcome.TRANSIENT, broken, ambiguous=True)] * 2


def test_behind_interim_answers_the_final_one_counts():
    interim = head(103, link="</x>; rel=preload") + head(100)
    with Server(sends(interim + head(404, content_length=0))) as server:
        found = told_each_kind(server.base_url)
    assert found == [Attempt(Outcome.ENDPOINT, "answered 404")] * 2


@pytest.mark.parametrize("line", [b"HTTP/1.1 99 x", b"HTTP/1.1 1000 x", b"HTTP/1.1 abc x"])
def test_a_status_that_is_none_is_no_answer(line):
    with Server(sends(line + b"\r\nContent-Length: 0\r\n\r\n")) as server:
        found = told("webhook", server.base_url)
    assert (found.outcome, found.ambiguous) == (Outcome.TRANSIENT, True)


# With the statuses they have been seen with; the name decides, whatever the status.
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


def slack_says(peer: Peer) -> None:
    """Answer /404/no_service with that status and body."""
    status, body = peer.request.path[1:].split("/")
    answer(int(status), body.encode())(peer)


@pytest.fixture
def slack(tmp_path):
    """A server that is hooks.slack.com to whoever trusts its authority and uses its proxy."""
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "hooks.slack.com")
    with Server(slack_says, context) as server, Server(tunnel) as proxy:
        yield (
            f"https://hooks.slack.com:{server.port}",
            Way(ca_file=ca_file, proxy=FakeSecret(proxy.base_url)),
        )


def test_each_error_that_slack_names_is_of_its_class_with_any_status(slack):
    base_url, way = slack
    usual = {**_PAYLOAD_ERRORS, **_ENDPOINT_ERRORS}
    said = [(status, name) for name in usual for status in {*usual[name], *_UNUSUAL_STATUSES}]
    urls = [f"{base_url}/{status}/{name}" for status, name in said]
    found = told_in_turn("slack", urls, way)
    assert found == [Attempt(_NAMED[name], f"answered {status} {name}") for status, name in said]


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, "ok", Outcome.DELIVERED),
        (200, "", Outcome.PAYLOAD),
        (200, "OK", Outcome.PAYLOAD),
        (200, '{"ok":true}', Outcome.PAYLOAD),
        (200, "x" * 10_000, Outcome.PAYLOAD),
        (204, "", Outcome.PAYLOAD),
        (429, "rate_limited", Outcome.THROTTLED),
        (500, "rollup_error", Outcome.TRANSIENT),
        (500, "ok", Outcome.TRANSIENT),
        (404, "ok", Outcome.ENDPOINT),
    ],
)
def test_slack_takes_a_message_with_200_and_ok_alone(slack, status, body, outcome):
    base_url, way = slack
    found = told("slack", f"{base_url}/{status}/{body}", way)
    assert found.outcome is outcome
    assert not found.ambiguous
