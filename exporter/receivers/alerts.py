"""Events as alerts: labels, annotations, and the payload of Alertmanager's own webhooks."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal

from exporter.core.events import Event
from exporter.core.message import LinkTemplates, Message, build_message, links
from exporter.core.text import LONGEST, one_line, timestamp
from exporter.receivers.receiver import encoded

Status = Literal["firing", "resolved"]

LONGEST_LABEL: Final = 256
"""The most characters of a label's value."""

_HASH_LENGTH: Final = 9  # "~" and eight hexadecimal digits
_GROUP_LABELS: Final[tuple[str, ...]] = ("account", "alertname", "fine_tune_id", "receiver")
_NO_END: Final = "0001-01-01T00:00:00Z"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class AlertmanagerBody:
    """Body of a webhook as Alertmanager sends it (version 4); ``receiver`` is the receiver's name.

    It has one alert for each event, oldest first.
    """

    receiver: str

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the payload; the minimal one leaves out what people wrote."""
        alerts = [
            _alert(event, message.link_templates, minimal=minimal) for event in message.events
        ]
        common = _common([alert["labels"] for alert in alerts])
        group = {name: common[name] for name in _GROUP_LABELS if name in common}
        firing = any(alert["status"] == "firing" for alert in alerts)
        payload = {
            "version": "4",
            "groupKey": _group_key(group),
            "truncatedAlerts": 0,
            "status": "firing" if firing else "resolved",
            "receiver": self.receiver,
            "groupLabels": group,
            "commonLabels": common,
            "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
            "externalURL": generator_url(None, message.link_templates),
            "alerts": alerts,
        }
        return encoded(payload)


def status(event: Event) -> Status:
    """Return whether the event starts the alert or resolves it."""
    return "resolved" if event.traits.resolves else "firing"


def labels(event: Event) -> dict[str, str]:
    """Return the labels of the alert: the same for each failure of the same fine-tune.

    No value is empty or longer than LONGEST_LABEL characters, and each is valid UTF-8.
    """
    fine_tune = event.fine_tune
    found = {
        "alertname": event.traits.alertname,
        "severity": event.traits.severity,
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


def annotations(
    event: Event, link_templates: LinkTemplates, *, minimal: bool = False
) -> dict[str, str]:
    """Return the annotations of the alert; the minimal ones leave out what people wrote.

    No value is empty or longer than 1,000 characters, and each is valid UTF-8.
    """
    message = build_message([event], link_templates)
    facts = dict(message.facts)
    found = {
        link.name: link.url for link in links(event, link_templates) if len(link.url) <= LONGEST
    }
    found |= {"status": facts.get("Status", ""), "observed_at": facts["Observed"]}
    if minimal:
        found["summary"] = f"{event.type}: {event.subject or event.account}"
    elif event.fine_tune is not None:
        found |= {
            "summary": message.title,
            "description": message.text,
            "name": event.fine_tune.name,
        }
    else:
        listed = "; ".join(f"{name}: {fact}" for name, fact in message.facts if name != "Observed")
        found |= {"summary": message.title, "description": message.text or listed}
    return _cleaned(found, LONGEST)


def generator_url(event: Event | None, link_templates: LinkTemplates) -> str:
    """Return the URL of the status page, or of the Playground when there is none."""
    return link_templates.status_page or links(event, link_templates)[0].url


def fingerprint(alert_labels: Mapping[str, str]) -> str:
    """Return the fingerprint that Alertmanager computes from these labels.

    It is 64-bit FNV-1a over names and values, each ended by 0xff (prometheus/common,
    model/signature.go).
    """
    pairs = sorted(alert_labels.items())
    text = b"".join(b"%s\xff%s\xff" % (name.encode(), value.encode()) for name, value in pairs)
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def _alert(event: Event, link_templates: LinkTemplates, *, minimal: bool) -> dict[str, Any]:
    found = labels(event)
    observed = timestamp(event.observed_at)
    firing = status(event) == "firing"
    return {
        "status": status(event),
        "labels": found,
        "annotations": annotations(event, link_templates, minimal=minimal),
        "startsAt": observed if firing else _start(event, observed),
        "endsAt": _NO_END if firing else observed,
        "generatorURL": generator_url(event, link_templates),
        "fingerprint": fingerprint(found),
    }


def _start(event: Event, observed: str) -> str:
    """Return when the trouble that this event ends started, as far as it is known."""
    since = str(event.facts.get("since", ""))
    return since if _TIMESTAMP.fullmatch(since) and since <= observed else observed


def _common(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = maps
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _group_key(group: Mapping[str, str]) -> str:
    # As Alertmanager writes it for its top route: consumers use it as the identity of a group.
    pairs = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in group.items())
    return f"{{}}:{{{', '.join(pairs)}}}"


def _identity(text: str) -> str:
    """Return an id that fits a label; a shortened or cleaned one gets a hash to stay unique."""
    label = one_line(text, LONGEST_LABEL)
    if label == text:
        return label
    digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{one_line(text, LONGEST_LABEL - _HASH_LENGTH)}~{digest[: _HASH_LENGTH - 1]}"


def _cleaned(texts: Mapping[str, str], most: int) -> dict[str, str]:
    cleaned = {name: one_line(text, most) for name, text in texts.items()}
    return {name: text for name, text in cleaned.items() if text}
