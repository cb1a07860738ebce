"""The body of webhooks in Alertmanager's format."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.compose import build_message
from exporter.core.events import Event
from exporter.core.project import runbook_url
from exporter.receivers.alerts import AlertmanagerBody, fingerprint
from tests.receivers.alertmanager_v4 import ZERO, assert_payload
from tests.receivers.sample_events import FAILED, SETTINGS, SINCE, events, failures, trouble

BODY = AlertmanagerBody("ops")


def body(*reported: Event, minimal: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BODY(build_message(reported, SETTINGS), minimal=minimal))
    return found


def test_a_failure():
    labels = {
        "alertname": "CartesiaFineTuneFailed",
        "severity": "warning",
        "account": "default",
        "fine_tune_id": "ft_1",
        "model_id": "sonic-2",
        "language": "en",
        "dataset": "ds_1",
    }
    annotations = {
        "summary": "Fine-tune failed: My voice",
        "description": "For the <hotline>",
        "name": "My voice",
        "status": "training → failed",
        "observed_at": "2026-11-23T19:03:00Z",
        "details": "https://watch.example/fine-tunes/default/ft_1",
        "playground": "https://play.example/tunes/ft_1",
        "status_page": "https://watch.example/",
        "runbook_url": runbook_url("CartesiaFineTuneFailed"),
    }
    group = {
        "account": "default",
        "alertname": "CartesiaFineTuneFailed",
        "fine_tune_id": "ft_1",
    }
    assert body(FAILED) == {
        "version": "4",
        "groupKey": (
            '{}:{account="default", alertname="CartesiaFineTuneFailed", fine_tune_id="ft_1"}'
        ),
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "ops",
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "https://watch.example/",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2026-11-23T19:03:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "https://watch.example/fine-tunes/default/ft_1",
                "fingerprint": fingerprint(labels),
            }
        ],
    }


def test_a_digest_has_an_alert_for_each_event_and_their_common_labels():
    found = body(*failures(100))
    ids = [alert["labels"]["fine_tune_id"] for alert in found["alerts"]]
    assert ids == [f"ft_{n}" for n in range(100)]
    assert len({alert["fingerprint"] for alert in found["alerts"]}) == 100
    group = {"account": "default", "alertname": "CartesiaFineTuneFailed"}
    assert found["groupLabels"] == group
    assert "fine_tune_id" not in found["commonLabels"]
    assert found["commonLabels"]["model_id"] == "sonic-2"


def test_an_end_resolves_the_alert_in_its_group():
    failing, recovered = (
        body(trouble(each)) for each in ("agent.poll_failing", "agent.poll_recovered")
    )
    [started], [ended] = failing["alerts"], recovered["alerts"]
    assert (failing["status"], started["endsAt"]) == ("firing", ZERO)
    assert (recovered["status"], ended["status"]) == ("resolved", "resolved")
    assert (ended["startsAt"], ended["endsAt"]) == (SINCE, "2026-11-23T19:03:00Z")
    assert failing["groupKey"] == recovered["groupKey"]
    assert started["fingerprint"] == ended["fingerprint"]


def test_a_recovery_resolves_the_alert_of_the_failure_in_its_group():
    failed, recovered = body(FAILED), body(replace(FAILED, type="fine_tune.recovered"))
    assert (failed["status"], recovered["status"]) == ("firing", "resolved")
    assert recovered["alerts"][0]["endsAt"] == "2026-11-23T19:03:00Z"
    assert failed["groupKey"] == recovered["groupKey"]
    assert failed["alerts"][0]["fingerprint"] == recovered["alerts"][0]["fingerprint"]


def test_a_message_with_one_firing_alert_is_firing():
    assert body(trouble("agent.poll_recovered"), FAILED)["status"] == "firing"


@given(st.lists(events, min_size=1, max_size=10), st.booleans())
def test_any_message_is_a_valid_payload(reported, minimal):
    found = body(*reported, minimal=minimal)
    assert_payload(found)
    assert len(found["alerts"]) == len(reported)


@given(st.lists(events, min_size=1, max_size=10))
def test_the_minimal_payload_leaves_out_what_people_wrote(reported):
    for alert in body(*reported, minimal=True)["alerts"]:
        assert {"name", "description"}.isdisjoint(alert["annotations"])
