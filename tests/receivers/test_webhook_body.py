"""The standard body of webhooks, literally."""

import json

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import Event, poll_failing_event
from exporter.core.grouping import Grouping, QueuedEvent, due_groups
from exporter.core.links import LinkTemplates
from exporter.core.message import MessageSettings
from exporter.core.model import AccountKey, FineTune, Outage
from exporter.core.text import cut
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.webhook import Webhook
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import (
    AT,
    FAILED,
    SETTINGS,
    SINCE,
    TEST,
    VOICE,
    baseline,
    events,
    failures,
    trouble,
)

WEBHOOK = Webhook("ops", Endpoint(HttpClient(), FakeSecret("https://ops.example/"), 15))

FAILURE = """{
 "type": "fine_tune.failed",
 "timestamp": "2026-11-23T19:03:00Z",
 "data": {
  "account": "default",
  "previous_status": "training",
  "observed_at": "2026-11-23T19:03:00Z",
  "severity": "warning",
  "fine_tune": {
   "id": "ft_1",
   "name": "My voice",
   "description": "For the <hotline>",
   "language": "en",
   "model_id": "sonic-2",
   "dataset": "ds_1",
   "status": "failed"
  },
  "trained_seconds": null,
  "usual_seconds": null,
  "failures_of_dataset_7d": null,
  "details_url": "https://watch.example/fine-tunes/default/ft_1",
  "grafana_url": null,
  "links": {
   "details": "https://watch.example/fine-tunes/default/ft_1",
   "playground": "https://play.example/tunes/ft_1",
   "status_page": "https://watch.example/"
  }
 }
}"""


def body(*reported: Event, settings: MessageSettings = SETTINGS, minimal: bool = False) -> str:
    """Return the body as JSON with an indent of one and its keys in their order."""
    rendered = WEBHOOK.render(build_message(reported, settings), minimal=minimal)
    return json.dumps(json.loads(rendered), indent=1)


def test_a_failure():
    assert body(FAILED) == FAILURE


def test_previous_status_is_null_for_a_new_fine_tune():
    first = Event("evt_1", "fine_tune.failed", "default", AT, VOICE)
    assert body(first) == FAILURE.replace('"training"', "null", 1)


def test_what_the_store_knows_and_the_dashboard():
    templates = replace(SETTINGS.links, grafana="https://g.example/?m={model_id}&to={to_ms}")
    settings = replace(SETTINGS, links=templates, severities={"failed": "page"})
    message = build_message([FAILED], settings, {"evt_1": EventContext(7_800.4, 18_000.0, 3)})
    for minimal in (False, True):
        data = json.loads(WEBHOOK.render(message, minimal=minimal))["data"]
        assert data["trained_seconds"] == 7800
        assert data["usual_seconds"] == 18_000
        assert data["failures_of_dataset_7d"] == 3
        assert data["severity"] == "page"
        assert data["grafana_url"] == "https://g.example/?m=sonic-2&to=1795460580250"


def test_the_note_is_in_the_data_unless_the_body_is_minimal():
    for reported in ([FAILED], failures(3)):
        message = build_message(reported, SETTINGS, {}, "Muted until 14:00")
        assert json.loads(WEBHOOK.render(message))["data"]["note"] == "Muted until 14:00"
        assert "note" not in json.loads(WEBHOOK.render(message, minimal=True))["data"]


def test_without_a_status_page_there_is_no_link_to_it():
    alone = MessageSettings(LinkTemplates("https://play.example/tunes/{id}"))
    without = FAILURE.replace('"https://watch.example/"', "null").replace(
        '"https://watch.example/fine-tunes/default/ft_1"', "null"
    )
    assert body(FAILED, settings=alone) == without


def test_the_minimal_body_leaves_out_what_people_wrote():
    written = '   "name": "My voice",\n   "description": "For the <hotline>",\n'
    assert body(FAILED, minimal=True) == FAILURE.replace(written, "")


def test_the_minimal_baseline_keeps_the_numbers_and_leaves_out_the_names():
    reported = baseline([VOICE])
    facts = json.loads(body(reported))["data"]
    plain = json.loads(body(reported, minimal=True))["data"]
    assert facts["failed_ones"]
    assert plain == {name: fact for name, fact in facts.items() if name != "failed_ones"}


def test_a_digest_has_the_body_of_each_event():
    reported = failures(3)
    digest = json.loads(body(*reported))
    assert digest == {
        "type": "fine_tune.digest",
        "timestamp": "2026-11-23T19:03:02Z",
        "data": {
            "title": "3 fine-tunes failed",
            "events": [json.loads(body(event)) for event in reported],
        },
    }
    playground = [event["data"]["links"]["playground"] for event in digest["data"]["events"]]
    assert playground == [f"https://play.example/tunes/ft_{n}" for n in range(3)]


