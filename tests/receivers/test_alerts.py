"""Labels and annotations of events as alerts."""

import json
import unicodedata
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.core.compose import build_message
from exporter.core.events import EVENT_TYPES, Event, EventType
from exporter.core.links import LinkTemplates
from exporter.core.model import FineTune
from exporter.core.project import DOCUMENTATION_URL
from exporter.receivers.alerts import (
    AlertLabels,
    AlertmanagerBody,
    annotations,
    fingerprint,
    generator_url,
)
from tests.receivers.sample_events import (
    AT,
    FAILED,
    SETTINGS,
    TEST,
    VOICE,
    baseline,
    events,
    fine_tunes,
    trouble,
)

labels = AlertLabels().of


def failed(fine_tune: FineTune) -> Event:
    return Event("evt", "fine_tune.failed", "default", AT, fine_tune)


def test_labels_and_annotations_of_a_failure():
    assert labels(FAILED) == {
        "alertname": "CartesiaFineTuneFailed",
        "severity": "warning",
        "account": "default",
        "fine_tune_id": "ft_1",
        "model_id": "sonic-2",
        "language": "en",
        "dataset": "ds_1",
    }
    assert annotations(FAILED, SETTINGS) == {
        "summary": "Fine-tune failed: My voice",
        "description": "For the <hotline>",
        "name": "My voice",
        "status": "training → failed",
        "observed_at": "2026-11-23T19:03:00Z",
        "details": "https://watch.example/fine-tunes/default/ft_1",
        "playground": "https://play.example/tunes/ft_1",
        "status_page": "https://watch.example/",
        "runbook_url": f"{DOCUMENTATION_URL}/runbooks.md#cartesiafinetunefailed",
    }


def test_the_minimal_annotations_leave_out_what_people_wrote():
    plain = annotations(FAILED, SETTINGS, minimal=True)
    assert plain["summary"] == "fine_tune.failed: ft_1"
    assert {"name", "description"}.isdisjoint(plain)
    assert "My voice" not in str(plain)


ALERTS: list[tuple[EventType, str, str]] = [
    ("fine_tune.failed", "CartesiaFineTuneFailed", "warning"),
    ("fine_tune.stuck", "CartesiaFineTuneStuck", "warning"),
    ("fine_tune.recovered", "CartesiaFineTuneFailed", "warning"),
    ("fine_tune.completed", "CartesiaFineTuneCompleted", "info"),
    ("fine_tune.created", "CartesiaFineTuneCreated", "info"),
    ("fine_tune.removed", "CartesiaFineTuneRemoved", "info"),
    ("agent.poll_failing", "CartesiaPollFailing", "critical"),
    ("agent.receiver_unhealthy", "CartesiaReceiverUnhealthy", "critical"),
    ("agent.baseline", "CartesiaBaseline", "info"),
    ("agent.test", "CartesiaExporterTest", "info"),
]


def test_alertname_and_severity_of_each_type():
    for event_type, name, severity in ALERTS:
        found = labels(Event("evt", event_type, "default", AT))
        assert (found["alertname"], found["severity"]) == (name, severity)


def test_severities_of_the_configuration_are_those_of_troubles_and_their_ends():
    labels = AlertLabels({"failed": "page", "stuck": "ticket", "agent": "error"}).of
    severities: list[tuple[EventType, str]] = [
        ("fine_tune.failed", "page"),
        ("fine_tune.recovered", "page"),
        ("fine_tune.stuck", "ticket"),
        ("agent.poll_failing", "error"),
        ("agent.poll_recovered", "error"),
        ("agent.baseline", "info"),
        ("fine_tune.completed", "info"),
    ]
    for event_type, severity in severities:
        assert labels(Event("evt", event_type, "default", AT))["severity"] == severity


def test_the_labels_of_the_account_are_on_its_alerts_and_replace_none_of_the_agents():
    account = {"team": "voices", "severity": "none", "dataset": "x"}
    labels = AlertLabels(account_labels={"default": account, "other": {"team": "x"}}).of
    assert labels(FAILED) == {"team": "voices"} | AlertLabels().of(FAILED)
    assert labels(trouble("agent.poll_failing"))["team"] == "voices"
    assert "team" not in labels(trouble("agent.receiver_unhealthy"))


