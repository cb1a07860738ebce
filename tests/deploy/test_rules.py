"""The alerting rules and their runbooks."""

import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from exporter.core.events import DEFAULT_SEVERITIES, EVENT_TYPES, Event, EventType
from exporter.receivers.alerts import AlertLabels
from tests.deploy.promql import selectors, undocumented_names
from tests.deploy.tools import amtool, promtool
from tests.docs.test_documented import documented_metrics

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "rules" / "cartesia.rules.yml"
RULES_OF_TESTS = "../../../deploy/prometheus/rules/cartesia.rules.yml"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
AGENT_ALERTS = {
    AlertLabels().of(Event("", event_type, "", 0))["alertname"]
    for event_type in get_args(EventType)
}
"""Names of the alerts that the agent itself sends to an Alertmanager."""

TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))

Mapping = dict[str, Any]


@cache
def read(path: Path) -> Mapping:
    content: Mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


RULES_BY_ALERT = {rule["alert"]: rule for group in read(RULES)["groups"] for rule in group["rules"]}


def test_the_rules_are_valid():
    promtool("check", "rules", RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(path, tmp_path):
    """With the rules they name: promtool evaluates every rule in each minute of a test."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"rule_files: [{RULES_OF_TESTS}]\n")
    alerts = named_alerts(text)
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if rule["alert"] in alerts]}
        for group in read(RULES)["groups"]
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    (tmp_path / "test.yml").write_text(text.replace(RULES_OF_TESTS, "rules.yml"), encoding="utf-8")
    promtool("test", "rules", tmp_path / "test.yml")


def named_alerts(text: str) -> set[str]:
    """Return the alerts that a text names, and those that their expressions name."""
    alerts = set(re.findall(r"\bCartesia\w+", text)) & set(RULES_BY_ALERT)
    by_expressions = {
        other for alert in alerts for other in named_alerts(RULES_BY_ALERT[alert]["expr"])
    }
    return alerts | by_expressions


def test_the_files_of_unit_tests_are_for_promtool_too():
    assert (TESTS[0].parent / RULES_OF_TESTS).resolve() == RULES


@pytest.mark.parametrize("alert", RULES_BY_ALERT)
def test_an_alert_has_a_firing_and_a_silent_unit_test(alert):
    cases = [case for path in TESTS for test in read(path)["tests"] for case in cases_of(test)]
    expected = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert]
    assert set(expected) == {True, False}


def cases_of(test: Mapping) -> list[Mapping]:
    cases: list[Mapping] = test.get("alert_rule_test", [])
    return cases


@pytest.mark.parametrize("alert", RULES_BY_ALERT)
def test_an_alert_uses_only_documented_metrics_and_labels(alert):
    expr = RULES_BY_ALERT[alert]["expr"]
    assert list(selectors(expr)) != []
    assert undocumented_names(expr) == set()


@pytest.mark.parametrize(
    ("query", "undocumented"),
    [
        ("cartesia_fine_tune_total", {"cartesia_fine_tune_total"}),
        ('cartesia_up{model_id="a"}', {"model_id"}),
        ("sum by (job, receiver) (cartesia_up)", {"receiver"}),
        ("cartesia_up * on (team) group_left (owner) up", {"team", "owner"}),
        ('ALERTS{alertname="cartesia_nothing{x=1}"} and on () cartesia_up{account=~".+"}', set()),
        ("sum by (le) (cartesia_fine_tune_status_duration_seconds_bucket)", set()),
        (
            "cartesia_fine_tune_status_duration_seconds",
            {"cartesia_fine_tune_status_duration_seconds"},
        ),
    ],
)
def test_undocumented_names_in_a_query_are_found(query, undocumented):
    assert undocumented_names(query) == undocumented


@pytest.mark.parametrize("alert", RULES_BY_ALERT)
def test_an_alert_has_severity_texts_and_runbook(alert):
    rule = RULES_BY_ALERT[alert]
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"
    assert all(text.endswith(".") for name, text in rule["annotations"].items() if name[-1] != "l")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE) == list(RULES_BY_ALERT)
    for section in re.split(r"^## .+$", RUNBOOKS, flags=re.MULTILINE)[1:]:
        assert re.findall(r"^\*\*([^*]+):\*\*", section, re.MULTILINE) == [
            "Means",
            "Look at",
            "Fix",
        ]


def test_links_between_runbooks_lead_to_existing_sections():
    sections = {heading.lower() for heading in re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)}
    linked = re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)
    assert linked != []
    assert set(linked) <= sections


def test_the_inhibition_example_is_valid_and_names_existing_alerts(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.+?)^```$", RUNBOOKS, re.MULTILINE | re.DOTALL)
    file = tmp_path / "alertmanager.yml"
    file.write_text(
        f"route: {{receiver: a}}\nreceivers: [{{name: a}}]\n{example}", encoding="utf-8"
    )
    amtool("check-config", file)
    for rule in yaml.safe_load(example)["inhibit_rules"]:
        critical, warning = (
            "".join(rule[side]).partition("=")[2].strip('~"')
            for side in ("source_matchers", "target_matchers")
        )
        assert severities(critical) == {"critical"}
        assert severities(warning) == {"warning"}
        # An alert of the agent itself must not inhibit anything.
        assert set(critical.split("|")).isdisjoint(AGENT_ALERTS)


def severities(alerts: str) -> set[str]:
    return {RULES_BY_ALERT[alert]["labels"]["severity"] for alert in alerts.split("|")}


def test_rules_and_agent_agree_on_the_severity_of_the_alerts_that_both_send():
    for traits in EVENT_TYPES.values():
        if traits.is_trouble and traits.alertname in RULES_BY_ALERT:
            severity = DEFAULT_SEVERITIES[traits.subscription or ""]
            assert RULES_BY_ALERT[traits.alertname]["labels"]["severity"] == severity


def test_the_runbooks_list_the_alerts_shared_by_rules_and_agent():
    shared = set(RULES_BY_ALERT) & set(AGENT_ALERTS)
    (sentence,) = re.findall(r"uses the names (.+) too:", RUNBOOKS)
    assert set(re.findall(r"`(\w+)`", sentence)) == shared


def test_runbooks_name_only_documented_metrics():
    named = {
        one or other for one, other in re.findall(r"`(cartesia_\w+)`|name\[\]=(\w+)", RUNBOOKS)
    }
    assert named != set()
    assert named <= {name.strip("`") for name, *_ in documented_metrics()}
