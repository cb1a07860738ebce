"""Messages before a receiver formats them."""

import unicodedata
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.core.events import (
    Event,
    EventType,
    poll_failing_event,
    poll_recovered_event,
    stable_id,
)
from exporter.core.links import Link, LinkTemplates, links
from exporter.core.message import Message, MessageSettings, build_message
from exporter.core.model import FineTune, Outage
from exporter.core.text import timestamp
from tests.core.histories import KEY, events_of, poll_result, rules, snapshot

AT = 1_795_460_580.9
PAGES = MessageSettings(LinkTemplates("https://play.example/tunes/{id}", "https://watch.example/"))
VOICE = FineTune("ft_1", "My voice", "For the\nhotline", "en", "sonic-2", "ds_1", "failed")


def of(fine_tune: FineTune, kind: str = "failed", previous: str | None = "training") -> Event:
    number = stable_id("evt", fine_tune.id, kind)
    kind_of_event = cast("EventType", f"fine_tune.{kind}")
    return Event(number, kind_of_event, "default", AT, fine_tune, previous)


def many(number: int, kind: str = "failed", model: str = "sonic-2") -> list[Event]:
    return [
        of(FineTune(f"{kind}_{n}", f"Voice {n}", model_id=model, status=kind), kind)
        for n in range(number)
    ]


def baseline(*statuses: str) -> Event:
    poll = {f"ft_{number}": status for number, status in enumerate(statuses)}
    [event] = events_of(poll_result(None, snapshot(poll), rules()))
    return event


def test_message_of_a_failure():
    assert build_message([of(VOICE)], PAGES) == Message(
        "fine_tune.failed",
        "Fine-tune failed: My voice",
        (of(VOICE),),
        PAGES,
        facts=(
            ("Account", "default"),
            ("Model", "sonic-2"),
            ("Status", "training → failed"),
            ("Language", "en"),
            ("Dataset", "ds_1"),
            ("Id", "ft_1"),
            ("Observed", "2026-11-23T19:03:00Z"),
        ),
        text="For the hotline",
    )


def test_empty_fields_have_no_fact():
    bare = build_message([of(FineTune("ft_1", status="failed"), previous=None)], PAGES)
    assert bare.title == "Fine-tune failed: ft_1"
    assert [name for name, _ in bare.facts] == ["Account", "Model", "Status", "Id", "Observed"]
    assert (bare.text, bare.lines, bare.rest) == ("", (), ())


def test_message_of_a_removal_has_the_last_status_once():
    gone = build_message([of(VOICE, "removed", previous="failed")], PAGES)
    assert ("Status", "failed") in gone.facts


def test_invisible_name_counts_as_missing():
    hidden = build_message([of(FineTune("ft_1", "\u200b\u202e"))], PAGES)
    assert hidden.title == "Fine-tune failed: ft_1"
    nameless = build_message([of(FineTune("\x00", "\u200b"))], PAGES)
    assert nameless.title == "Fine-tune failed: (unprintable id)"


def test_digest_counts_by_model_names_20_and_lists_other_ids():
    digest = build_message(many(23) + many(2, model="sonic-3"), PAGES)
    assert digest.title == "25 fine-tunes failed"
    assert digest.facts == (("sonic-2", "23"), ("sonic-3", "2"))
    assert digest.lines[0] == "Voice 0 (sonic-2, failed_0)"
    assert len(digest.lines) == 20
    assert digest.rest == ("failed_20", "failed_21", "failed_22", "failed_0", "failed_1")


@given(st.integers(2, 60), st.integers(0, 30), st.integers(0, 30))
def test_digest_names_or_lists_every_event(failures, completions, agents):
    accounts = [Event(str(n), "agent.baseline", f"account-{n}", AT) for n in range(agents)]
    events = many(completions, "completed") + accounts + many(failures)
    digest = build_message(events, PAGES)
    assert digest.events == tuple(events)
    assert len(digest.lines) + len(digest.rest) == len(events)
    shown = " ".join((*digest.lines, *digest.rest)) + " "
    for event in events:
        assert (event.fine_tune.id if event.fine_tune else event.account) in shown


def test_digest_has_failures_first():
    digest = build_message([*many(30, "completed"), *many(1)], PAGES)
    assert digest.title == "1 fine-tune failed; 30 fine-tunes completed"
    assert digest.lines[:2] == (
        "Voice 0 (sonic-2, failed_0)",
        "Voice 0 (sonic-2, completed_0) completed",
    )


def test_digest_with_many_models_counts_every_fine_tune():
    events = [event for n in range(30) for event in many(1, model=f"model-{n:02}")]
    facts = build_message(events, PAGES).facts
    assert len(facts) == 10
    assert facts[-1] == ("other models", "21")
    assert sum(int(number) for _, number in facts) == 30


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        ("failed", ["1 fine-tune failed", "2 fine-tunes failed"]),
        ("removed", ["1 fine-tune removed", "2 fine-tunes removed"]),
        ("created", ["1 fine-tune created", "2 fine-tunes created"]),
    ],
)
def test_titles_use_singular_and_plural(kind, titles):
    other = Event("a", "agent.baseline", "one", AT)
    found = [build_message([other, *many(n, kind)], PAGES).title.split("; ") for n in (1, 2)]
    assert [next(part for part in title if kind in part) for title in found] == titles
    assert "1 account newly watched" in found[0]


