"""When an outage has events, and their texts."""

import pytest

from exporter.core.events import poll_failing_event, poll_recovered_event
from exporter.core.facts import recovery_facts
from exporter.core.model import AccountKey, Outage
from tests.core.histories import KEY, START

OUTAGE = Outage(
    START, since_awake=50.0, has_baseline=True, reason="timeout", error="no answer in 50 s"
)


@pytest.mark.parametrize(
    ("now", "after", "due"),
    [(50, 600, False), (649, 600, False), (650, 600, True), (9e9, 0, False), (50, 0, False)],
)
def test_outage_is_due_after_the_delay_and_never_for_zero(now, after, due):
    assert OUTAGE.is_due(now, after) is due


def test_reported_outage_is_not_due_again():
    assert not Outage(START, since_awake=50.0, has_baseline=True, reported=True).is_due(9e9, 600)
    assert Outage(START, since_awake=50.0, has_baseline=True, submitted=True).is_due(9e9, 600)


def test_poll_failing_event_has_reason_start_and_consequence():
    event = poll_failing_event("store", KEY, OUTAGE, START + 600)
    assert (event.type, event.account) == ("agent.poll_failing", "default")
    assert event.observed_at == START + 600
    assert event.facts == {
        "reason": "timeout",
        "since": "1970-01-01T00:16:40Z",
        "text": "The last error (timeout): no answer in 50 s. Until the account can be read again, "
        "failures are not noticed; they are reported then.",
    }


def test_poll_failing_event_without_baseline_promises_nothing():
    outage = Outage(START, 50.0, has_baseline=False, reason="dns", error="no such host")
    assert poll_failing_event("store", KEY, outage, START).facts["text"] == (
        "The last error (dns): no such host. The account was never read completely: its watch has "
        "not begun."
    )
    assert recovery_facts(outage, 90, None)["text"] == (
        "It could not be read for 1 min. Its watch begins now."
    )


def test_hostile_error_is_one_bounded_line():
    outage = Outage(
        START, 50.0, has_baseline=True, reason="protocol", error="\x1b[31m\n\u202e" * 99_999
    )
    text = str(poll_failing_event("store", KEY, outage, START).facts["text"])
    assert text.isprintable()
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (119, "1 min"),
        (7199, "1 h 59 min"),
        (7200, "2 h"),
        (47 * 3600, "1 d 23 h"),
    ],
)
def test_poll_recovered_event_has_the_duration(seconds, words):
    facts = recovery_facts(OUTAGE, seconds, None)
    event = poll_recovered_event("store", KEY, OUTAGE, facts, START + seconds)
    assert event.type == "agent.poll_recovered"
    assert event.facts == {
        "since": "1970-01-01T00:16:40Z",
        "seconds": round(seconds),
        "text": f"It could not be read for {words}.",
    }


def test_outage_event_ids_differ_by_outage_and_account():
    other, elsewhere = AccountKey("b", KEY.base_url), AccountKey(KEY.name, "https://eu.example")
    later = Outage(START + 0.25, 50.0, has_baseline=True)
    whose = [("store", KEY, OUTAGE), ("restored", KEY, OUTAGE), ("store", KEY, later)]
    whose += [("store", other, OUTAGE), ("store", elsewhere, OUTAGE)]
    ids = {poll_failing_event(*each, START).id for each in whose}
    ids |= {poll_recovered_event(*each, {}, START).id for each in whose}
    assert len(ids) == 2 * len(whose)


def test_outage_detected_again_has_the_same_event_id():
    ids = {poll_failing_event("store", KEY, OUTAGE, now).id for now in (START, START + 60)}
    assert len(ids) == 1
