"""Health of a real agent: hanging services make it unhealthy, failing APIs and receivers do not.

A minute is shortened to 4 s; polls and messages may take longer than that.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from exporter.agent import agent as agent_module
from exporter.agent.agent import RunOptions
from exporter.config import load
from exporter.store.database import Database
from tests.delivery.delivery_fixture import until
from tests.fakes.answers import answer, as_json, silence
from tests.fakes.server import Peer, Server
from tests.process.agent_process import NO_AUTHORITIES

LATE = 4.0
FAILED = {"id": "ft", "name": "Ada", "model_id": "sonic", "status": "failed"}
LIST = as_json({"data": [], "has_more": False})

CONFIG = """
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

FAILING_CONFIG = """
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
def short_minute(monkeypatch):
    monkeypatch.setattr("exporter.core.health.LATE_SECONDS", LATE)
    monkeypatch.setattr("exporter.agent.watchdog.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("exporter.agent.housekeeping._ROUND_SECONDS", 0.2)


@asynccontextmanager
async def agent(tmp_path, config: str, api: Server, inbox: Server) -> AsyncIterator[str]:
    """Run an agent; yield its URL."""
    path, state = tmp_path / "config.yaml", tmp_path / "state.db"
    text = config.format(api=api.base_url, inbox=inbox.base_url, state=state)
    path.write_text(text, encoding="utf-8")
    urls: list[str] = []
    stop, loaded = asyncio.Event(), asyncio.Event()
    options = RunOptions(
        addresses=(("127.0.0.1", 0),), on_listening=urls.extend, on_loaded=loaded.set
    )
    running = asyncio.create_task(agent_module.run(load(path, {}), options, stop))
    try:
        await until(lambda: loaded.is_set() or running.done())
        yield urls[0]
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await running


async def get_health(url: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as http:
        return await http.get(f"{url}/-/healthy")


class HangingDatabase(Database):
    """A store on a disk that hangs while ``responds`` is not set."""

    responds = threading.Event()

    def try_to_write(self) -> None:
        self.responds.wait(30)
        super().try_to_write()


async def test_an_agent_whose_disk_hangs_is_unhealthy_and_recovers(tmp_path, monkeypatch):
    monkeypatch.setattr(agent_module, "Database", HangingDatabase)
    HangingDatabase.responds.set()
    with Server(LIST) as api, Server(answer()) as inbox, capture_logs() as logs:
        async with agent(tmp_path, CONFIG, api, inbox) as url:
            await until(lambda: bool(inbox.requests))
            response = await get_health(url)
            assert response.text == "cartesia-exporter is healthy: 9 of 9 parts are on time.\n"
            HangingDatabase.responds.clear()
            try:
                await until(lambda: len(late(logs)) >= 3)
                response = await get_health(url)
            finally:
                HangingDatabase.responds.set()
            assert response.status_code == 503
            late_services = {line.split(":")[0] for line in response.text.splitlines()[1:]}
            assert late_services >= {"deliver ops", "deliver am", "housekeeping"}
            assert "page" not in late_services
            while (await get_health(url)).status_code != 200:  # noqa: ASYNC110 - as a client would
                await asyncio.sleep(0.02)
            await until(lambda: on_time(logs) == late(logs))
        assert len(late(logs)) == len(set(late(logs)))


def late(logs) -> list[str]:
    return sorted(each["service"] for each in logs if each["event"] == "service is late")


def on_time(logs) -> list[str]:
    return sorted(each["service"] for each in logs if each["event"] == "service is on time again")


async def test_failing_apis_and_receivers_make_no_service_late(tmp_path, monkeypatch):
    """APIs are down, silent, refuse the key or are rate limited; receivers refuse or are silent."""
    monkeypatch.setattr("exporter.supervisor._GRACE_SECONDS", 0.5)

    def answer_poll(peer: Peer) -> None:
        APIS[peer.request.path.split("/")[1]](peer)

    def answer_message(peer: Peer) -> None:
        RECEIVERS[peer.request.path.split("/")[1]](peer)

    with Server(answer_poll) as api, Server(answer_message) as inbox, capture_logs() as logs:
        async with agent(tmp_path, FAILING_CONFIG, api, inbox) as url:
            loop = asyncio.get_running_loop()
            end = loop.time() + LATE + 4
            while loop.time() < end:
                response = await get_health(url)
                assert response.status_code == 200, response.text
                assert ": 15 of 15 parts are on time" in response.text
                await asyncio.sleep(0.2)
            assert {each.path.split("/")[1] for each in api.requests} == {*APIS}
            assert {each.path.split("/")[1] for each in inbox.requests} == {*RECEIVERS}
        assert late(logs) == []
