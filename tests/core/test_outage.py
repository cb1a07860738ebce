"""When it is told that an account cannot be read, and in which words."""

import pytest

from exporter.core.events import poll_failing_event, poll_recovered_event
from exporter.core.model import AccountKey, Outage
from tests.core.histories import KEY, START

OUTAGE = Outage(START, began=50.0, has_baseline=True, reason="timeout", error="no answer in 50 s")


@pytest.mark.parametrize(
    ("now", "after", "due"),
    [(50, 600, False), (649, 600, False), (650, 600, True), (9e9, 0, False), (50, 0, False)],
)
def test_it_is_due_after_so_long_and_never_after_zero(now, after, due):
    assert OUTAGE.is_due(now, after) is due


def test_what_was_told_is_not_due_again():
    assert not Outage(START, began=50.0, has_baseline=True, stored=True).is_due(9e9, 600)
    assert Outage(START, began=50.0, has_baseline=True, submitted=True).is_due(9e9, 600)


def test_it_says_why_since_when_and_what_that_means():
    told = poll_failing_event("store", KEY, OUTAGE, START + 600)
    assert (told.type, told.account) == ("agent.poll_failing", "default")
    assert told.observed_at == START + 600
    assert told.facts == {
        "reason": "timeout",
        "since": "1970-01-01T00:16:40Z",
        "text": "Failures are not seen meanwhile; they are told when it can be read again. "
        "The last error: no answer in 50 s",
    }


def test_of_an_account_without_a_baseline_it_promises_nothing():
    outage = Outage(START, 50.0, has_baseline=False, reason="dns", error="no such host")
    assert poll_failing_event("store", KEY, outage, START).facts["text"] == (
        "It was never read completely, so the watch has not begun. The last error: no such host"
    )
    assert poll_recovered_event("store", KEY, outage, START, 90).facts["text"] == (
        "It could not be read for 90 s. Its watch begins now."
    )


def test_a_hostile_error_is_one_line_and_has_an_end():
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
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (47 * 3600, "47 h"),
        (3 * 86_400, "3 days"),
    ],
)
def test_a_recovery_says_how_long_it_lasted(seconds, words):
    told = poll_recovered_event("store", KEY, OUTAGE, START + seconds, seconds)
    assert told.type == "agent.poll_recovered"
    assert told.facts == {
        "since": "1970-01-01T00:16:40Z",
        "seconds": round(seconds),
        "text": f"It could not be read for {words}. What changed meanwhile is told now.",
    }


def test_each_outage_of_each_account_has_events_of_its_own():
    other, elsewhere = AccountKey("b", KEY.base_url), AccountKey(KEY.name, "https://eu.example")
    later = Outage(START + 0.25, 50.0, has_baseline=True)
    whose = [("store", KEY, OUTAGE), ("restored", KEY, OUTAGE), ("store", KEY, later)]
    whose += [("store", other, OUTAGE), ("store", elsewhere, OUTAGE)]
    ids = {poll_failing_event(*each, START).id for each in whose}
    ids |= {poll_recovered_event(*each, START, 60).id for each in whose}
    assert len(ids) == 2 * len(whose)


def test_an_outage_detected_again_has_the_same_event():
    ids = {poll_failing_event("store", KEY, OUTAGE, now).id for now in (START, START + 60)}
    assert len(ids) == 1
