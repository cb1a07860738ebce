"""The line that Slack messages get when they may have arrived already."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import build_message
from exporter.core.events import Event
from exporter.receivers.slack import Slack
from exporter.simulator.receiver import slack_refusal
from tests.receivers.sample_events import FAILED, SETTINGS, always, events, failures
from tests.receivers.test_slack_render import ENDPOINT, texts

REPEAT = "possible repeat: the answer to this message was lost"


def both(
    reported: list[Event], mention: str = "", *, minimal: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    slack = Slack("team", ENDPOINT, always(mention))
    body = slack.render(build_message(reported, SETTINGS), minimal=minimal)
    return json.loads(body), json.loads(slack.repeated(body))


def test_a_repeat_has_a_further_line():
    first, again = both([FAILED])
    assert again["text"] == f"{first['text']}\n{REPEAT}"
    line = {"type": "plain_text", "text": REPEAT, "emoji": False}
    assert again["blocks"] == [*first["blocks"], {"type": "context", "elements": [line]}]


def test_a_minimal_repeat_has_a_further_line():
    first, again = both([FAILED], minimal=True)
    assert again == first | {"text": f"{first['text']}\n{REPEAT}"}


@given(
    st.lists(events, min_size=1, max_size=30),
    st.sampled_from(["", "<!here>", "@" * 500]),
    st.booleans(),
)
def test_slack_accepts_any_repeat_and_only_the_line_is_added(reported, mention, minimal):
    first, again = both(reported, mention, minimal=minimal)
    assert slack_refusal(again) is None
    assert_within_limits(again)
    assert again["text"].removesuffix(f"\n{REPEAT}") == first.pop("text")
    assert again.get("blocks", [None])[:-1] == first.pop("blocks", [])
    del again["text"]
    again.pop("blocks", None)
    assert again == first


def test_a_repeat_of_thousands_of_failures_fits():
    first, again = both(failures(5000), "@" * 500)
    assert_within_limits(again)
    assert sum(map(len, texts(first))) > 9_000


def assert_within_limits(body: dict[str, Any]) -> None:
    assert len(body.get("blocks", [])) <= 50
    text, *others = texts(body)
    assert 1 <= len(text) <= 4_000
    assert all(1 <= len(each) <= 3_000 for each in others)
    assert len(text) + sum(map(len, others)) <= 10_000
