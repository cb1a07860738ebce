"""Whatever the API said, Slack gets a message that it accepts and that pings nobody."""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.events import Event
from exporter.core.message import LinkTemplates, build_message
from exporter.core.model import FineTune
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from exporter.simulator.receiver import slack_refusal
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import AT, FAILED, PAGES, TEST, events, failures

ENDPOINT = Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/services/T/B/x"), 15)
MENTION = "<!subteam^S123|@voices> & co"

some_events = st.lists(events, min_size=1, max_size=30)
mentions = st.sampled_from(["", "<!here>", MENTION, "@" * 500])


def rendered(told: list[Event], mention: str = "", *, minimal: bool = False) -> dict[str, Any]:
    slack = Slack("team", ENDPOINT, mention)
    body: dict[str, Any] = json.loads(slack.render(build_message(told, PAGES), minimal=minimal))
    return body


def text_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every text object of a block, however deep."""
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
    """Nothing in it is an instruction to Slack, but for the mention and links of our own."""
    rest = markup.replace(mention, "") if mention else markup
    rest = re.sub(r"<https://(play|watch)\.example/[^<>|]*\|[A-Za-z ]+>", "", rest)
    assert re.search(r"[<>]|&(?!amp;|lt;|gt;)", rest) is None


@given(some_events, mentions)
def test_slack_accepts_any_message(told, mention):
    body = rendered(told, mention)
    assert slack_refusal(body) is None
    assert 1 <= len(body["blocks"]) <= 50
    for block in body["blocks"]:
        assert len(block.get("fields", [])) <= 10
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150


@given(some_events, mentions)
def test_no_text_is_empty_or_long_and_all_of_them_fit_slacks_unwritten_limit(told, mention):
    found = texts(rendered(told, mention))
    assert all(1 <= len(text) <= 3000 for text in found)
    assert sum(map(len, found)) <= 10_000


@given(some_events, mentions)
def test_nothing_from_the_api_pings_links_or_hides(told, mention):
    body = rendered(told, mention)
    for text in texts(body):
        assert_clean(text)
    assert_inert(body["text"], mention)
    for found in text_objects(body["blocks"]):
        if found["type"] == "mrkdwn":
            assert found["verbatim"] is True
            assert_inert(found["text"], mention)


@given(some_events, st.booleans())
def test_rendering_again_gives_the_same_bytes(told, minimal):
    slack, what = Slack("team", ENDPOINT, MENTION), build_message(told, PAGES)
    assert slack.render(what, minimal=minimal) == slack.render(what, minimal=minimal)


@given(some_events)
def test_the_minimal_message_is_one_short_ascii_line(told):
    body = rendered(told, minimal=True)
    assert slack_refusal(body) is None
    assert "blocks" not in body
    assert body["text"].isascii()
    assert body["text"].isprintable()
    assert 1 <= len(body["text"]) <= 1010
    assert_inert(body["text"], "")


@pytest.mark.parametrize("minimal", [False, True])
def test_the_mention_stands_as_it_was_configured(minimal):
    assert rendered([FAILED], MENTION, minimal=minimal)["text"].startswith(f"{MENTION} ")


def test_the_mention_has_a_line_of_its_own_under_the_title():
    assert rendered([FAILED], MENTION)["blocks"][1]["text"]["text"] == MENTION
    assert MENTION not in json.dumps(rendered([FAILED])["blocks"])


def test_thousands_of_failures_are_one_message_that_says_how_many_it_leaves_out():
    body = rendered(failures(5000))
    assert slack_refusal(body) is None
    shown = "\n".join(texts(body))
    [more] = re.findall(r"and (\d+) more; `cartesia-exporter events list` shows them all", shown)
    listed = {*re.findall(r"ft_\d+", shown)}
    assert body["text"] == "5000 fine-tunes failed"
    assert len(listed) + int(more) == 5000
    assert len(listed) > 500
    assert 9_000 < sum(map(len, texts(body))) <= 10_000


def test_a_digest_that_fits_leaves_nothing_out():
    shown = "\n".join(texts(rendered(failures(300))))
    assert {f"ft_{n}" for n in range(300)} <= {*re.findall(r"ft_\d+", shown)}
    assert "more;" not in shown


def test_the_minimal_digest_lists_ids_while_they_fit():
    body = rendered(failures(5000), minimal=True)
    assert body["text"].startswith("fine_tune.digest: ft_0 ft_1 ft_2 ")
    assert body["text"].endswith("...")


def test_more_facts_than_slack_takes_are_left_out():
    facts = tuple((f"name {n}", str(n)) for n in range(12))
    what = replace(build_message([FAILED], PAGES), facts=facts)
    body = json.loads(Slack("team", ENDPOINT).render(what))
    assert [len(block["fields"]) for block in body["blocks"] if "fields" in block] == [10]


def test_no_half_entity_is_left_where_text_is_cut():
    event = Event("evt", "fine_tune.failed", "a", AT, FineTune("ft_1", model_id="&" * 400), None)
    [model] = [text for text in texts(rendered([event])) if text.startswith("*Model*")]
    assert re.fullmatch(r"\*Model\*\n(&amp;){59}…", model)


def test_a_link_that_is_too_long_is_left_out():
    odd = Event("evt", "fine_tune.failed", "a", AT, FineTune("é" * 900), None)
    [links] = [text for text in texts(rendered([odd])) if "watch.example" in text]
    assert links == "<https://watch.example/|Status page>"


def test_without_a_usable_link_there_is_no_empty_block():
    odd = Event("evt", "fine_tune.failed", "a", AT, FineTune("é" * 900), None)
    slack, alone = Slack("team", ENDPOINT), LinkTemplates(PAGES.playground)
    body = json.loads(slack.render(build_message([odd], alone)))
    assert {block["type"] for block in body["blocks"]} == {"header", "section"}


def test_a_link_cannot_break_out_of_its_markup():
    pages = LinkTemplates("https://play.example/?a=1&b=<x>|y")
    body = json.loads(Slack("team", ENDPOINT).render(build_message([TEST], pages)))
    assert body["blocks"][-1]["elements"][0]["text"] == (
        "<https://play.example/?a=1&amp;b=%3Cx%3E%7Cy|Open the Playground>"
    )
