"""A webhook's body as Alertmanager sends it: version 4 of its payload.

Its fields are those of Alertmanager's documentation, "Configuration", ``<webhook_config>``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from exporter.core.message import Message, Pages, timestamp
from exporter.core.model import Event
from exporter.receivers.alerts import annotations, fingerprint, generator_url, labels, status
from exporter.receivers.receiver import encoded

_GROUPED_BY: Final[tuple[str, ...]] = ("account", "alertname", "fine_tune_id", "receiver")
_NOT_ENDED: Final = "0001-01-01T00:00:00Z"
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class AlertmanagerBody:
    """One alert for each event, the oldest first; ``receiver`` is the receiver's name."""

    receiver: str

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the payload; the minimal one leaves out what people wrote."""
        alerts = [_alert(event, message.pages, minimal=minimal) for event in message.events]
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
            "externalURL": generator_url(None, message.pages),
            "alerts": alerts,
        }
        return encoded(payload)


def _alert(event: Event, pages: Pages, *, minimal: bool) -> dict[str, Any]:
    identity = labels(event)
    observed = timestamp(event.observed_at)
    firing = status(event) == "firing"
    return {
        "status": status(event),
        "labels": identity,
        "annotations": annotations(event, pages, minimal=minimal),
        "startsAt": observed if firing else _began(event, observed),
        "endsAt": _NOT_ENDED if firing else observed,
        "generatorURL": generator_url(event, pages),
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