def test_every_trouble_has_a_runbook():
    runbooks = Path("docs/runbooks.md").read_text(encoding="utf-8")
    for event_type, traits in EVENT_TYPES.items():
        found = annotations(Event("evt", event_type, "a", AT), SETTINGS)
        if traits.is_trouble or traits.resolves:
            section = found["runbook_url"].removeprefix(f"{DOCUMENTATION_URL}/runbooks.md#")
            assert f"\n## {section}\n" in runbooks.lower()
        else:
            assert "runbook_url" not in found


def test_every_type_has_an_alertname():
    for event_type in get_args(EventType):
        found = labels(Event("evt", event_type, "default", AT))
        assert found["alertname"].startswith("Cartesia"), event_type


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("agent.poll_failing", "agent.poll_recovered"),
        ("agent.receiver_unhealthy", "agent.receiver_recovered"),
    ],
)
def test_trouble_and_its_end_are_the_same_alert(start, end):
    assert labels(trouble(start)) == labels(trouble(end, reason="another"))
    messages = [build_message([trouble(each)], SETTINGS) for each in (start, end)]
    payloads = [json.loads(AlertmanagerBody("w")(each, minimal=False)) for each in messages]
    assert [each["alerts"][0]["status"] for each in payloads] == ["firing", "resolved"]


def test_an_unhealthy_receiver_has_no_account_label():
    assert labels(trouble("agent.receiver_unhealthy")) == {
        "alertname": "CartesiaReceiverUnhealthy",
        "severity": "critical",
        "receiver": "chat",
    }


def test_a_renamed_fine_tune_that_fails_again_is_the_same_alert():
    renamed = structs.replace(VOICE, name="Other", description="changed")
    again = Event("evt_2", "fine_tune.failed", "default", AT + 9, renamed, "created")
    assert labels(again) == labels(FAILED)
    assert fingerprint(labels(again)) == fingerprint(labels(FAILED))


def test_agent_events_have_a_description():
    found = annotations(trouble("agent.poll_failing"), SETTINGS)
    assert found["summary"] == "Account default cannot be read"
    rejecting = annotations(trouble("agent.receiver_unhealthy"), SETTINGS)
    assert rejecting["description"] == "The API answered 401."
    assert annotations(TEST, SETTINGS)["description"] == "If you can read this."
    assert annotations(baseline([VOICE]), SETTINGS)["description"] == "1 fine-tune: 1 failed."


def test_generator_url_is_the_page_of_the_fine_tune_the_status_page_or_the_playground():
    assert generator_url(FAILED, SETTINGS.links) == "https://watch.example/fine-tunes/default/ft_1"
    assert generator_url(TEST, SETTINGS.links) == "https://watch.example/"
    assert generator_url(None, SETTINGS.links) == "https://watch.example/"
    alone = LinkTemplates("https://play.example/{id}")
    assert generator_url(FAILED, alone) == "https://play.example/ft_1"
    assert generator_url(None, alone) == "https://play.example/"


def test_a_link_that_is_too_long_is_left_out():
    found = annotations(failed(FineTune("é" * 900)), SETTINGS)
    assert "playground" not in found
    assert found["status_page"] == "https://watch.example/"


def test_the_fingerprint_is_that_of_alertmanager():
    """The values are from the tests of prometheus/common."""
    pair = {"name": "garland, briggs", "fear": "love is not enough"}
    assert int(fingerprint(pair), 16) == 5799056148416392346
    assert int(fingerprint({}), 16) == 14695981039346656037


@given(events)
def test_labels_are_short_clean_and_never_empty(event):
    for value in labels(event).values():
        assert 1 <= len(value) <= 256
        assert_clean(value)


@given(events, st.booleans())
def test_annotations_are_bounded_clean_and_never_empty(event, minimal):
    found = annotations(event, SETTINGS, minimal=minimal)
    assert found["summary"]
    for value in found.values():
        assert 1 <= len(value) <= 1000
        assert_clean(value)


def assert_clean(value: str) -> None:
    assert value.encode()
    hidden = {c for c in value if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert hidden <= {"\u200d"}


@given(fine_tunes, fine_tunes)
def test_different_fine_tunes_are_different_alerts(one, other):
    same = one.id == other.id
    first, second = (labels(failed(each))["fine_tune_id"] for each in (one, other))
    assert (first == second) is same


def test_an_id_that_is_changed_for_a_label_stays_unique():
    for other in ("x" * 257, "x" * 300, "x\x00", "x\u200b", "\x00", "\x01"):
        ids = {labels(failed(FineTune(each)))["fine_tune_id"] for each in (other, "x" * 256, "x")}
        assert len(ids) == 3, other
