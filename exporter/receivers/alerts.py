"""What an event is as an alert, for Alertmanager and for whatever takes the webhooks it sends."""

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
"""How many characters of a value a label carries."""

_HASHED: Final = 9  # "~" and eight hexadecimal digits


def status(event: Event) -> Status:
    """Return whether the alert begins with this event or ends with it."""
    return "resolved" if event.traits.resolves else "firing"


def labels(event: Event) -> dict[str, str]:
    """Return the identity of the alert: the same for each failure of the same fine-tune.

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


def _identity(text: str) -> str:
    """Return an id that fits a label; one that loses anything by it still differs from others."""
    shown = one_line(text, LONGEST_LABEL)
    if shown == text:
        return shown
    digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{one_line(text, LONGEST_LABEL - _HASHED)}~{digest[: _HASHED - 1]}"


def annotations(
    event: Event, link_templates: LinkTemplates, *, minimal: bool = False
) -> dict[str, str]:
    """Return what is to be read about the alert; the minimal ones leave out what people wrote.

    No value is empty or longer than 1,000 characters, and each is valid UTF-8.
    """
    told = build_message([event], link_templates)
    facts = dict(told.facts)
    found = {
        link.name: link.url for link in links(event, link_templates) if len(link.url) <= LONGEST
    }
    found |= {"status": facts.get("Status", ""), "observed_at": facts["Observed"]}
    if minimal:
        found["summary"] = f"{event.type}: {event.subject or event.account}"
    elif event.fine_tune is not None:
        found |= {"summary": told.title, "description": told.text, "name": event.fine_tune.name}
    else:
        said = (f"{name}: {value}" for name, value in told.facts if name != "Observed")
        found |= {"summary": told.title, "description": told.text or "; ".join(said)}
    return _cleaned(found, LONGEST)


def generator_url(event: Event | None, link_templates: LinkTemplates) -> str:
    """Return where an alert leads: our status page, or the Playground when there is none."""
    return link_templates.status_page or links(event, link_templates)[0].url


def fingerprint(alert: Mapping[str, str]) -> str:
    """Return the fingerprint that Alertmanager gives an alert with these labels.

    It is 64-bit FNV-1a over names and values, each ended by 0xff (prometheus/common,
    model/signature.go).
    """
    text = b"".join(b"%s\xff%s\xff" % (n.encode(), v.encode()) for n, v in sorted(alert.items()))
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def _cleaned(texts: Mapping[str, str], most: int) -> dict[str, str]:
    cleaned = {name: one_line(text, most) for name, text in texts.items()}
    return {name: text for name, text in cleaned.items() if text}


_GROUPED_BY: Final[tuple[str, ...]] = ("account", "alertname", "fine_tune_id", "receiver")
_NOT_ENDED: Final = "0001-01-01T00:00:00Z"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class AlertmanagerBody:
    """One alert for each event, the oldest first; ``receiver`` is the receiver's name."""

    receiver: str

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the payload; the minimal one leaves out what people wrote."""
        alerts = [
            _alert(event, message.link_templates, minimal=minimal) for event in message.events
        ]
        common = _common([alert["labels"] for alert in alerts])
        group = {name: common[name] for name in _GROUPED_BY if name in common}
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


def _alert(event: Event, link_templates: LinkTemplates, *, minimal: bool) -> dict[str, Any]:
    identity = labels(event)
    observed = timestamp(event.observed_at)
    firing = status(event) == "firing"
    return {
        "status": status(event),
        "labels": identity,
        "annotations": annotations(event, link_templates, minimal=minimal),
        "startsAt": observed if firing else _began(event, observed),
        "endsAt": _NOT_ENDED if firing else observed,
        "generatorURL": generator_url(event, link_templates),
        "fingerprint": fingerprint(identity),
    }


def _began(event: Event, observed: str) -> str:
    """Return when the trouble began that is over now, as far as it is known."""
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
    # As Alertmanager writes it for its topmost route: consumers take it for the group's identity.
    pairs = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in group.items())
    return f"{{}}:{{{', '.join(pairs)}}}"
