"""Messages about one event, before a receiver formats them."""

import unicodedata
from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from exporter.core.compose import ALARM, INFORMATION, SUCCESS, WARNING, build_message
from exporter.core.event_context import EventContext
from exporter.core.events import (
    EVENT_TYPES,
    Event,
    Subscription,
    circuit_event,
    poll_failing_event,
    poll_recovered_event,
)
from exporter.core.facts import recovery_facts, unknown_status_facts
from exporter.core.links import Link, LinkTemplates
from exporter.core.message import Fact, Line, Message, MessageSettings
from exporter.core.model import FineTune, Outage
from exporter.core.project import DOCUMENTATION_URL
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from tests.core.histories import KEY, events_of, poll_result, rules, snapshot
from tests.core.sample_messages import AT, PAGES, VOICE, of

OBSERVED = Fact("Observed", "2026-11-23 19:03 UTC", AT)
PLAYGROUND = Link("playground", "Playground", "https://play.example/tunes/ft_1")
STATUS_PAGE = Link("status_page", "Status page", "https://watch.example/")
ONLY_PLAYGROUND = MessageSettings(LinkTemplates("https://play.example/"))


def known(
    event: Event, trained: float | None = None, usual: float | None = None, failures: int = 1
) -> Message:
    return build_message([event], PAGES, {event.id: EventContext(trained, usual, failures)})


def test_message_of_a_failure_without_history():
    details = "https://watch.example/fine-tunes/default/ft_1"
    assert build_message([of(VOICE)], PAGES) == Message(
        "fine_tune.failed",
        "Fine-tune failed: My voice",
        (of(VOICE),),
        PAGES,
        sign=WARNING,
        url=details,
        facts=(
            Fact("Model", "sonic-2"),
            Fact("Dataset", "ds_1"),
            Fact("Language", "en"),
            Fact("Status", "training → failed"),
            Fact("Account", "default"),
            OBSERVED,
        ),
        id="ft_1",
        text="For the hotline",
        links=(Link("details", "Details", details), PLAYGROUND),
    )


def test_a_failure_says_how_long_it_trained_and_what_is_usual():
    assert known(of(VOICE), 7_800, 18_000).highlights == ("Trained 2 h 10 min, usually 5 h",)
    assert known(of(VOICE), 7_800).highlights == ("Trained 2 h 10 min",)
    assert known(of(VOICE), None, 18_000).highlights == ()


def test_the_status_is_left_out_if_it_is_said_otherwise():
    def statuses(event: Event, trained: float | None = None) -> list[str]:
        return [fact.value for fact in known(event, trained).facts if fact.name == "Status"]

    assert statuses(of(VOICE), 60) == []
    assert statuses(of(VOICE, previous=None)) == []
    assert statuses(of(VOICE, "removed", previous="failed")) == ["failed"]
    # alerts.failed_statuses: the API's own word is worth knowing.
    assert statuses(of(structs.replace(VOICE, status="ABORTED")), 60) == ["training → ABORTED"]


@pytest.mark.parametrize(
    ("number", "phrases"),
    [
        (0, ()),
        (1, ()),
        (2, ("2nd failure of dataset ds_1 in 7 days",)),
        (3, ("3rd failure of dataset ds_1 in 7 days",)),
        (11, ("11th failure of dataset ds_1 in 7 days",)),
        (122, ("122nd failure of dataset ds_1 in 7 days",)),
    ],
)
def test_a_failure_is_counted_for_its_dataset_from_the_second_on(number, phrases):
    message = known(of(VOICE), failures=number)
    assert message.highlights == phrases
    assert (Fact("Dataset", "ds_1") in message.facts) is not phrases


def test_only_failures_are_counted_for_the_dataset():
    assert (
        known(of(structs.replace(VOICE, status="completed"), "completed"), failures=3).highlights
        == ()
    )


def test_empty_fields_have_no_fact():
    bare = build_message([of(FineTune("ft_1", status="failed"), previous=None)], PAGES)
    assert bare.title == "Fine-tune failed: ft_1"
    assert [fact.name for fact in bare.facts] == ["Model", "Account", "Observed"]
    assert (bare.text, bare.lines, bare.rest, bare.note) == ("", (), (), "")


