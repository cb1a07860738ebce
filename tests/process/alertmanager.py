"""A real Alertmanager: it groups, keeps and resolves, and tells what it is told to a webhook."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.agent import get, until
from tests.process.cloud import Inbox
from tests.programs import required


@dataclass(frozen=True)
class Alertmanager:
    """What answers under a URL."""

    url: str

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(f"{self.url}/api/v2/alerts").json()
        return found

    def names(self) -> list[str]:
        return sorted(alert["labels"].get("fine_tune_id", "") for alert in self.alerts())


def notified(inbox: Inbox, status: str) -> list[dict[str, Any]]:
    """The alerts of that status in all that Alertmanager told, in the order they came."""
    bodies = [json.loads(arrived.body) for arrived in inbox.arrived]
    return [alert for body in bodies for alert in body["alerts"] if alert["status"] == status]


@contextlib.contextmanager
def alertmanager(folder: Path, inbox_url: str) -> Iterator[Alertmanager]:
    """Run one in a new folder, which tells the path `/notified` of an inbox, group by group."""
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
    file, port = folder / "alertmanager.yml", _free_port()
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [
        program,
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        real = Alertmanager(f"http://127.0.0.1:{port}")
        until(lambda: get(f"{real.url}/-/ready").status_code == 200, seconds=30)
        yield real
    finally:
        server.terminate()
        server.wait(20)


def _free_port() -> int:
    # As with Prometheus: it cannot be given port 0; it has this one as soon as we let it go.
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
