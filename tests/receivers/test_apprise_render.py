"""Messages as plain text for the services of Apprise."""

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import WARNING, build_message
from exporter.core.event_context import EventContext
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.receivers.apprise import Apprise
from exporter.receivers.receiver import REPEAT
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import AT, FAILED, SETTINGS, TEST, events, failures

MAIL = Apprise("mail", FakeSecret("mailto://user:password@example.com"), 15)

some_events = st.lists(events, min_size=1, max_size=30)


def rendered(reported: list[Event], *, minimal: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        MAIL.render(build_message(reported, SETTINGS), minimal=minimal)
    )
    return body


@given(some_events)
def test_messages_and_repeats_are_within_the_limits(reported):
    first = MAIL.render(build_message(reported, SETTINGS))
    for found in (json.loads(first), json.loads(MAIL.repeated(first))):
        assert set(found) == {"title", "body", "type"}
        assert 1 <= len(found["title"]) <= 250
        assert 1 <= len(found["body"]) <= 10_000


@given(some_events)
def test_text_from_the_api_has_no_mention_and_no_hidden_characters(reported):
    found = rendered(reported)
    for text in (found["title"], found["body"]):
        hidden = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        assert hidden <= {"\n", "\u200d"}
        assert not {"@", "<", ">"} & {*text}
    assert "\n" not in found["title"]


@given(some_events, st.booleans())
def test_rendering_again_gives_the_same_bytes(reported, minimal):
    message = build_message(reported, SETTINGS)
    assert MAIL.render(message, minimal=minimal) == MAIL.render(message, minimal=minimal)


@given(some_events)
def test_the_minimal_message_is_one_ascii_line_that_fits_an_sms(reported):
    found = rendered(reported, minimal=True)
    assert found["title"] == ""
    assert found["body"].isascii()
    assert found["body"].isprintable()
    assert 1 <= len(found["body"]) <= 140


def test_the_minimal_message_has_type_and_id():
    assert rendered([FAILED], minimal=True)["body"] == "fine_tune.failed: ft_1"
    assert rendered([TEST], minimal=True)["body"] == "agent.test: default"


def test_a_failure_has_all_facts_and_links():
    contexts = {"evt_1": EventContext(7_800.0, 18_000.0, 3)}
    message = build_message([FAILED], SETTINGS, contexts, "Muted until 14:00")
    assert json.loads(MAIL.render(message)) == {
        "title": f"{WARNING} Fine-tune failed: My voice",
        "body": "Muted until 14:00\n"
        "Trained 2 h 10 min, usually 5 h\n"
        "3rd failure of dataset ds_1 in 7 days\n"
        "\n"
        "Model: sonic-2\n"
        "Language: en\n"
        "Account: default\n"
        "Observed: 2026-11-23 19:03 UTC\n"
        "Id: ft_1\n"
        "\n"
        "For the \u2039hotline\u203a\n"
        "\n"
        "Details: https://watch.example/fine-tunes/default/ft_1\n"
        "Playground: https://play.example/tunes/ft_1",
        "type": "failure",
    }


def test_a_repeat_has_a_further_first_line():
    first = MAIL.render(build_message([FAILED], SETTINGS))
    again = json.loads(MAIL.repeated(first))
    assert again == {**json.loads(first), "body": f"{REPEAT}\n{json.loads(first)['body']}"}


def test_a_digest_of_thousands_counts_the_failures_that_it_leaves_out():
    found = rendered(failures(5000))
    assert found["title"] == f"{WARNING} 5000 fine-tunes failed"
    assert "and 4980 more; `cartesia-exporter events list` shows them all" in found["body"]
    listed = re.findall(r"ft_\d+", found["body"])
    assert listed == [f"ft_{n}" for n in range(len(listed))]
    assert len(listed) > 500
    assert 9_900 < len(found["body"]) < 10_000


def test_a_digest_that_fits_names_all():
    found = rendered(failures(300))["body"]
    assert [*re.findall(r"ft_\d+", found)] == [f"ft_{n}" for n in range(300)]
    assert "more" not in rendered(failures(20))["body"]


def test_a_link_that_is_too_long_is_left_out():
    odd = Event("evt", "fine_tune.failed", "a", AT, FineTune("é" * 900), None)
    assert "https://" not in rendered([odd])["body"]


def agent(event_type) -> Event:
    return Event("evt", event_type, "default", AT)


@pytest.mark.parametrize(
    ("reported", "apprise_type"),
    [
        ([FAILED], "failure"),
        ([TEST], "info"),
        ([agent("agent.poll_recovered")], "success"),
        ([agent("agent.receiver_unhealthy")], "warning"),
        ([agent("agent.poll_recovered"), TEST], "info"),
        ([TEST, agent("agent.poll_recovered"), FAILED], "failure"),
    ],
)
def test_the_type_is_that_of_the_gravest_event(reported, apprise_type):
    """PagerDuty and others use it as the severity."""
    assert rendered(reported)["type"] == apprise_type
    assert rendered(reported, minimal=True)["type"] == apprise_type
