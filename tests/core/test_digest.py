"""Digests of several events, before a receiver formats them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from exporter.core.compose import ALARM, WARNING, build_message
from exporter.core.event_context import EventContext
from exporter.core.events import Event
from exporter.core.links import LinkTemplates
from exporter.core.message import Fact, Line, Message, MessageSettings
from exporter.core.project import DOCUMENTATION_URL
from tests.core.sample_messages import AT, PAGES, VOICE, many, of
from tests.core.test_compose import circuit, failing, names, recovered


def details(message: Message) -> list[tuple[str, ...]]:
    return [line.details for line in message.lines]


def test_a_digest_names_40_and_lists_ids_of_more():
    digest = build_message(many(40, dataset="ds_1"), PAGES)
    assert digest.title == "40 fine-tunes failed"
    url = "https://watch.example/fine-tunes/default/failed_0"
    assert digest.lines[0] == Line("Voice 0", "failed_0", (), url)
    assert (len(digest.lines), digest.rest) == (40, ())
    digest = build_message(many(41, dataset="ds_1"), PAGES)
    assert len(digest.lines) == 20
    assert digest.rest == tuple(f"failed_{n}" for n in range(20, 41))


@given(st.integers(2, 60), st.integers(0, 30), st.integers(0, 30))
def test_a_digest_names_or_lists_every_event(failures, completions, agents):
    accounts = [Event(str(n), "agent.baseline", f"account-{n}", AT) for n in range(agents)]
    events = many(completions, "completed") + accounts + many(failures)
    digest = build_message(events, PAGES)
    assert digest.events == tuple(events)
    assert len(digest.lines) + len(digest.rest) == len(events)
    shown = " ".join((*map(str, digest.lines), *digest.rest)) + " "
    for event in events:
        assert (event.fine_tune.id if event.fine_tune else event.account) in shown


def test_a_digest_has_failures_first_and_says_what_happened_to_the_others():
    digest = build_message([*many(50, "completed"), *many(1)], PAGES)
    assert digest.title == "1 fine-tune failed; 50 fine-tunes completed"
    assert [line.id for line in digest.lines[:2]] == ["failed_0", "completed_0"]
    assert details(digest)[:2] == [("failed",), ("completed",)]
    assert digest.sign == WARNING


def test_what_all_have_in_common_is_said_once():
    digest = build_message(many(2, dataset="ds_1"), PAGES)
    assert digest.highlights == ()
    assert digest.facts[:3] == (
        Fact("Dataset", "ds_1"),
        Fact("Model", "sonic-2"),
        Fact("Account", "default"),
    )
    assert details(digest) == [(), ()]


def test_what_differs_is_in_the_lines():
    other = replace(many(1, model="sonic-3", dataset="ds_2")[0], account="research")
    digest = build_message([*many(1, dataset="ds_1"), other], PAGES)
    assert digest.facts == (Fact("Observed", "2026-11-23 19:03 UTC", AT),)
    assert details(digest) == [("ds_1", "sonic-2", "default"), ("ds_2", "sonic-3", "research")]


def test_a_digest_points_out_the_dataset_and_the_model_of_most_failures():
    most = many(12, dataset="ds_1")
    others = many(2, model="sonic-3", dataset="ds_2")
    digest = build_message([*most, *others], PAGES)
    assert digest.highlights == (
        "12 of 14 failures: dataset ds_1",
        "12 of 14 failures: model sonic-2",
    )
    assert details(digest) == [*[()] * 12, *[("ds_2", "sonic-3")] * 2]


def test_a_digest_says_how_often_the_dataset_failed_in_7_days():
    reported = many(3, dataset="ds_1")
    contexts = {event.id: EventContext(failures_of_dataset_7d=5) for event in reported}
    digest = build_message(reported, PAGES, contexts)
    assert digest.highlights == ("All 3 failures: dataset ds_1, 5 in 7 days",)


@pytest.mark.parametrize(("most", "others"), [(2, 0), (2, 1), (5, 3), (12, 7)])
def test_a_share_that_is_small_is_not_pointed_out(most, others):
    rest = [
        of(structs.replace(VOICE, id=f"o{n}", dataset=f"d{n}", model_id=f"m{n}"))
        for n in range(others)
    ]
    assert build_message([*many(most, dataset="ds_1"), *rest], PAGES).highlights == ()


def test_lines_say_how_long_each_trained_and_the_digest_once_what_is_usual():
    reported = many(2)
    contexts = {event.id: EventContext(600.0 * n, 18_000.0) for n, event in enumerate(reported, 1)}
    digest = build_message(reported, PAGES, contexts)
    assert Fact("Usual training", "5 h") in digest.facts
    assert details(digest) == [("trained 10 min",), ("trained 20 min",)]
    contexts[reported[0].id] = EventContext(600.0, 3_600.0)
    assert details(build_message(reported, PAGES, contexts)) == [
        ("trained 10 min, usually 1 h",),
        ("trained 20 min, usually 5 h",),
    ]


def test_a_digest_over_some_time_says_from_when_to_when():
    first, last = many(2)
    digest = build_message([first, replace(last, observed_at=AT + 300)], PAGES)
    assert digest.facts[-2:] == (
        Fact("First", "2026-11-23 19:03 UTC", AT),
        Fact("Last", "2026-11-23 19:08 UTC", AT + 300),
    )


def test_the_title_of_failures_leads_to_the_list_of_failed_fine_tunes():
    digest = build_message(many(2), PAGES)
    assert digest.url == "https://watch.example/fine-tunes?status=failed"
    assert [link.url for link in digest.links] == [
        "https://watch.example/",
        "https://play.example/tunes/",
    ]
    alone = MessageSettings(LinkTemplates("https://play.example/"))
    assert build_message(many(2), alone).url == "https://play.example/"
    assert build_message(many(2, "completed"), PAGES).url == "https://watch.example/"


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


def test_a_digest_of_agent_events():
    end = recovered(None).events[0]
    digest = build_message([failing(), end, circuit(PAGES, opened=True).events[0]], PAGES)
    assert digest.title == (
        "1 account cannot be read; 1 account can be read again; 1 receiver rejecting notifications"
    )
    assert [*map(str, digest.lines)] == [
        "Account default cannot be read · dns",
        "Account default can be read again",
        "Receiver team-slack rejects notifications · answered 404 no_service",
    ]
    assert names(digest) == ["runbook", "status_page"]
    assert digest.links[0].url == f"{DOCUMENTATION_URL}/runbooks.md"
    assert (digest.sign, digest.id) == (ALARM, "")


def test_a_digest_of_recoveries_may_have_no_link():
    settings = replace(PAGES, links=LinkTemplates("https://play.example/"))
    digest = build_message([recovered(None).events[0]] * 2, settings)
    assert (digest.url, digest.links) == ("", ())
