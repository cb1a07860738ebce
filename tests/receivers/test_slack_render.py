"""Slack accepts messages with any text from the API, and they mention nobody."""

import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import Event
from exporter.core.links import LinkTemplates
from exporter.core.message import MessageSettings
from exporter.core.model import FineTune
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from exporter.simulator.receiver import slack_refusal
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import (
    AT,
    FAILED,
    SETTINGS,
    TEST,
    always,
    events,
    failures,
    hostile,
)

ENDPOINT = Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/services/T/B/x"), 15)
MENTION = "<!subteam^S123|@voices> & co"

some_events = st.lists(events, min_size=1, max_size=30)
mentions = st.sampled_from(["", "<!here>", MENTION, "@" * 500])


def rendered(
    reported: list[Event],
    mention: str = "",
    *,
    minimal: bool = False,
    contexts: Mapping[str, EventContext] | None = None,
    note: str = "",
) -> dict[str, Any]:
    slack = Slack("team", ENDPOINT, always(mention))
    message = build_message(reported, SETTINGS, contexts, note)
    body: dict[str, Any] = json.loads(slack.render(message, minimal=minimal))
    return body


def with_history(reported: list[Event]) -> dict[str, EventContext]:
    return {event.id: EventContext(7_800.0, 18_000.0, 99) for event in reported}


def text_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the text objects of a block, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from text_objects(item)
    elif isinstance(value, dict):
        if value.get("type") in {"mrkdwn", "plain_text"}:
            yield value
        for item in value.values():
            yield from text_objects(item)


def texts(body: dict[str, Any]) -> list[str]:
    return [body["text"], *(found["text"] for found in text_objects(body.get("blocks")))]


def assert_clean(text: str) -> None:
    hidden = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert hidden <= {"\n", "\u200d"}


def assert_inert(markup: str, mention: str) -> None:
    """Check that the only markup is the mention, our own links and times."""
    rest = markup.replace(mention, "") if mention else markup
    rest = re.sub(r"<https://(?:play|watch|github)\.[^<>|]*\|([^<>]*)>", r"\1", rest)
    rest = re.sub(r"<!date\^\d+\^{date_short_pretty} {time}\|[\d: -]+UTC>", "", rest)
    assert re.search(r"[<>]|&(?!amp;|lt;|gt;)", rest) is None


@given(some_events, mentions, hostile)
def test_slack_accepts_any_message(reported, mention, note):
    body = rendered(reported, mention, contexts=with_history(reported), note=note)
    assert slack_refusal(body) is None
    assert 1 <= len(body["blocks"]) <= 50
    for block in body["blocks"]:
        assert len(block.get("elements", [])) <= 10


@given(some_events, mentions, hostile)
def test_texts_are_within_slacks_limits(reported, mention, note):
    body = rendered(reported, mention, contexts=with_history(reported), note=note)
    [text, *found] = texts(body)
    assert 1 <= len(text) <= 4_000
    assert all(1 <= len(each) <= 3000 for each in found)
    found.append(text)
    assert sum(map(len, found)) <= 10_000


@given(some_events, mentions, hostile)
def test_text_from_outside_is_no_markup_and_has_no_hidden_characters(reported, mention, note):
    body = rendered(reported, mention, contexts=with_history(reported), note=note)
    for text in texts(body):
        assert_clean(text)
    assert_inert(body["text"], mention)
    for found in text_objects(body["blocks"]):
        if found["type"] == "mrkdwn":
            assert found["verbatim"] is True
            assert_inert(found["text"], mention)


@given(some_events, st.booleans())
def test_rendering_again_gives_the_same_bytes(reported, minimal):
    slack, message = Slack("team", ENDPOINT, always(MENTION)), build_message(reported, SETTINGS)
    assert slack.render(message, minimal=minimal) == slack.render(message, minimal=minimal)


@given(some_events)
def test_the_minimal_message_is_one_short_ascii_line(reported):
    body = rendered(reported, minimal=True)
    assert slack_refusal(body) is None
    assert "blocks" not in body
    assert body["text"].isascii()
    assert body["text"].isprintable()
    assert 1 <= len(body["text"]) <= 1010
    assert_inert(body["text"], "")