def test_the_baseline():
    paused = FineTune("ft_2", "Other", model_id="sonic-2", status="paused")
    assert json.loads(body(baseline([VOICE, paused]))) == {
        "type": "agent.baseline",
        "timestamp": "2026-11-23T19:03:00Z",
        "data": {
            "account": "default",
            "observed_at": "2026-11-23T19:03:00Z",
            "severity": "info",
            "total": 2,
            "created": 0,
            "training": 0,
            "completed": 0,
            "failed": 1,
            "unknown": 1,
            "failed_ones": [
                {
                    "account": "default",
                    "id": "ft_1",
                    "name": "My voice",
                    "model_id": "sonic-2",
                    "status": "failed",
                }
            ],
            "failed_unnamed": 0,
            "details_url": None,
            "grafana_url": None,
            "links": {
                "details": None,
                "playground": "https://play.example/tunes/",
                "status_page": "https://watch.example/",
            },
        },
    }


def test_a_stuck_fine_tune_has_since():
    since = "2026-11-23T12:00:00Z"
    waiting = structs.replace(VOICE, status="training")
    event = Event("evt_1", "fine_tune.stuck", "default", AT, waiting, "training", {"since": since})
    for minimal in (False, True):
        failure = json.loads(body(FAILED, minimal=minimal))
        failure["type"] = "fine_tune.stuck"
        failure["data"]["since"] = since
        failure["data"]["fine_tune"]["status"] = "training"
        assert json.loads(body(event, minimal=minimal)) == failure


def test_an_account_that_cannot_be_read():
    key = AccountKey("default", "https://api.cartesia.ai")
    outage = Outage(AT - 600, 0.0, has_baseline=True, reason="dns", error="no such host")
    payload = json.loads(body(poll_failing_event("store", key, outage, AT)))
    assert payload["type"] == "agent.poll_failing"
    assert payload["data"] == {
        "account": "default",
        "observed_at": "2026-11-23T19:03:00Z",
        "severity": "critical",
        "reason": "dns",
        "since": "2026-11-23T18:53:00Z",
        "text": "The last error (dns): no such host. Until the account can be read again, failures "
        "are not noticed; they are reported then.",
        "details_url": None,
        "grafana_url": None,
        "links": {
            "details": None,
            "playground": "https://play.example/tunes/",
            "status_page": "https://watch.example/",
        },
    }


def test_an_unhealthy_receiver_has_reason_and_since():
    data = json.loads(body(trouble("agent.receiver_unhealthy")))["data"]
    assert (data["receiver"], data["reason"]) == ("chat", "the API answered 401")
    assert data["since"] == SINCE


def test_a_test_message():
    payload = json.loads(body(TEST))
    assert payload["type"] == "agent.test"
    assert payload["data"]["text"] == "If you can read this."


def test_digests_have_at_most_a_hundred_events_and_none_is_lost():
    queued = [QueuedEvent(n, each, 0.0) for n, each in enumerate(failures(250))]
    groups, _ = due_groups(queued, Grouping(0.0, 0.0, 5, WEBHOOK.most_events), 0.0)
    digests = [
        json.loads(body(*(each.event for each in group)))["data"]["events"] for group in groups
    ]
    assert [len(digest) for digest in digests] == [100, 100, 50]
    ids = [event["data"]["fine_tune"]["id"] for digest in digests for event in digest]
    assert ids == [f"ft_{n}" for n in range(250)]


@given(st.lists(events, min_size=1, max_size=10), st.booleans())
def test_texts_are_kept_up_to_a_thousand_characters(reported, minimal):
    found = json.loads(body(*reported, minimal=minimal))
    bodies = found["data"]["events"] if len(reported) > 1 else [found]
    for event, rendered in zip(reported, bodies, strict=True):
        assert rendered["type"] == event.type
        if event.fine_tune is None:
            continue
        previous = event.previous_status
        assert rendered["data"]["previous_status"] == (previous and cut(previous))
        for name, text in rendered["data"]["fine_tune"].items():
            written = getattr(event.fine_tune, name)
            assert len(text) <= 1000
            assert text == written or text == f"{written[:999]}…"
        assert ("name" in rendered["data"]["fine_tune"]) is not minimal


@given(st.lists(events, min_size=1, max_size=5))
def test_rendering_again_gives_the_same_bytes(reported):
    assert WEBHOOK.render(build_message(reported, SETTINGS)) == WEBHOOK.render(
        build_message(reported, SETTINGS)
    )
