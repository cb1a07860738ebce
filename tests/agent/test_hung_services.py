"""A real agent whose parts hang is not healthy; one whose API, key, receiver or state is bad is.

A minute is cut to a few seconds; a poll and a message may take longer than that.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from exporter.agent import agent as app
from exporter.agent.agent import RunOptions
from exporter.config import load
from exporter.store.database import Database
from tests.delivery.delivery_fixture import until
from tests.fakes.answers import answer, as_json, silence
from tests.fakes.server import Peer, Server

LATE = 4.0
FAILED = {"id": "ft", "name": "Ada", "model_id": "sonic", "status": "failed"}
LIST = as_json({"data": [], "has_more": False})

CIRCUIT_CLOSED = """
accounts: [{{name: main, api_key: sk_car_x, base_url: "{api}"}}]
poll: {{interval: 1s}}
alerts: {{group_wait: 0s}}
receivers:
  - {{name: ops, type: webhook, url: "{inbox}/ops"}}
  - {{name: am, type: alertmanager, urls: ["{inbox}"]}}
storage: {{path: "{state}"}}
"""

APIS = {
    "well": as_json({"data": [FAILED], "has_more": False}),
    "down": answer(503),
    "silent": silence,
    "refuses": answer(401),
    "busy": answer(429, retry_after=300),
}
RECEIVERS = {"refuses": answer(404), "silent": silence, "member": silence, "other": answer(503)}

TROUBLED = """
accounts:
  - {{name: well, api_key: sk_car_x, base_url: "{api}/well"}}
  - {{name: down, api_key: sk_car_x, base_url: "{api}/down"}}
  - {{name: silent, api_key: sk_car_x, base_url: "{api}/silent"}}
  - {{name: refuses, api_key: sk_car_x, base_url: "{api}/refuses"}}
  - {{name: busy, api_key: sk_car_x, base_url: "{api}/busy"}}
poll: {{interval: 8s, timeout: 7s}}
alerts: {{group_wait: 0s, first_run: alert}}
receivers:
  - {{name: refuses, type: webhook, url: "{inbox}/refuses"}}
  - {{name: silent, type: webhook, url: "{inbox}/silent", timeout: 9s}}
  - {{name: am, type: alertmanager, urls: ["{inbox}/member", "{inbox}/other"], timeout: 9s}}
  - {{name: other, type: webhook, url: "{inbox}/other"}}
storage: {{path: "{state}"}}
"""


@pytest.fixture(autouse=True)
def a_minute_is_short(monkeypatch):
    monkeypatch.setattr("exporter.core.health.LATE_SECONDS", LATE)
    monkeypatch.setattr("exporter.agent.watchdog.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("exporter.agent.housekeeping._ROUND_SECONDS", 0.2)


@asynccontextmanager
async def agent(tmp_path, config: str, api: Server, inbox: Server) -> AsyncIterator[str]:
    """Run an agent; yield its URL."""
    path, state = tmp_path / "config.yaml", tmp_path / "state.db"
    text = config.format(api=api.base_url, inbox=inbox.base_url, state=state)
    path.write_text(text, encoding="utf-8")
    urls: list[str] = []
    surface = RunOptions(addresses=(("127.0.0.1", 0),), on_listening=urls.extend)
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(load(path, {}), surface, stop))
    try:
        await until(lambda: bool(urls) or running.done())
        yield urls[0]
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await running


async def healthy(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"{url}/-/healthy")


class HangingDatabase(Database):
    """A state on a disk that does not answer while `answers` is not set."""

    answers = threading.Event()

    def _try_to_write(self) -> None:
        self.answers.wait(30)
        super()._try_to_write()


def test_an_agent_whose_disk_hangs_is_not_healthy_names_the_parts_and_recovers(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(app, "Database", HangingDatabase)
    HangingDatabase.answers.set()

    async def run() -> None:
        with Server(LIST) as api, Server(answer()) as inbox, capture_logs() as logs:
            async with agent(tmp_path, CIRCUIT_CLOSED, api, inbox) as url:
                await until(lambda: bool(inbox.requests))
                well = await healthy(url)
                assert well.text == "cartesia-exporter is healthy: 8 of 8 parts are on time.\n"
                HangingDatabase.answers.clear()
                try:
                    await until(lambda: len(late(logs)) >= 3)
                    ill = await healthy(url)
                finally:
                    HangingDatabase.answers.set()
                assert ill.status_code == 503
                named = {line.split(":")[0] for line in ill.text.splitlines()[1:]}
                assert named >= {"deliver ops", "deliver am", "housekeeping"}
                assert "page" not in named
                while (await healthy(url)).status_code != 200:  # noqa: ASYNC110 - it sets no event
                    await asyncio.sleep(0.02)
                await until(lambda: on_time(logs) == late(logs))
            assert len(late(logs)) == len(set(late(logs)))

    asyncio.run(asyncio.wait_for(run(), 60))


def late(logs) -> list[str]:
    return sorted(each["part"] for each in logs if each["event"] == "a part is late")


def on_time(logs) -> list[str]:
    return sorted(each["part"] for each in logs if each["event"] == "a part is on time again")


def test_trouble_of_others_makes_no_part_late(tmp_path, monkeypatch):
    """The API is down, silent, refuses the key, asks to wait; receivers refuse and are silent."""
    monkeypatch.setattr("exporter.supervisor._GRACE_SECONDS", 0.5)

    def api(peer: Peer) -> None:
        APIS[peer.request.path.split("/")[1]](peer)

    def inbox(peer: Peer) -> None:
        RECEIVERS[peer.request.path.split("/")[1]](peer)

    async def run() -> None:
        with Server(api) as asked, Server(inbox) as told, capture_logs() as logs:
            async with agent(tmp_path, TROUBLED, asked, told) as url:
                loop = asyncio.get_running_loop()
                end = loop.time() + LATE + 4
                while loop.time() < end:
                    answered = await healthy(url)
                    assert answered.status_code == 200, answered.text
                    assert ": 14 of 14 parts are on time" in answered.text
                    await asyncio.sleep(0.2)
                assert {each.path.split("/")[1] for each in asked.requests} == {*APIS}
                assert {each.path.split("/")[1] for each in told.requests} == {*RECEIVERS}
            assert late(logs) == []

    asyncio.run(asyncio.wait_for(run(), 60))