@pytest.mark.parametrize("minimal", [False, True])
def test_the_mention_is_not_escaped(minimal):
    assert rendered([FAILED], MENTION, minimal=minimal)["text"].startswith(f"{MENTION} ")


def test_the_mention_follows_the_title():
    title = rendered([FAILED], MENTION)["blocks"][0]["text"]["text"].splitlines()[0]
    assert title.endswith(f"* {MENTION}")
    assert MENTION not in json.dumps(rendered([FAILED])["blocks"])


def test_a_digest_of_thousands_counts_the_failures_that_it_leaves_out():
    body = rendered(failures(5000))
    assert slack_refusal(body) is None
    text = "\n".join(texts(body)[1:])
    [more] = re.findall(r"and (\d+) more; `cartesia-exporter events list` shows them all", text)
    listed = {*re.findall(r"ft_\d+", text)}
    assert body["text"].splitlines()[0].endswith(" 5000 fine-tunes failed")
    assert len(listed) + int(more) == 5000
    assert len(listed) > 400
    assert 9_000 < sum(map(len, texts(body))) <= 10_000


def test_a_digest_that_fits_leaves_nothing_out():
    text = "\n".join(texts(rendered(failures(300)))[1:])
    assert {f"ft_{n}" for n in range(300)} <= {*re.findall(r"ft_\d+", text)}
    assert "more;" not in text


def test_the_minimal_digest_lists_ids_while_they_fit():
    body = rendered(failures(5000), minimal=True)
    assert body["text"].startswith("fine_tune.digest: ft_0 ft_1 ft_2 ")
    assert body["text"].endswith("...")


@given(some_events, mentions)
def test_the_text_alone_names_each_fine_tune_or_how_many_it_leaves_out(reported, mention):
    message = build_message(reported, SETTINGS)
    text = rendered(reported, mention)["text"]
    if len(reported) > 1:
        missing = re.search(r"and (\d+) more;", text)
        named = sum(line.startswith("• ") for line in text.splitlines())
        assert named + int(missing[1] if missing else 0) == len(reported)
    elif reported[0].fine_tune is not None:
        assert slack_line(message.id)[:100] in text


def slack_line(text: str) -> str:
    return html.escape(text, quote=False).replace("`", "'")


def test_text_is_not_cut_within_an_entity():
    event = Event("evt", "fine_tune.failed", "a", AT, FineTune("ft_1", model_id="&" * 400), None)
    head = rendered([event])["blocks"][0]["text"]["text"]
    assert re.search(r"\nModel (&amp;){21}… · ", head)


def test_a_title_that_is_too_long_is_cut():
    event = Event("evt", "fine_tune.failed", "a", AT, FineTune("ft_1", "&" * 400), None)
    title = rendered([event])["blocks"][0]["text"]["text"].splitlines()[0]
    assert re.search(r"\|Fine-tune failed: (&amp;){26}…>\*$", title)


LONG = Event("evt", "fine_tune.failed", "a", AT, FineTune("é" * 900), None)


def test_a_link_that_is_too_long_is_left_out():
    shown = "\n".join(texts(rendered([LONG])))
    assert "watch.example" not in shown
    assert "play.example" not in shown


def test_without_a_usable_link_there_is_no_empty_text():
    long = MessageSettings(LinkTemplates(f"https://play.example/{'x' * 1000}"))
    body = json.loads(Slack("team", ENDPOINT).render(build_message([TEST], long)))
    assert [block["type"] for block in body["blocks"]] == ["section"]
    assert slack_refusal(body) is None


def test_lines_have_links_while_all_of_them_fit():
    few, many = (json.dumps(rendered(failures(n))["blocks"]) for n in (40, 4_000))
    assert few.count("|Voice ") == 40
    assert many.count("|Voice ") == 0
    assert many.count("Voice ") == 20


def test_a_link_cannot_break_out_of_its_markup():
    settings = MessageSettings(LinkTemplates("https://play.example/?a=1&b=<x>|y"))
    body = json.loads(Slack("team", ENDPOINT).render(build_message([TEST], settings)))
    assert body["blocks"][-1]["elements"][0]["text"] == (
        "<https://play.example/?a=1&amp;b=%3Cx%3E%7Cy|Playground>"
    )
