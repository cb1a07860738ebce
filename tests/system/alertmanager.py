"""Runs a real Alertmanager that notifies a webhook."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.agent_process import get
from tests.process.fake_api import Inbox
from tests.programs import required
from tests.system.listening import listening


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager."""

    url: str

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(f"{self.url}/api/v2/alerts").json()
        return found

    def names(self) -> list[str]:
        return sorted(alert["labels"].get("fine_tune_id", "") for alert in self.alerts())


def notified(inbox: Inbox, status: str) -> list[dict[str, Any]]:
    """The alerts with this status in all notifications to the inbox, in order of arrival."""
    bodies = [json.loads(arrived.body) for arrived in inbox.requests]
    return [alert for body in bodies for alert in body["alerts"] if alert["status"] == status]


@contextlib.contextmanager
def alertmanager(folder: Path, inbox_url: str) -> Iterator[Alertmanager]:
    """Run Alertmanager in a new folder; it notifies the path `/notified` of an inbox."""
    program = required("prometheus-alertmanager", package="prometheus-alertmanager")
    folder.mkdir()
    hook = {"url": f"{inbox_url}/notified", "send_resolved": True}
    route = {
        "receiver": "hook",
        "group_by": ["alertname", "model_id"],
        "group_wait": "500ms",
        "group_interval": "1s",
        "repeat_interval": "1h",
    }
    config = {"route": route, "receivers": [{"name": "hook", "webhook_configs": [hook]}]}
    file = folder / "alertmanager.yml"
    file.write_text(json.dumps(config), encoding="utf-8")
    command = (
        program,
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        "--cluster.listen-address=",
    )
    with listening(folder, *command) as url:
        yield Alertmanager(url)