def test_invisible_name_counts_as_missing():
    hidden = build_message([of(FineTune("ft_1", "\u200b\u202e"))], PAGES)
    assert hidden.title == "Fine-tune failed: ft_1"
    nameless = build_message([of(FineTune("\x00", "\u200b"))], PAGES)
    assert nameless.title == "Fine-tune failed: (unprintable id)"


def test_without_a_status_page_the_title_leads_to_the_playground():
    message = build_message([of(VOICE)], ONLY_PLAYGROUND)
    assert message.url == "https://play.example/"
    assert [link.name for link in message.links] == ["playground"]


def test_the_dashboard_shows_the_training_or_the_hour_around_the_event():
    templates = LinkTemplates(
        "https://play.example/",
        grafana="https://g.example/d?a={account}&m={model_id}&i={id}&from={from_ms}&to={to_ms}",
    )
    event = of(structs.replace(VOICE, model_id="a&b"))
    settings = replace(PAGES, links=templates)
    begin = "https://g.example/d?a=default&m=a%26b&i=ft_1&"
    trained = build_message([event], settings, {event.id: EventContext(600.0)})
    assert trained.links[-1] == Link(
        "grafana", "Grafana", f"{begin}from=1795459980900&to=1795460580900"
    )
    alone = build_message([event], settings)
    assert alone.links[-1].url == f"{begin}from=1795458780900&to=1795462380900"


def test_an_event_without_a_value_for_the_dashboard_has_no_link_to_it():
    templates = LinkTemplates("https://play.example/", grafana="https://g.example/{model_id}")
    settings = replace(PAGES, links=templates)
    assert "grafana" not in names(build_message([failing()], settings))
    assert "grafana" not in names(build_message([of(FineTune("x", model_id=""))], settings))
    by_account = replace(templates, grafana="https://g.example/{account}")
    settings = replace(PAGES, links=by_account)
    assert "grafana" in names(build_message([failing()], settings))
    assert "grafana" not in names(circuit(settings, opened=True))


def names(message: Message) -> list[str]:
    return [link.name for link in message.links]


def test_the_note_is_kept_in_one_line():
    message = build_message([of(VOICE)], PAGES, {}, "Muted until 14:00\nby alice")
    assert message.note == "Muted until 14:00 by alice"


SIGNS = {"critical": ALARM, "page": ALARM, "warning": WARNING, "p3": WARNING, "info": INFORMATION}


def test_signs_by_severity():
    for severity, sign in SIGNS.items():
        settings = replace(PAGES, severities={"failed": severity})
        assert build_message([of(VOICE)], settings).sign == sign


def test_signs_of_what_is_no_trouble():
    signs = {
        event_type: build_message([Event("evt", event_type, "default", AT)], PAGES).sign
        for event_type, traits in EVENT_TYPES.items()
        if not traits.is_trouble
    }
    assert signs["agent.poll_recovered"] == signs["fine_tune.completed"] == SUCCESS
    assert signs["agent.baseline"] == signs["fine_tune.removed"] == INFORMATION
    assert signs["agent.unknown_status"] == WARNING


def baseline(*statuses: str) -> Event:
    poll = {f"ft_{number}": status for number, status in enumerate(statuses)}
    [event] = events_of(poll_result(None, snapshot(poll), rules()))
    return event


def test_message_of_a_baseline():
    event = baseline("failed", "training", "completed", "paused", "failed")
    message = build_message([event], PAGES)
    assert message.title == "Watching account default"
    assert message.highlights == ("5 fine-tunes: 1 training, 1 completed, 2 failed, 1 unknown",)
    assert message.lines == (Line("Failed before: poll 0 · poll 0"),)
    assert message.facts == ()
    assert names(message) == ["status_page", "playground"]


OF_FINE_TUNES = "From now on this receiver is notified when a fine-tune "
OF_TROUBLES = "an account cannot be read or another receiver rejects notifications."


