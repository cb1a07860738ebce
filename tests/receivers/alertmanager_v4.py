"""Checks of the payload of Alertmanager's webhooks, version 4, by its documentation."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

TOP = {
    "version": str,
    "groupKey": str,
    "truncatedAlerts": int,
    "status": str,
    "receiver": str,
    "groupLabels": dict,
    "commonLabels": dict,
    "commonAnnotations": dict,
    "externalURL": str,
    "alerts": list,
}
ALERT = {
    "status": str,
    "labels": dict,
    "annotations": dict,
    "startsAt": str,
    "endsAt": str,
    "generatorURL": str,
    "fingerprint": str,
}
ZERO = "0001-01-01T00:00:00Z"


def assert_fields(found: dict[str, Any], fields: Mapping[str, type]) -> None:
    assert {name: type(value) for name, value in found.items()} == fields


def assert_pairs(found: dict[str, Any]) -> None:
    for name, value in found.items():
        assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name)
        assert isinstance(value, str)
        assert value.encode("utf-8")


def assert_alert(alert: dict[str, Any]) -> None:
    assert_fields(alert, ALERT)
    assert alert["labels"]["alertname"]
    assert_pairs(alert["labels"])
    assert_pairs(alert["annotations"])
    assert re.fullmatch(r"[0-9a-f]{16}", alert["fingerprint"])
    starts, ends = (datetime.fromisoformat(alert[name]) for name in ("startsAt", "endsAt"))
    if alert["status"] == "firing":
        assert alert["endsAt"] == ZERO
    else:
        assert alert["status"] == "resolved"
        assert starts <= ends


def assert_payload(found: dict[str, Any]) -> None:
    """Fail if Alertmanager could not have sent this payload."""
    assert_fields(found, TOP)
    assert found["version"] == "4"
    assert found["truncatedAlerts"] == 0
    assert found["alerts"]
    for alert in found["alerts"]:
        assert_alert(alert)
    statuses = {alert["status"] for alert in found["alerts"]}
    assert found["status"] == ("firing" if "firing" in statuses else "resolved")
    for common, name in (("commonLabels", "labels"), ("commonAnnotations", "annotations")):
        shared = set.intersection(*({*alert[name].items()} for alert in found["alerts"]))
        assert {*found[common].items()} == shared
    assert found["groupLabels"].items() <= found["commonLabels"].items()
