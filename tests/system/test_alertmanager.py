"""Real Alertmanagers receive, group, keep and resolve what a real agent sends."""

import asyncio
import contextlib
import json
import signal
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from exporter.core.events import Event
from exporter.core.message import LinkTemplates
from exporter.http_client import HttpClient
from exporter.receivers.alertmanager import Content, Member, content_of
from exporter.receivers.receiver import Endpoint
from exporter.store.outbox import Backlog
from tests.delivery.alertmanager_fixture import Alerting, alerting
from tests.fakes.alertmanager import seconds
from tests.fakes.answers import silence
from tests.fakes.clock import FakeClock
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server
from tests.process.agent_process import Agent, Process, get, run, until, url_of
from tests.process.fake_api import agent_config, fake_api
from tests.system.alertmanager import Alertmanager, alertmanager, notified

pytestmark = pytest.mark.usefixtures("unmeasured")


def told_to(*urls: str, **more: Any) -> dict[str, Any]:
    return {"name": "am", "type": "alertmanager", "urls": list(urls), **more}


def polled(process: Process) -> None:
    """Wait until the agent has its baseline."""
    page = f"{url_of(process)}/metrics"
    until(lambda: 'cartesia_up{account="main"} 1.0' in get(page).text)


def test_it_is_told_of_failures_groups_them_and_resolves_them_over_a_restart(tmp_path):
    with fake_api() as (api, inbox), alertmanager(tmp_path / "am", inbox.url) as real:
        agent = Agent(tmp_path, **agent_config(api, told_to(real.url, hold="10m")))
        voices = [api.world.add(name=f"Voice {n}", model_id="sonic-3") for n in range(3)]
        names = sorted(voice.id for voice in voices)
        with agent.process() as process:
            polled(process)
            for voice in voices:
                api.world.set_status(voice.id, "failed")
            until(lambda: len(notified(inbox, "firing")) >= 3)
            [group] = inbox.requests
            assert json.loads(group.body)["commonLabels"]["model_id"] == "sonic-3"
            firing = {each["labels"]["fine_tune_id"]: each for each in notified(inbox, "firing")}
            assert sorted(firing) == real.names() == names
            assert firing[voices[0].id]["annotations"]["name"] == "Voice 0"
            process.wait_for_line("msg=delivered")
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = updated(real)
        with agent.process() as process:
            polled(process)
            until(lambda: updated(real) > before)
            assert real.names() == names
            for alert in real.alerts():
                assert abs(seconds(alert["endsAt"]) - settled_at(agent) - 600) < 0.01
            assert notified(inbox, "resolved") == []

            api.world.delete(voices[1].id)
            api.world.set_status(voices[0].id, "training")
            until(lambda: notified(inbox, "resolved"), seconds=30)
            resolved = {each["labels"]["fine_tune_id"] for each in notified(inbox, "resolved")}
            assert resolved == {voices[0].id}
            assert set(real.names()) >= {voices[1].id, voices[2].id}, "removed is not resolved"
            assert process.stop() == 0


def settled_at(agent: Agent) -> float:
    """When the first member took what was owed, all of it in one request."""
    with contextlib.closing(sqlite3.connect(agent.state)) as connection:
        [found] = connection.execute("SELECT DISTINCT settled_at FROM deliveries").fetchall()
    return float(found[0])


def updated(real: Alertmanager) -> float:
    return max((seconds(each["updatedAt"]) for each in real.alerts()), default=0.0)


def test_beside_a_member_that_hangs_the_other_is_told_at_once(tmp_path):
    with (
        fake_api() as (api, inbox),
        Server(silence) as hanging,
        alertmanager(tmp_path / "am", inbox.url) as real,
    ):
        agent = Agent(tmp_path, **agent_config(api, told_to(hanging.base_url, real.url)))
        with agent.process() as process:
            polled(process)
            first = api.world.add(status="failed")
            until(lambda: first.id in real.names(), seconds=5)
            second = api.world.add(status="failed")
            until(lambda: real.names() == sorted([first.id, second.id]), seconds=5)
            assert len(hanging.requests) == 1


def test_send_test_shows_up_as_an_alert(tmp_path):
    with alertmanager(tmp_path / "am", "http://127.0.0.1:1") as real:
        agent = Agent(tmp_path, receivers=[told_to(real.url)])
        sent = run(tmp_path, "send-test", "am", f"--config.file={agent.file}")
        assert (sent.returncode, sent.stderr) == (0, "")
        assert "am: delivered: answered 200" in sent.stdout
        [alert] = real.alerts()
        assert alert["labels"]["alertname"] == "CartesiaExporterTest"


@pytest.fixture
def with_a_bad_label(monkeypatch):
    """The content of an alert about `bad` has a label that Alertmanager refuses, of `worse` also
    in its minimal form."""

    def content(event: Event, link_templates: LinkTemplates, *, minimal: bool = False) -> Content:
        found = content_of(event, link_templates, minimal=minimal)
        bad = event.subject == "worse" or (event.subject == "bad" and not minimal)
        return replace(found, labels={**found.labels, "not a name": "x"}) if bad else found

    monkeypatch.setattr("exporter.delivery.alertmanager.content_of", content)


def test_of_a_request_that_it_refuses_it_holds_all_but_the_bad_one(tmp_path, with_a_bad_label):
    async def test(a: Alerting) -> None:
        await a.fail("bad", "worse", *(f"ft{n}" for n in range(20)))
        await a.turns()
        assert await a.outbox.backlog() == Backlog(dead=1)
        assert (a.failed("payload") or 0) >= 3

    async def play() -> None:
        import time

        async with HttpClient() as http_client:
            url = FakeSecret(f"{real.url}/api/v2/alerts")
            members: list[Any] = [Member(Endpoint(http_client, url, 10))]
            async with alerting(tmp_path, members, clock=FakeClock(time.time())) as made:
                await test(made)

    with alertmanager(tmp_path / "am", "http://127.0.0.1:1") as real:
        asyncio.run(play())
        assert real.names() == sorted(["bad", *(f"ft{n}" for n in range(20))])
