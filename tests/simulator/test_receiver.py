"""The receiver of the demo: refusals like Slack's, the inbox, and printable descriptions."""

import json
from typing import Any

import httpx
import pytest

from exporter.simulator.receiver import Inbox, Message, create_receiver, describe, slack_text
from tests.process.agent_process import NO_AUTHORITIES
from tests.simulator.served_app import served

SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "hello"}}


def section(length: int) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": "x" * length}}


def fields(count: int, length: int = 1) -> dict[str, Any]:
    return {"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * length}] * count}


def header(length: int) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": "x" * length}}


def context(count: int) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * count}


class ServedReceiver:
    """A served receiver and its inbox."""

    def __init__(self, base_url: str, inbox: Inbox) -> None:
        self.base_url = base_url
        self.messages = inbox.messages

    def post(self, path: str, body: bytes) -> httpx.Response:
        headers = {"content-type": "application/json", "webhook-id": "msg_1"}
        with httpx.Client(verify=NO_AUTHORITIES, trust_env=False) as http:
            return http.post(self.base_url + path, content=body, headers=headers)


@pytest.fixture(scope="module")
def running():
    inbox = Inbox()
    with served(create_receiver(inbox)) as base_url:
        yield ServedReceiver(base_url, inbox)


@pytest.fixture
def receiver(running):
    running.messages.clear()
    return running


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "hello"},
        {"blocks": [SECTION]},
        {"text": "hello", "blocks": [SECTION] * 50},
        {"text": "hello", "blocks": [section(3000), header(150), context(10), fields(10, 2000)]},
        {"text": "hello", "blocks": [{"type": "divider"}]},
        {"text": None, "blocks": [SECTION]},
    ],
)
def test_a_message_that_slack_accepts_is_accepted(receiver, payload):
    response = receiver.post("/slack", json.dumps(payload).encode())
    assert (response.status_code, response.text) == (200, "ok")
    (message,) = receiver.messages
    assert (message.receiver_type, message.payload) == ("slack", payload)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ("not JSON", "invalid_payload"),
        ('["text"]', "invalid_payload"),
        ("\xff", "invalid_payload"),
        ("[" * 100_000, "invalid_payload"),
        ({"text": 5}, "invalid_payload"),
        ({}, "no_text"),
        ({"text": "", "blocks": []}, "no_text"),
        ({"blocks": [SECTION] * 51}, "invalid_blocks"),
        ({"blocks": {"type": "section"}}, "invalid_blocks"),
        ({"blocks": ["section"]}, "invalid_blocks"),
        ({"blocks": [{"text": "no type"}]}, "invalid_blocks"),
        ({"blocks": [section(3001)]}, "invalid_blocks"),
        ({"blocks": [section(0)]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "text": "plain"}]}, "invalid_blocks"),
        ({"blocks": [fields(11)]}, "invalid_blocks"),
        ({"blocks": [fields(1, 2001)]}, "invalid_blocks"),
        ({"blocks": [header(151)]}, "invalid_blocks"),
        ({"blocks": [context(11)]}, "invalid_blocks"),
        ({"blocks": [context(0)]}, "invalid_blocks"),
    ],
)
def test_a_message_that_slack_refuses_is_refused_with_its_error(receiver, payload, error):
    body = payload.encode("latin-1") if isinstance(payload, str) else json.dumps(payload).encode()
    response = receiver.post("/slack", body)
    assert (response.status_code, response.text) == (400, error)
    assert not receiver.messages


def test_a_webhook_message_is_stored_unchanged_with_its_headers(receiver):
    body = b'{"type": "agent.test",  "data": {}}'
    assert receiver.post("/webhook", body).status_code == 204
    (message,) = receiver.messages
    assert message.receiver_type == "webhook"
    assert message.body == body
    assert message.payload == {"type": "agent.test", "data": {}}
    assert message.headers["webhook-id"] == "msg_1"


def test_a_webhook_message_may_be_no_json(receiver):
    assert receiver.post("/webhook", b"plain").status_code == 204
    assert receiver.messages[0].payload is None


@pytest.mark.parametrize("path", ["/slack", "/webhook"])
def test_a_body_above_a_mebibyte_is_refused(receiver, path):
    padding = b" " * (1024 * 1024 - len(b'{"text": "a"}'))
    assert receiver.post(path, b'{"text": "a"}' + padding).is_success
    assert receiver.post(path, b'{"text": "a"}' + padding + b" ").status_code == 413
    assert len(receiver.messages) == 1


def test_the_inbox_is_bounded_and_reports_each_message():
    reported: list[Message] = []
    inbox = Inbox(reported.append)
    messages = [Message("webhook", {}, b"", number) for number in range(1001)]
    for message in messages:
        inbox.add(message)
    assert list(inbox.messages) == messages[1:]
    assert reported == messages


FAILED = {"type": "fine_tune.failed", "data": {"fine_tune": {"id": "fine_tune_1", "name": "Ada"}}}


@pytest.mark.parametrize(
    ("receiver_type", "payload", "line"),
    [
        ("slack", {"text": "Ada failed"}, "slack: Ada failed"),
        ("slack", {"blocks": [{"type": "divider"}, SECTION]}, "slack: hello"),
        ("slack", {"blocks": [{"type": "divider"}]}, "slack: 1 blocks"),
        (
            "slack",
            {"text": "a\rb\x1b[31m\x9b\u202e\ud800"},
            "slack: a\\rb\\x1b[31m\\x9b\\u202e\\ud800",
        ),
        ("webhook", FAILED, "webhook: fine_tune.failed Ada (fine_tune_1)"),
        (
            "webhook",
            {"type": "fine_tune.digest", "data": {"events": [1, 2]}},
            "webhook: fine_tune.digest 2 events",
        ),
        ("webhook", {"type": "agent.test", "data": {}}, "webhook: agent.test"),
        ("webhook", {"type": "agent.test"}, "webhook: agent.test"),
        ("webhook", {"version": "4"}, 'webhook: {"version": "4"}'),
        ("webhook", ["\x07"], 'webhook: ["\\u0007"]'),
    ],
)
def test_a_description_is_one_printable_line(receiver_type, payload, line):
    assert describe(Message(receiver_type, {}, json.dumps(payload).encode(), payload)) == line


def test_a_long_description_is_cut_and_raw_bytes_are_escaped():
    long = describe(Message("slack", {}, b"", {"text": "x" * 5000}))
    assert len(long) == 200
    assert long.endswith("x\u2026")
    assert describe(Message("webhook", {}, b"a\x00\xff", None)) == "webhook: a\\x00\ufffd"


def test_a_slack_message_is_shown_as_a_person_reads_it():
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "*<http://a/1|Ada &amp; \x1b>*"}},
        {"type": "section", "text": {"type": "plain_text", "text": "*as it is*\nline 2"}},
        {
            "type": "context",
            "elements": [
                {"type": "mrkdwn", "text": "`ft` · Since <!date^1^{time}|1970-01-01 00:00 UTC>"},
                {"type": "mrkdwn", "text": "<http://a/1|Details> · <http://a|Status>"},
            ],
        },
    ]
    assert slack_text(Message("slack", {}, b"", {"blocks": blocks})) == [
        "Ada & \\x1b",
        "*as it is*",
        "line 2",
        "`ft`",
        "Since 1970-01-01 00:00 UTC",
        "Details: http://a/1",
        "Status: http://a",
    ]
    assert slack_text(Message("slack", {}, b"", {"text": "minimal"})) == []
