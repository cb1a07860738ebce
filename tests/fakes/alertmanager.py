"""A fake of Alertmanager's `POST /api/v2/alerts`, with its label rules and its partial 400."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Identity = frozenset[tuple[str, str]]


@dataclass
class Alerts:
    """The alerts of one member; ``refuses`` is a rule in addition to Alertmanager's own.

    As in Alertmanager (api/v2/api.go, postAlertsHandler), the valid alerts of a request are
    accepted even if others are not, and the answer is then 400.
    """

    refuses: Callable[[dict[str, Any]], bool] = lambda alert: False
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    held: dict[Identity, dict[str, Any]] = field(default_factory=dict)

    def post(self, body: bytes) -> int:
        """Process a request and return the status of its answer."""
        alerts = json.loads(body.decode("utf-8", "strict"))
        assert isinstance(alerts, list)
        self.requests.append(alerts)
        status = 200
        for alert in alerts:
            if not is_valid(alert) or self.refuses(alert):
                status = 400
            else:
                self.held[identity_of(alert)] = alert
        return status

    def names(self) -> list[str]:
        return sorted(alert["labels"].get("fine_tune_id", "") for alert in self.held.values())


def identity_of(alert: dict[str, Any]) -> Identity:
    return frozenset((name, text) for name, text in alert["labels"].items() if text)


def is_valid(alert: dict[str, Any]) -> bool:
    texts = {**alert["labels"], **alert["annotations"]}
    return bool(
        identity_of(alert)
        and "alertname" in alert["labels"]
        and all(_NAME.fullmatch(name) for name in texts)
        and all(_is_unicode(text) for text in texts.values())
        and seconds(alert["endsAt"]) >= seconds(alert["startsAt"])
        and alert["generatorURL"].startswith("http")
    )


def _is_unicode(text: str) -> bool:
    return isinstance(text, str) and not any("\ud800" <= c <= "\udfff" for c in text)


def seconds(text: str) -> float:
    """Return the Unix seconds of an RFC 3339 time."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text).timestamp()
