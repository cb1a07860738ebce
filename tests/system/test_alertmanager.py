"""Real Alertmanagers receive, group, keep and resolve the alerts of a real agent."""

import contextlib
import json
import signal
import sqlite3
import time
from dataclasses import replace
from typing import Any

import pytest

from exporter.core.events import Event
from exporter.http_client import HttpClient
from exporter.receivers.alertmanager import Content, content_of
from exporter.receivers.receiver import Endpoint
from exporter.store.receiver_outbox import Backlog
from tests.delivery.alertmanager_fixture import open_alertmanager
from tests.fakes.alertmanager import seconds
from tests.fakes.answers import silence
from tests.fakes.clock import FakeClock
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server
from tests.process.agent_process import Agent, Process, get, run, until, url_of
from tests.process.fake_api import agent_config, fake_api
from tests.system.alertmanager import Alertmanager, alertmanager, notified

pytestmark = pytest.mark.usefixtures("unmeasured")


def receiver_of(*urls: str, **more: Any) -> dict[str, Any]:
    return {"name": "am", "type": "alertmanager", "urls": list(urls), **more}


def wait_for_baseline(process: Process) -> None:
    """Wait until the agent has its baseline."""
    page = f"{url_of(process)}/metrics"
    until(lambda: 'cartesia_up{account="main"} 1.0' in get(page).text)


def test_failures_are_grouped_and_resolved_over_a_restart(tmp_path):
    with fake_api() as (api, inbox), alertmanager(tmp_path / "am", inbox.url) as real:
        agent = Agent(tmp_path, **agent_config(api, receiver_of(real.url, hold="10m")))
        fine_tunes = [api.world.add(name=f"Voice {n}", model_id="sonic-3") for n in range(3)]
        names = sorted(each.id for each in fine_tunes)
        with agent.process() as process:
            wait_for_baseline(process)
            for each in fine_tunes:
                api.world.set_status(each.id, "failed")
            until(lambda: len(notified(inbox, "firing")) >= 3)
            [group] = inbox.requests
            assert json.loads(group.body)["commonLabels"]["model_id"] == "sonic-3"
            firing = {each["labels"]["fine_tune_id"]: each for each in notified(inbox, "firing")}
            assert sorted(firing) == real.names() == names
            assert firing[fine_tunes[0].id]["annotations"]["name"] == "Voice 0"
            process.wait_for_line("msg=delivered")
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = updated(real)
        with agent.process() as process:
            wait_for_baseline(process)
            until(lambda: updated(real) > before)
            assert real.names() == names
            for alert in real.alerts():
                # The hold counts only the time at which the agent ran.
                prolonged = seconds(alert["endsAt"]) - settled_at(agent) - 600
                assert -0.01 < prolonged < time.time() - settled_at(agent)
            assert notified(inbox, "resolved") == []

            api.world.delete(fine_tunes[1].id)
            api.world.set_status(fine_tunes[0].id, "training")
            until(lambda: notified(inbox, "resolved"), seconds=30)
            resolved = {each["labels"]["fine_tune_id"] for each in notified(inbox, "resolved")}
            assert resolved == {fine_tunes[0].id}
            assert set(real.names()) >= {fine_tunes[1].id, fine_tunes[2].id}, (
                "removed is not resolved"
            )
            assert process.stop() == 0


def settled_at(agent: Agent) -> float:
    """Return when the first member accepted the alerts, all of them in one request."""
    with contextlib.closing(sqlite3.connect(agent.state)) as connection:
        [found] = connection.execute("SELECT DISTINCT settled_at FROM deliveries").fetchall()
    return float(found[0])


def updated(real: Alertmanager) -> float:
    return max((seconds(each["updatedAt"]) for each in real.alerts()), default=0.0)


def test_a_member_that_hangs_does_not_delay_the_other(tmp_path):
    with (
        fake_api() as (api, inbox),
        Server(silence) as hanging,
        alertmanager(tmp_path / "am", inbox.url) as real,
    ):
        agent = Agent(tmp_path, **agent_config(api, receiver_of(hanging.base_url, real.url)))
        api.world.add(status="completed")
        with agent.process() as process:
            wait_for_baseline(process)
            first = api.world.add(status="failed")
            until(lambda: first.id in real.names(), seconds=5)
            second = api.world.add(status="failed")
            until(lambda: real.names() == sorted([first.id, second.id]), seconds=5)
            assert len(hanging.requests) == 1


def test_send_test_posts_an_alert(tmp_path):
    with alertmanager(tmp_path / "am", "http://127.0.0.1:1") as real:
        agent = Agent(tmp_path, receivers=[receiver_of(real.url)])
        sent = run(tmp_path, "send-test", "am", f"--config.file={agent.file}")
        assert (sent.returncode, sent.stderr) == (0, "")
        assert "am: delivered: answered 200" in sent.stdout
        [alert] = real.alerts()
        assert alert["labels"]["alertname"] == "CartesiaExporterTest"


@pytest.fixture
def invalid_labels(monkeypatch):
    """Add a label that Alertmanager refuses: to the alert of `bad`, and of `worse` in any form."""

    def content(event: Event, *form: Any, minimal: bool = False) -> Content:
        found = content_of(event, *form, minimal=minimal)
        invalid = event.subject == "worse" or (event.subject == "bad" and not minimal)
        return replace(found, labels={**found.labels, "not a name": "x"}) if invalid else found

    monkeypatch.setattr("exporter.delivery.alertmanager.content_of", content)


async def test_of_a_request_that_it_refuses_it_holds_all_but_the_invalid_alert(
    tmp_path, invalid_labels
):
    with alertmanager(tmp_path / "am", "http://127.0.0.1:1") as real:
        async with HttpClient() as http_client:
            url = FakeSecret(f"{real.url}/api/v2/alerts")
            member = Endpoint(http_client, url, 10)
            clock = FakeClock(time.time())
            async with open_alertmanager(tmp_path, [member], clock=clock) as fixture:
                await fixture.queue_failures("bad", "worse", *(f"ft{n}" for n in range(20)))
                await fixture.post_all()
                assert await fixture.outbox.backlog() == Backlog(dead=1)
                assert (fixture.failures("payload") or 0) >= 3
        assert real.names() == sorted(["bad", *(f"ft{n}" for n in range(20))])
