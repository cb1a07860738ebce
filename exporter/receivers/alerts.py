"""Events as alerts: labels, annotations, and the payload of Alertmanager's own webhooks."""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct, field

from exporter.core.compose import build_message
from exporter.core.events import DEFAULT_SEVERITIES, EVENT_TYPES, Event
from exporter.core.links import LinkTemplates, grafana_url, links
from exporter.core.message import Message, MessageSettings, status_change
from exporter.core.project import runbook_url
from exporter.core.text import LONGEST, one_line, timestamp
from exporter.receivers.receiver import encoded

LONGEST_LABEL: Final = 256
"""The most characters of a label's value."""

_GROUP_LABELS: Final[tuple[str, ...]] = ("account", "alertname", "fine_tune_id", "receiver")
_SEVERITY_WORDS: Final[Mapping[str, str]] = {
    traits.alertname: traits.subscription
    for traits in EVENT_TYPES.values()
    if traits.is_trouble and traits.subscription is not None
}
"""The subscription of the trouble of each alert: its end has the same severity."""

_NO_END: Final = "0001-01-01T00:00:00Z"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class AlertLabels(Struct, frozen=True):
    """What the configuration adds to the labels of alerts.

    ``severities`` are by the subscription of a trouble; ``account_labels`` by account.
    """

    severities: Mapping[str, str] = field(default_factory=lambda: DEFAULT_SEVERITIES)
    account_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, event: Event) -> dict[str, str]:
        """Return the labels of the alert: the same for each failure of the same fine-tune."""
        fine_tune, traits = event.fine_tune, event.traits
        found = {
            **self.account_labels.get(event.account, {}),
            "alertname": traits.alertname,
            "severity": self.severities.get(_SEVERITY_WORDS.get(traits.alertname, ""), "info"),
            "account": event.account,
            "receiver": "" if fine_tune else _identity(event.subject),
        }
        if fine_tune is not None:
            found |= {
                "fine_tune_id": _identity(fine_tune.id),
                "model_id": fine_tune.model_id,
                "language": fine_tune.language,
                "dataset": fine_tune.dataset,
            }
        return _cleaned(found, LONGEST_LABEL)


class AlertmanagerBody(Struct, frozen=True):
    """Body of a webhook as Alertmanager sends it (version 4): an alert per event, oldest first."""

    receiver: str
    labels: AlertLabels = field(default_factory=AlertLabels)

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the payload; the minimal one leaves out user-written text."""
        alerts = [
            _alert(event, message.settings, self.labels, minimal=minimal)
            for event in message.events
        ]
        common = _common([alert["labels"] for alert in alerts])
        group = {name: common[name] for name in _GROUP_LABELS if name in common}
        firing = any(alert["status"] == "firing" for alert in alerts)
        # As Alertmanager writes it for its top route: consumers use it as the group's identity.
        pairs = (f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in group.items())
        return encoded(
            {
                "version": "4",
                "groupKey": f"{{}}:{{{', '.join(pairs)}}}",
                "truncatedAlerts": 0,
                "status": "firing" if firing else "resolved",
                "receiver": self.receiver,
                "groupLabels": group,
                "commonLabels": common,
                "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
                "externalURL": generator_url(None, message.settings.links),
                "alerts": alerts,
            }
        )


def annotations(
    event: Event, settings: MessageSettings, *, minimal: bool = False
) -> dict[str, str]:
    """Return the annotations of the alert; the minimal ones leave out user-written text."""
    message = build_message([event], settings)
    urls = links(event, settings.links)
    urls["grafana"] = grafana_url(event, settings.links, None) or ""
    found = {name: url for name, url in urls.items() if len(url) <= LONGEST}
    found |= {"status": status_change(event), "observed_at": timestamp(event.observed_at)}
    if event.traits.is_trouble or event.traits.resolves:
        found["runbook_url"] = runbook_url(event.traits.alertname)
    if minimal:
        found["summary"] = f"{event.type}: {event.subject or event.account}"
    elif event.fine_tune is not None:
        found |= {
            "summary": message.title,
            "description": message.text,
            "name": event.fine_tune.name,
        }
    else:
        phrases = [f"{each}." for each in message.highlights]
        found |= {"summary": message.title, "description": " ".join([*phrases, message.text])}
    return _cleaned(found, LONGEST)


def generator_url(event: Event | None, templates: LinkTemplates) -> str:
    """Return the URL of the fine-tune's page, else of the status page, else of the Playground."""
    urls = links(event, templates)
    return next(urls[name] for name in ("details", "status_page", "playground") if name in urls)


def fingerprint(alert_labels: Mapping[str, str]) -> str:
    """Return the alert's fingerprint: 64-bit FNV-1a (prometheus/common, model/signature.go)."""
    pairs = sorted(alert_labels.items())
    text = b"".join(b"%s\xff%s\xff" % (name.encode(), value.encode()) for name, value in pairs)
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def _alert(
    event: Event, settings: MessageSettings, labels: AlertLabels, *, minimal: bool
) -> dict[str, Any]:
    found = labels.of(event)
    observed = timestamp(event.observed_at)
    resolved = event.traits.resolves
    since = str(event.facts.get("since", ""))
    is_known = _TIMESTAMP.fullmatch(since) and since <= observed
    return {
        "status": "resolved" if resolved else "firing",
        "labels": found,
        "annotations": annotations(event, settings, minimal=minimal),
        "startsAt": since if resolved and is_known else observed,
        "endsAt": observed if resolved else _NO_END,
        "generatorURL": generator_url(event, settings.links),
        "fingerprint": fingerprint(found),
    }


def _common(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {
        name: value
        for name, value in maps[0].items()
        if all(each.get(name) == value for each in maps)
    }


def _identity(text: str) -> str:
    """Return an id that fits a label; a shortened or cleaned one gets a hash to stay unique."""
    label = one_line(text, LONGEST_LABEL)
    if label == text:
        return label
    digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{one_line(text, LONGEST_LABEL - 9)}~{digest[:8]}"


def _cleaned(texts: Mapping[str, str], most: int) -> dict[str, str]:
    """Return the texts that are not empty, in valid UTF-8 and at most ``most`` characters."""
    cleaned = {name: one_line(text, most) for name, text in texts.items()}
    return {name: text for name, text in cleaned.items() if text}