def test_a_baseline_says_what_its_receiver_is_notified_of():
    def text(*words: Subscription, has_match: bool = False) -> str:
        settings = replace(PAGES, subscriptions=words, has_match=has_match)
        return build_message([baseline("training")], settings).text

    assert text() == ""
    assert all(text(word) for word in get_args(Subscription))
    assert text("failed", "stuck", "completed") == f"{OF_FINE_TUNES}fails, is stuck or completes."
    assert text("failed", has_match=True) == f"{OF_FINE_TUNES}that is routed to it fails."
    assert text("agent") == f"From now on this receiver is notified when {OF_TROUBLES}"
    assert text("failed", "agent") == f"{OF_FINE_TUNES}fails, and when {OF_TROUBLES}"


def test_a_baseline_names_5_failures_and_counts_the_others():
    [line] = build_message([baseline(*["failed"] * 23)], PAGES).lines
    assert line.name.count("poll 0") == 5
    assert line.name.endswith(" · 18 more")


def test_a_baseline_without_failures_names_none():
    message = build_message([baseline("training")], PAGES)
    assert message.highlights == ("1 fine-tune: 1 training",)
    assert message.lines == ()
    assert build_message([baseline()], PAGES).highlights == ("No fine-tunes",)


def stuck(status: str) -> Event:
    event = of(structs.replace(VOICE, status=status), "stuck", previous=status)
    return replace(event, facts={"since": "2026-11-23T12:00:00Z", "seconds": 25_380})


def test_message_of_a_stuck_fine_tune():
    message = known(stuck("training"), 25_380, 18_000)
    assert message.title == "Fine-tune stuck: My voice"
    assert message.highlights == ("In training for 7 h 03 min, usually 5 h",)
    assert message.facts[-1] == Fact("Since", "2026-11-23 12:00 UTC", 1_795_435_200.0)
    assert [fact.name for fact in message.facts] == [
        "Model", "Dataset", "Language", "Account", "Since"
    ]  # fmt: skip
    assert known(stuck("created"), None, 18_000).highlights == ("In created for 7 h 03 min",)


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        ("completed", "Completed after it had failed"),
        ("training", "Trains again after it had failed"),
        ("created", "Starts again after it had failed"),
    ],
)
def test_message_of_a_recovered_fine_tune(status, phrase):
    event = of(structs.replace(VOICE, status=status), "recovered", previous="failed")
    message = build_message([event], PAGES)
    assert (message.sign, message.title) == (SUCCESS, "Fine-tune recovered: My voice")
    assert message.highlights == (phrase,)
    assert "Status" not in [fact.name for fact in message.facts]
    other = of(structs.replace(VOICE, id="ft_2", status=status), "recovered", previous="failed")
    [line, _] = build_message([event, other], PAGES).lines
    assert line.details == (phrase[0].lower() + phrase[1:],)


OUTAGE = Outage(AT - 660, 0.0, has_baseline=True, reason="dns", error="no address for api.example")


def failing(outage: Outage = OUTAGE) -> Event:
    return poll_failing_event("store", KEY, outage, AT)


def test_message_of_an_outage():
    message = build_message([failing()], PAGES)
    assert (message.sign, message.title) == (ALARM, "Account default cannot be read")
    assert message.text == (
        "The last error (dns): no address for api.example. Until the account can be read again, "
        "failures are not noticed; they are reported then."
    )
    assert message.facts == (Fact("Since", "2026-11-23 18:52 UTC", 1_795_459_920.0),)
    runbook = f"{DOCUMENTATION_URL}/runbooks.md#cartesiapollfailing"
    assert message.links == (Link("runbook", "Runbook", runbook), STATUS_PAGE)
    assert message.url == "https://watch.example/"
    assert build_message([failing()], ONLY_PLAYGROUND).url == runbook


def test_message_of_an_account_that_was_never_read():
    message = build_message([failing(replace(OUTAGE, has_baseline=False))], PAGES)
    assert message.text.endswith("The account was never read completely: its watch has not begun.")


def recovered(changes: Mapping[str, int] | None, outage: Outage = OUTAGE) -> Message:
    facts = recovery_facts(outage, 4_260, changes)
    return build_message([poll_recovered_event("store", KEY, outage, facts, AT)], PAGES)


