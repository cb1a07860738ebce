"""Reloads that are refused: nothing changes, and the answer says why."""

import errno

import pytest
from structlog.testing import capture_logs

from exporter.agent import build
from tests.agent_fixture import agent_fixture, running_agent
from tests.delivery.delivery_fixture import until
from tests.fakes.certificates import authority

RELOADED = "cartesia_exporter_config_last_reload_successful"
RELOADED_AT = "cartesia_exporter_config_last_reload_success_timestamp_seconds"


async def test_an_invalid_file_changes_nothing_and_each_error_is_answered_and_logged(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        good = await agent.metric(RELOADED_AT)
        fixture.settings["poll"] = {"interval": "soon", "tiemout": "1s"}
        receivers, fixture.settings["receivers"] = fixture.settings["receivers"], []
        fixture.write()
        with capture_logs() as logs:
            answer = await agent.reload()
        assert answer.status_code == 500
        problems = [entry["error"] for entry in logs if entry["log_level"] == "error"]
        assert answer.text.splitlines() == [
            "The old configuration stays in force:",
            *(f"  {problem}" for problem in problems),
        ]
        assert [problem.split(": ")[:2] for problem in problems] == [
            ["line 1", "poll.interval"],
            ["line 1", "poll.tiemout"],
        ]
        await agent.shows(RELOADED, {})
        assert await agent.metric(RELOADED_AT) == good
        fixture.world.add(name="still", status="failed")
        await fixture.notified({"agent.baseline": 1, "still": 1})
        fixture.settings["poll"] = {"interval": "1s"}
        fixture.settings["receivers"] = receivers
        await fixture.reload(agent)
        await agent.shows(RELOADED, {(): 1})
        assert (await agent.metric(RELOADED_AT))[()] > good[()]


async def test_a_missing_file_and_a_changed_storage_path_are_refused(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.settings["storage"]["path"] += ".other"
        fixture.settings["accounts"].append(fixture.account("second"))
        fixture.write()
        answer = await agent.reload()
        assert answer.status_code == 500
        assert "storage: only retention can change while the agent runs" in answer.text
        fixture.config.unlink()
        answer = await agent.reload()
        assert answer.status_code == 500
        assert str(fixture.config) in answer.text
        assert await agent.accounts() == {"main"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_is_answered_405_and_reloads_nothing(tmp_path, method):
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.config.unlink()
        answer = await agent.reload(method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, PUT")
        assert ("curl -X POST" in answer.text) == (method == "GET")
        assert await agent.metric(RELOADED) == {(): 1}


async def test_a_replaced_ca_file_is_used_after_a_reload(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        bundle = tmp_path / "ca.pem"
        authority(tmp_path / "first")[1].rename(bundle)
        fixture.settings["receivers"][0]["ca_file"] = str(bundle)
        await fixture.reload(agent)
        authority(tmp_path / "second")[1].rename(bundle)
        with capture_logs() as logs:
            await fixture.reload(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver slack"]
        bundle.write_text("no certificate", encoding="utf-8")
        answer = await agent.reload()
        assert (answer.status_code, "].ca_file" in answer.text) == (500, True)


@pytest.mark.parametrize("error", [AttributeError, RecursionError, MemoryError, TimeoutError])
async def test_any_exception_of_reading_refuses_the_reload(tmp_path, error):
    """For example of a YAML tag whose value its library cannot read."""
    secret = "sk_live_secret"

    def read(*arguments):
        raise error(f"cannot read {secret}")

    async with agent_fixture(tmp_path) as fixture, fixture.run(read) as agent:
        await agent.polled()
        with capture_logs() as logs:
            answer = await agent.reload()
        assert answer.status_code == 500
        assert f"cannot be read: unexpected {error.__name__} in " in answer.text
        assert secret not in answer.text + str(logs)
        await agent.shows(RELOADED, {})
        await agent.polled()


async def test_values_that_yaml_cannot_construct_refuse_the_reload(tmp_path):
    values = (
        "!!timestamp x",
        "!!int x",
        "!!float",
        "!!bool x",
        "!!binary x",
        "!!set x",
        "!!omap x",
    )
    async with running_agent(tmp_path) as (fixture, agent):
        for value in (*values, "{? [a] : b}", "{<<: x}", "&a [*a]", "!!python/object:a.b {}"):
            fixture.config.write_text(f"accounts: {value}\n", encoding="utf-8")
            answer = await agent.reload()
            assert answer.status_code == 500, value
        await agent.polled()


async def test_any_exception_of_building_services_refuses_the_reload(tmp_path, monkeypatch):
    async def fails(*_: object) -> None:
        raise ValueError("embedded null byte")

    async with running_agent(tmp_path) as (fixture, agent):
        fixture.settings["receivers"].append(fixture.receiver("third", "webhook"))
        fixture.write()
        monkeypatch.setattr(build, "open_receiver", fails)
        answer = await agent.reload()
        assert (answer.status_code, "unexpected ValueError in fails" in answer.text) == (500, True)
        await agent.polled()


async def test_an_os_error_while_building_services_refuses_the_reload(tmp_path, monkeypatch):
    async def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with running_agent(tmp_path) as (fixture, agent):
        fixture.settings["accounts"].append(fixture.account("second"))
        fixture.settings["receivers"].append(fixture.receiver("third", "webhook"))
        fixture.write()
        with monkeypatch.context() as patch:
            patch.setattr(build, "open_receiver", fails)
            answer = await agent.reload()
        assert (answer.status_code, "too many open files" in answer.text) == (500, True)
        assert await agent.accounts() == {"main"}
        await fixture.reload(agent)
        await until(lambda: bool(agent.polls("second", up=True)))