def test_message_of_a_baseline():
    message = build_message(
        [baseline("failed", "training", "completed", "paused", "failed")], PAGES
    )
    assert message.title == "Watching the fine-tunes of account default"
    assert message.facts == (
        ("Total", "5"),
        ("Created", "0"),
        ("Training", "1"),
        ("Completed", "1"),
        ("Failed", "2"),
        ("Unknown", "1"),
        ("Observed", "1970-01-01T00:16:40Z"),
    )
    assert message.lines == (
        "Failed before the watch began:",
        "poll 0 (model-ft_0, ft_0)",
        "poll 0 (model-ft_4, ft_4)",
    )


def test_baseline_names_20_failures_and_counts_the_others():
    lines = build_message([baseline(*["failed"] * 23)], PAGES).lines
    assert len(lines) == 22
    assert lines[-1] == "and 3 more"


def test_baseline_without_failures_names_none():
    assert build_message([baseline("training")], PAGES).lines == ()


def stuck(fine_tune_id: str) -> Event:
    waiting = structs.replace(VOICE, id=fine_tune_id, status="training")
    event = of(waiting, "stuck", previous="training")
    return replace(event, facts={"since": "2026-11-23T12:00:00Z"})


def test_message_of_a_stuck_fine_tune():
    message = build_message([stuck("ft_1")], PAGES)
    assert message.title == "Fine-tune stuck: My voice"
    assert message.facts[2:4] == (("Status", "training"), ("Since", "2026-11-23T12:00:00Z"))
    line = build_message([stuck("ft_1"), stuck("ft_2")], PAGES).lines[0]
    assert line == "My voice (sonic-2, ft_1) training since 2026-11-23T12:00:00Z"


OUTAGE = Outage(AT - 600, 0.0, has_baseline=True, reason="dns", error="no address for api.example")


def test_message_of_an_outage():
    message = build_message([poll_failing_event("store", KEY, OUTAGE, AT)], PAGES)
    assert message.title == "The fine-tunes of account default cannot be read"
    assert message.facts == (
        ("Reason", "dns"),
        ("Since", "2026-11-23T18:53:00Z"),
        ("Observed", "2026-11-23T19:03:00Z"),
    )
    assert message.text == (
        "Failures are not seen meanwhile; they are told when it can be read again. "
        "The last error: no address for api.example"
    )


def test_message_of_a_recovery_has_the_duration():
    message = build_message([poll_recovered_event("store", KEY, OUTAGE, AT, 600)], PAGES)
    assert message.title == "The fine-tunes of account default can be read again"
    assert message.text == "It could not be read for 10 min. What changed meanwhile is told now."


def test_digest_names_the_failing_account_and_the_reason():
    events = [
        poll_failing_event("store", KEY, OUTAGE, AT),
        poll_recovered_event("store", KEY, OUTAGE, AT, 600),
    ]
    assert build_message(events, PAGES).lines == (
        "The fine-tunes of account default cannot be read: dns",
        "The fine-tunes of account default can be read again",
    )


def test_link_quotes_the_fine_tune_id():
    odd = of(FineTune("a/b?c=<d>|é"))
    assert build_message([odd], PAGES).links == (
        Link(
            "details",
            "Details",
            "https://watch.example/fine-tunes/default/a%2Fb%3Fc%3D%3Cd%3E%7C%C3%A9",
        ),
        Link(
            "playground",
            "Open the Playground",
            "https://play.example/tunes/a%2Fb%3Fc%3D%3Cd%3E%7C%C3%A9",
        ),
        Link("status_page", "Status page", "https://watch.example/"),
    )


def test_a_link_to_details_that_is_too_long_is_left_out():
    def names(fine_tune_id: str) -> list[str]:
        return [each.name for each in links(of(FineTune(fine_tune_id)), PAGES.links)]

    begin = len("https://watch.example/fine-tunes/default/")
    assert names("a" * (2000 - begin)) == ["details", "playground", "status_page"]
    assert names("a" * (2001 - begin)) == ["playground", "status_page"]


def test_digest_links_to_no_single_fine_tune():
    assert build_message(many(2), PAGES).links[0].url == "https://play.example/tunes/"
    assert links(None, LinkTemplates("https://play.example/")) == (
        Link("playground", "Open the Playground", "https://play.example/"),
    )


hostile = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\x00", "\u202e", "a\nb", "x" * 5000, "{account}", "{id}", "%s"]
)
fine_tunes = st.builds(
    FineTune, hostile.filter(bool), hostile, hostile, hostile, hostile, hostile, hostile
)


@given(st.lists(fine_tunes, min_size=1, max_size=25))
def test_messages_have_no_control_characters_and_bounded_texts(found):
    message = build_message([of(fine_tune) for fine_tune in found], PAGES)
    shown = [message.title, message.text, *message.lines, *message.rest]
    shown += [text for fact in message.facts for text in fact]
    for text in shown:
        assert len(text) <= 2100
        assert {unicodedata.category(c) for c in text if c != "\u200d"}.isdisjoint({"Cc", "Cf"})
    assert all((*message.lines, *message.rest, message.title))
    assert all(link.url.isascii() for link in message.links)


def test_timestamps_are_utc_in_seconds():
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(AT) == "2026-11-23T19:03:00Z"