CHANGES: list[tuple[tuple[int, int, int, int], str]] = [
    ((0, 0, 0, 0), "Nothing changed meanwhile."),
    ((1, 0, 0, 0), "Meanwhile 1 fine-tune failed."),
    (
        (2, 1, 3, 1),
        "Meanwhile 2 fine-tunes failed, 1 completed, 3 were created and 1 is no longer listed.",
    ),
    ((0, 0, 1, 2), "Meanwhile 1 fine-tune was created and 2 are no longer listed."),
]


def test_message_of_a_recovery_says_how_long_it_lasted_and_what_changed():
    for numbers, sentence in CHANGES:
        changes = dict(zip(("failed", "completed", "created", "removed"), numbers, strict=True))
        message = recovered(changes)
        assert message.title == "Account default can be read again"
        assert message.text == f"It could not be read for 1 h 11 min. {sentence}"
        assert message.events[0].facts["failed"] == numbers[0]
    assert [fact.name for fact in message.facts] == ["From", "Until"]
    assert names(message) == ["status_page"]


def test_message_of_a_recovery_without_a_comparison():
    assert recovered(None).text == "It could not be read for 1 h 11 min."
    first = recovered(None, replace(OUTAGE, has_baseline=False))
    assert first.text == "It could not be read for 1 h 11 min. Its watch begins now."


def circuit(settings: MessageSettings, *, opened: bool) -> Message:
    broken = CircuitState(1, AT - 5_400, open=True, reason="answered 404 no_service")
    states = (CIRCUIT_CLOSED, broken) if opened else (broken, CIRCUIT_CLOSED)
    event = circuit_event("store", "team-slack", *states, AT)
    assert event is not None
    return build_message([event], settings)


def test_message_of_a_receiver_that_rejects_notifications():
    message = circuit(PAGES, opened=True)
    assert message.title == "Receiver team-slack rejects notifications"
    assert message.highlights == ("Answered 404 no_service",)
    assert "deliveries retry" in message.text
    assert message.links[0].url == f"{DOCUMENTATION_URL}/runbooks.md#cartesiareceiverdown"


def test_message_of_a_receiver_that_accepts_notifications_again():
    message = circuit(PAGES, opened=False)
    assert message.title == "Receiver team-slack accepts notifications again"
    assert message.text == "It rejected them for 1 h 30 min. Those that were kept are sent now."
    assert circuit(ONLY_PLAYGROUND, opened=False).links == ()
    assert circuit(ONLY_PLAYGROUND, opened=False).url == ""


def test_message_of_an_unknown_status():
    facts = unknown_status_facts("paused", 3, last=False)
    message = build_message(
        [Event("evt", "agent.unknown_status", "default", AT, facts=facts)], PAGES
    )
    assert message.title == "Unknown status in account default"
    assert message.highlights == ("3 fine-tunes with the status paused",)
    assert message.links[0].url == f"{DOCUMENTATION_URL}/runbooks.md#cartesiastatusunknown"


hostile = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\x00", "\u202e", "a\nb", "x" * 5000, "{account}", "{id}", "%s"]
)
fine_tunes = st.builds(
    FineTune, hostile.filter(bool), hostile, hostile, hostile, hostile, hostile, hostile
)


@given(st.lists(fine_tunes, min_size=1, max_size=25), hostile)
def test_messages_have_no_control_characters_and_bounded_texts(found, note):
    reported = [of(fine_tune) for fine_tune in found]
    contexts = {event.id: EventContext(7.0, 9.0, 40) for event in reported}
    message = build_message(reported, PAGES, contexts, note)
    shown = [message.title, message.text, message.note, message.id, *message.highlights]
    shown += [*map(str, message.facts), *map(str, message.lines), *message.rest]
    for text in shown:
        assert len(text) <= 2100
        assert {unicodedata.category(c) for c in text if c != "\u200d"}.isdisjoint({"Cc", "Cf"})
    assert all((*map(str, message.lines), *message.rest, message.title))
    assert all(link.url.isascii() for link in message.links)
