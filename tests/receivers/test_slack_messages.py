"""Slack messages, literally."""

import json

from exporter.core.mentions import Mentions, mentioning_types
from exporter.core.message import build_message
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import FAILED, SETTINGS, TEST, failures

SLACK = Slack(
    "team",
    Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/x"), 15),
    Mentions(mentioning_types(["failed"]), "<!here>"),
)


def mrkdwn(text):
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def plain(text):
    return {"type": "plain_text", "text": text, "emoji": False}


def test_a_single_failure():
    assert json.loads(SLACK.render(build_message([FAILED], SETTINGS))) == {
        "text": "<!here> Fine-tune failed: My voice\n"
        "Account: default · Model: sonic-2 · Status: training → failed · Language: en"
        " · Dataset: ds_1 · Id: ft_1 · Observed: 2026-11-23T19:03:00Z\n"
        "For the &lt;hotline&gt;\n"
        "<https://watch.example/fine-tunes/default/ft_1|Details>"
        " · <https://play.example/tunes/ft_1|Open the Playground>"
        " · <https://watch.example/|Status page>",
        "blocks": [
            {
                "type": "section",
                "text": mrkdwn(
                    "*<https://watch.example/fine-tunes/default/ft_1|Fine-tune failed: My voice>*"
                ),
            },
            {"type": "section", "text": mrkdwn("<!here>")},
            {
                "type": "section",
                "fields": [
                    mrkdwn("*Account*\ndefault"),
                    mrkdwn("*Model*\nsonic-2"),
                    mrkdwn("*Status*\ntraining → failed"),
                    mrkdwn("*Language*\nen"),
                    mrkdwn("*Dataset*\nds_1"),
                    mrkdwn("*Id*\nft_1"),
                    mrkdwn("*Observed*\n2026-11-23T19:03:00Z"),
                ],
            },
            {"type": "section", "text": plain("For the <hotline>")},
            {
                "type": "context",
                "elements": [
                    mrkdwn(
                        "<https://watch.example/fine-tunes/default/ft_1|Details>"
                        " · <https://play.example/tunes/ft_1|Open the Playground>"
                        " · <https://watch.example/|Status page>"
                    )
                ],
            },
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def test_a_digest():
    body = json.loads(SLACK.render(build_message(failures(22), SETTINGS)))
    assert body["text"].splitlines() == [
        "<!here> 22 fine-tunes failed",
        "sonic-2: 22",
        *(f"Voice {n} (sonic-2, ft_{n})" for n in range(20)),
        "and 2 more; `cartesia-exporter events list` shows them all",
        "<https://play.example/tunes/|Open the Playground> · <https://watch.example/|Status page>",
    ]
    assert body["blocks"] == [
        {"type": "header", "text": plain("22 fine-tunes failed")},
        {"type": "section", "text": mrkdwn("<!here>")},
        {"type": "section", "fields": [mrkdwn("*sonic-2*\n22")]},
        {
            "type": "section",
            "text": mrkdwn("\n".join(f"Voice {n} (sonic-2, ft_{n})" for n in range(20))),
        },
        {"type": "section", "text": mrkdwn("ft_20, ft_21")},
        {
            "type": "context",
            "elements": [
                mrkdwn(
                    "<https://play.example/tunes/|Open the Playground>"
                    " · <https://watch.example/|Status page>"
                )
            ],
        },
    ]


def test_a_test_message():
    body = json.loads(SLACK.render(build_message([TEST], SETTINGS)))
    assert body["text"].startswith("Test message from cartesia-exporter, nothing failed\n")
    assert {"type": "section", "text": plain("If you can read this.")} in body["blocks"]


def test_the_minimal_failure():
    assert json.loads(SLACK.render(build_message([FAILED], SETTINGS), minimal=True)) == {
        "text": "<!here> fine_tune.failed: ft_1",
        "unfurl_links": False,
        "unfurl_media": False,
    }
