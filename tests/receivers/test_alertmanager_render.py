"""Alerts of events are valid for Alertmanager, whatever text they contain."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import build_message
from exporter.core.events import Event
from exporter.core.project import runbook_url
from exporter.receivers.alertmanager import Alert, Alertmanager, content_of, render
from exporter.receivers.alerts import AlertLabels
from tests.fakes.alertmanager import Alerts, is_valid, seconds
from tests.receivers.sample_events import AT, FAILED, SETTINGS, TEST, events, failures

ALERTMANAGER = Alertmanager("am", [], 3600.0)


def alert(event: Event, *, minimal: bool = False, ends_at: float = AT + 60):
    content = content_of(event, SETTINGS, AlertLabels(), minimal=minimal)
    [found] = json.loads(render([Alert(content, event.observed_at, ends_at)]))
    return found


def test_an_alert_of_a_failure():
    assert alert(FAILED) == {
        "labels": {
            "alertname": "CartesiaFineTuneFailed",
            "severity": "warning",
            "account": "default",
            "fine_tune_id": "ft_1",
            "model_id": "sonic-2",
            "language": "en",
            "dataset": "ds_1",
        },
        "annotations": {
            "summary": "Fine-tune failed: My voice",
            "description": "For the <hotline>",
            "name": "My voice",
            "status": "training → failed",
            "observed_at": "2026-11-23T19:03:00Z",
            "details": "https://watch.example/fine-tunes/default/ft_1",
            "playground": "https://play.example/tunes/ft_1",
            "status_page": "https://watch.example/",
            "runbook_url": runbook_url("CartesiaFineTuneFailed"),
        },
        "startsAt": "2026-11-23T19:03:00.250Z",
        "endsAt": "2026-11-23T19:04:00.250Z",
        "generatorURL": "https://watch.example/fine-tunes/default/ft_1",
    }


@given(events)
def test_both_forms_are_the_same_alert(event):
    assert alert(event)["labels"] == alert(event, minimal=True)["labels"]


def test_the_minimal_form_has_the_id_and_nothing_that_people_wrote():
    found = alert(FAILED, minimal=True)
    text = json.dumps(found)
    assert "ft_1" in text
    assert "My voice" not in text
    assert "hotline" not in text


@given(events, st.booleans(), st.floats(0, 10_000))
def test_the_alert_of_any_event_is_valid(event, minimal, duration):
    ends_at = event.observed_at + duration
    found = alert(event, minimal=minimal, ends_at=ends_at)
    assert is_valid(found)
    assert len(json.dumps(found)) < 50_000
    assert -1e-6 <= ends_at - seconds(found["endsAt"]) < 0.0011


@given(st.floats(0, 4e9))
def test_an_alert_can_end_when_it_starts(at):
    content = content_of(FAILED, SETTINGS, AlertLabels())
    found = json.loads(render([Alert(content, at, at)]))
    assert found[0]["startsAt"] == found[0]["endsAt"]
    assert is_valid(found[0])


@pytest.mark.parametrize("number", [1, 64])
def test_a_test_message_is_one_alert_for_each_event_that_ends_after_5_minutes(number):
    body = ALERTMANAGER.render(build_message(failures(number), SETTINGS))
    alerts = Alerts()
    assert alerts.post(body) == 200
    assert len(alerts.held) == number
    for each in json.loads(body):
        assert seconds(each["endsAt"]) - seconds(each["startsAt"]) == 300
    assert ALERTMANAGER.repeated(body) == body
    assert ALERTMANAGER.most_events == 64


def test_a_test_message_has_its_own_alertname():
    [found] = json.loads(ALERTMANAGER.render(build_message([TEST], SETTINGS), minimal=True))
    assert found["labels"]["alertname"] == "CartesiaExporterTest"
    assert found["labels"]["severity"] == "info"
