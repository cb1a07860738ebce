"""A configuration that a running agent cannot take: nothing changes, and it says why."""

import errno

import pytest
from structlog.testing import capture_logs

from exporter.agent import build as recipes
from tests.agent_fixture import Agent, Place, running
from tests.delivery.delivery_fixture import until
from tests.fakes.certificates import authority

RELOADED = "cartesia_exporter_config_last_reload_successful"
RELOADED_AT = "cartesia_exporter_config_last_reload_success_timestamp_seconds"


def test_a_bad_file_changes_nothing_and_each_mistake_is_answered_and_logged(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        good = await agent.metric(RELOADED_AT)
        here.settings["poll"] = {"interval": "soon", "tiemout": "1s"}
        here.settings["receivers"] = []
        here.write()
        with capture_logs() as logs:
            answer = await agent.reload()
        assert answer.status_code == 500
        problems = [entry["error"] for entry in logs if entry["log_level"] == "error"]
        assert answer.text.splitlines() == [
            "The old configuration stays in force:",
            *(f"  {problem}" for problem in problems),
        ]
        assert [problem.partition(":")[0] for problem in problems] == [
            "poll.interval",
            "poll.tiemout",
        ]
        await agent.shown(RELOADED, {})
        assert await agent.metric(RELOADED_AT) == good
        here.world.add(name="still", status="failed")
        await here.told({"agent.baseline": 1, "still": 1})
        here.settings["poll"] = {"interval": "1s"}
        here.settings["receivers"] = [here.receiver(kind, kind) for kind in ("slack", "webhook")]
        await here.reloaded(agent)
        await agent.shown(RELOADED, {(): 1})
        assert (await agent.metric(RELOADED_AT))[()] > good[()]

    running(tmp_path, test)


def test_a_file_that_is_gone_and_a_state_that_moved_are_refused(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.settings["storage"]["path"] += ".other"
        here.settings["accounts"].append(here.account("second"))
        here.write()
        answer = await agent.reload()
        assert answer.status_code == 500
        assert "storage.path: cannot change while the agent runs" in answer.text
        here.config.unlink()
        answer = await agent.reload()
        assert answer.status_code == 500
        assert str(here.config) in answer.text
        assert await agent.accounts() == {"main"}

    running(tmp_path, test)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_explains_itself_and_reloads_nothing(tmp_path, method):
    async def test(here: Place, agent: Agent) -> None:
        here.config.unlink()
        answer = await agent.reload(method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, PUT")
        assert ("curl -X POST" in answer.text) == (method == "GET")
        assert await agent.metric(RELOADED) == {(): 1}

    running(tmp_path, test)


def test_a_ca_file_that_was_replaced_counts_after_a_reload(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        bundle = tmp_path / "ca.pem"
        authority(tmp_path / "first")[1].rename(bundle)
        here.settings["receivers"][0]["ca_file"] = str(bundle)
        await here.reloaded(agent)
        authority(tmp_path / "second")[1].rename(bundle)
        with capture_logs() as logs:
            await here.reloaded(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver slack"]
        bundle.write_text("no certificate", encoding="utf-8")
        answer = await agent.reload()
        assert (answer.status_code, "receivers.0.ca_file" in answer.text) == (500, True)

    running(tmp_path, test)


def test_what_cannot_be_opened_is_a_refusal_that_leaves_all_as_it_was(tmp_path, monkeypatch):
    async def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(here: Place, agent: Agent) -> None:
        here.settings["accounts"].append(here.account("second"))
        here.settings["receivers"].append(here.receiver("third", "webhook"))
        here.write()
        with monkeypatch.context() as patch:
            patch.setattr(recipes, "open_receiver", fails)
            answer = await agent.reload()
        assert (answer.status_code, "too many open files" in answer.text) == (500, True)
        assert await agent.accounts() == {"main"}
        await here.reloaded(agent)
        await until(lambda: bool(agent.polls("second", up=True)))

    running(tmp_path, test)
