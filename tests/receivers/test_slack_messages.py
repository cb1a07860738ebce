"""Slack messages, literally."""

import json

from exporter.core.compose import INFORMATION, build_message
from exporter.core.event_context import EventContext
from exporter.core.mentions import Mentions, mentioning_types
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
HISTORY = {"evt_1": EventContext(7_800.0, 18_000.0, 3)}
DETAILS = "https://watch.example/fine-tunes/default"
OBSERVED = "<!date^1795460580^{date_short_pretty} {time}|2026-11-23 19:03 UTC>"
LINKS = f"<{DETAILS}/ft_1|Details> · <https://play.example/tunes/ft_1|Playground>"
DIGEST_LINKS = "<https://watch.example/|Status page> · <https://play.example/tunes/|Playground>"


def mrkdwn(text):
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def test_a_single_failure():
    assert json.loads(SLACK.render(build_message([FAILED], SETTINGS, HISTORY))) == {
        "text": "<!here> ⚠️ Fine-tune failed: My voice\n"
        "Trained 2 h 10 min, usually 5 h · 3rd failure of dataset ds_1 in 7 days\n"
        "Model sonic-2 · Language en · Account default\n"
        "For the &lt;hotline&gt;\n"
        "`ft_1` · Observed 2026-11-23 19:03 UTC\n"
        f"{LINKS}",
        "blocks": [
            {
                "type": "section",
                "text": mrkdwn(
                    f"⚠️ *<{DETAILS}/ft_1|Fine-tune failed: My voice>* <!here>\n"
                    "Trained 2 h 10 min, usually 5 h · 3rd failure of dataset ds_1 in 7 days\n"
                    "Model sonic-2 · Language en · Account default\n"
                    "For the &lt;hotline&gt;"
                ),
            },
            {
                "type": "context",
                "elements": [mrkdwn(f"`ft_1` · Observed {OBSERVED}"), mrkdwn(LINKS)],
            },
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def test_the_note_is_the_first_line_below_the_title():
    note = "Muted until 14:00 by <alice>: still failed"
    body = json.loads(SLACK.render(build_message([FAILED], SETTINGS, HISTORY, note)))
    line = "Muted until 14:00 by &lt;alice&gt;: still failed"
    assert body["text"].splitlines()[1] == line
    assert body["blocks"][0]["text"]["text"].splitlines()[1] == line


def test_a_digest():
    body = json.loads(SLACK.render(build_message(failures(42), SETTINGS)))
    assert body["text"].splitlines() == [
        "<!here> ⚠️ 42 fine-tunes failed",
        "All 42 failures: dataset ds_1",
        "Model sonic-2 · Account default",
        "Observed 2026-11-23 19:03 UTC",
        *(f"• Voice {n} · `ft_{n}`" for n in range(20)),
        "and 22 more; `cartesia-exporter events list` shows them all",
        DIGEST_LINKS,
    ]
    title, lines, ids, foot = body["blocks"]
    assert title["text"]["text"].splitlines() == [
        "⚠️ *<https://watch.example/fine-tunes?status=failed|42 fine-tunes failed>* <!here>",
        "All 42 failures: dataset ds_1",
        "Model sonic-2 · Account default",
    ]
    assert lines["text"]["text"].splitlines()[0] == f"• <{DETAILS}/ft_0|Voice 0> · `ft_0`"
    assert ids == {"type": "section", "text": mrkdwn(", ".join(f"ft_{n}" for n in range(20, 42)))}
    last = OBSERVED.replace("1795460580", "1795460621")
    assert foot["elements"] == [mrkdwn(f"Observed {last}"), mrkdwn(DIGEST_LINKS)]


def test_a_test_message():
    body = json.loads(SLACK.render(build_message([TEST], SETTINGS)))
    assert body["text"].splitlines()[1] == "If you can read this."
    title, text = body["blocks"][0]["text"]["text"].splitlines()
    name = "Test message from cartesia-exporter, nothing failed"
    assert title == f"{INFORMATION} *<https://watch.example/|{name}>*"
    assert text == "If you can read this."


def test_the_minimal_failure():
    message = build_message([FAILED], SETTINGS, HISTORY, "note")
    assert json.loads(SLACK.render(message, minimal=True)) == {
        "text": "<!here> fine_tune.failed: ft_1",
        "unfurl_links": False,
        "unfurl_media": False,
    }
