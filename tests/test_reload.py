"""The configuration is read again while the agent runs: what changed changes, the rest stays."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import httpx
import pytest
from structlog.testing import capture_logs

from exporter import supervisor
from exporter.simulator.api import Faults
from tests.delivery.bench import until
from tests.fakes.certificates import authority
from tests.place import Agent, Place, place

RELOADED = "cartesia_exporter_config_last_reload_successful"
RELOADED_AT = "cartesia_exporter_config_last_reload_success_timestamp_seconds"


async def reload(agent: Agent, method: str = "POST") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        return await http.request(method, f"{agent.url}/-/reload")


async def reloaded(here: Place, agent: Agent) -> None:
    here.write()
    answer = await reload(agent)
    assert (answer.status_code, answer.text) == (200, "The configuration is in force.\n")


def running(tmp_path, test: Callable[[Place, Agent], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with place(tmp_path) as here, here.agent() as agent:
            await agent.polled()
            await test(here, agent)

    asyncio.run(run())


async def shown(agent: Agent, name: str, expected: Mapping[tuple[str, ...], float]) -> None:
    """Wait until the page shows this: a counter on it may be a quarter of a second old."""
    async with asyncio.timeout(10):
        while await agent.metric(name) != expected:  # noqa: ASYNC110 - as a scraper would
            await asyncio.sleep(0.05)


async def accounts_on_the_page(agent: Agent) -> set[str]:
    text = await agent.page()
    return {line.partition('account="')[2].partition('"')[0] for line in text.splitlines()} - {""}


def test_what_is_added_works_at_once_and_disturbs_nothing(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        polls = await agent.metric("cartesia_exporter_polls_total")
        # In front: a place in the file says nothing about who it is.
        here.settings["accounts"].insert(0, here.account("second"))
        here.settings["receivers"].insert(0, here.receiver("more", "webhook"))
        with capture_logs() as logs:
            await reloaded(here, agent)
        (said,) = [entry for entry in logs if entry["event"] == "configuration reloaded"]
        assert (said["started"], said["stopped"]) == ("deliver more, poll second", "none")
        await until(lambda: bool(agent.polls("second", up=True)))
        assert await accounts_on_the_page(agent) == {"main", "second"}
        assert all(view.counts is not None for view in agent.polls(up=True))
        assert (await agent.metric("cartesia_exporter_polls_total"))["main",] >= polls["main",]
        voice = here.world.add(name="new", status="failed")
        await until(lambda: here.arrived("slack")[voice.name] == 2)  # once for each account
        await until(lambda: here.arrived("webhook")[voice.name] == 4)

    running(tmp_path, test)


def test_what_is_removed_leaves_the_page_and_what_comes_back_is_compared_with_its_state(
    tmp_path,
):
    async def test(here: Place, agent: Agent) -> None:
        second, receivers = here.account("second"), here.settings["receivers"]
        here.settings["accounts"] = [here.account("main"), second]
        await reloaded(here, agent)
        await until(lambda: bool(agent.polls("second", up=True)))
        await here.told({"agent.baseline": 2})
        here.settings["accounts"].remove(second)
        here.settings["receivers"] = receivers[:1]
        await reloaded(here, agent)
        assert await accounts_on_the_page(agent) == {"main"}
        assert 'receiver="webhook"' not in await agent.page()
        voice = here.world.add(name="meanwhile", status="failed")
        await until(lambda: here.arrived("slack")[voice.name] == 1)
        here.settings["accounts"].append(second)
        here.settings["receivers"] = receivers
        await reloaded(here, agent)
        await until(lambda: here.arrived("slack")[voice.name] == 2)
        assert here.arrived("slack")["agent.baseline"] == 2

    running(tmp_path, test)


def test_a_bad_file_changes_nothing_and_each_mistake_is_answered_and_logged(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        good = await agent.metric(RELOADED_AT)
        here.settings["poll"] = {"interval": "soon", "tiemout": "1s"}
        here.settings["receivers"] = []
        here.write()
        with capture_logs() as logs:
            answer = await reload(agent)
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
        await shown(agent, RELOADED, {})
        assert await agent.metric(RELOADED_AT) == good
        here.world.add(name="still", status="failed")
        await here.told({"agent.baseline": 1, "still": 1})
        here.settings["poll"] = {"interval": "1s"}
        here.settings["receivers"] = [here.receiver(kind, kind) for kind in ("slack", "webhook")]
        await reloaded(here, agent)
        await shown(agent, RELOADED, {(): 1})
        assert (await agent.metric(RELOADED_AT))[()] > good[()]

    running(tmp_path, test)


def test_a_file_that_is_gone_and_a_state_that_moved_are_refused(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.settings["storage"]["path"] += ".other"
        here.settings["accounts"].append(here.account("second"))
        here.write()
        answer = await reload(agent)
        assert answer.status_code == 500
        assert "storage.path: cannot change while the agent runs" in answer.text
        here.config.unlink()
        answer = await reload(agent)
        assert answer.status_code == 500
        assert str(here.config) in answer.text
        assert await accounts_on_the_page(agent) == {"main"}

    running(tmp_path, test)


def test_a_change_of_how_an_account_is_polled_shows_no_gap_even_in_an_outage(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        counts = await agent.metric("cartesia_fine_tunes")
        here.simulation.faults = Faults(error_rate=1)
        await agent.polled(up=False)
        here.settings["poll"] = {"interval": "1500ms", "stale_after": "1h"}
        with capture_logs() as logs:
            await reloaded(here, agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["poll main"]
        assert await agent.metric("cartesia_fine_tunes") == counts
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == counts

    running(tmp_path, test)


def test_what_was_shown_by_other_labels_is_shown_no_more(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.simulation.faults = Faults(error_rate=1)
        here.settings["accounts"] = [here.account("main", labels={"team": "voices"})]
        await reloaded(here, agent)
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == {}
        here.simulation.faults = Faults()
        await agent.polled()
        assert all("voices" in labels for labels in await agent.metric("cartesia_fine_tunes"))

    running(tmp_path, test)


def test_another_base_url_is_another_baseline_and_shows_nothing_of_the_old_one(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.simulation.faults = Faults(error_rate=1)
        url = here.api.replace("127.0.0.1", "localhost")
        here.settings["accounts"] = [here.account("main", base_url=url)]
        await reloaded(here, agent)
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == {}
        here.simulation.faults = Faults()
        await here.told({"agent.baseline": 2})

    running(tmp_path, test)


def test_who_is_told_what_changes_without_a_new_poller(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        await here.told({"agent.baseline": 1})
        here.settings["receivers"][1]["match"] = {"account": "nobody"}
        with capture_logs() as logs:
            await reloaded(here, agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver webhook"]
        here.world.add(name="one", status="failed")
        await until(lambda: here.arrived("slack")["one"] == 1)
        assert here.arrived("webhook") == {"agent.baseline": 1}

    running(tmp_path, test)


def test_an_account_that_was_refused_is_asked_again_after_a_reload(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.settings["accounts"].append(here.account("second", api_key="refused"))
        await reloaded(here, agent)
        await until(lambda: len(agent.polls("second", up=False)) == 1)
        await agent.polled(2)
        assert len(agent.polls("second", up=False)) == 1
        await reloaded(here, agent)
        await until(lambda: len(agent.polls("second", up=False)) == 2, 5)

    running(tmp_path, test)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_explains_itself_and_reloads_nothing(tmp_path, method):
    async def test(here: Place, agent: Agent) -> None:
        here.config.unlink()
        answer = await reload(agent, method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, PUT")
        assert ("curl -X POST" in answer.text) == (method == "GET")
        assert await agent.metric(RELOADED) == {(): 1}

    running(tmp_path, test)


def test_a_receiver_that_a_reload_mends_is_told_at_once(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        broken = here.receiver("third", "webhook")
        broken["url"] = f"{here.receivers}/nowhere"
        here.settings["receivers"].append(broken)
        await reloaded(here, agent)
        here.world.add(name="one", status="failed")
        up: Mapping[tuple[str, ...], float] = {("slack",): 1, ("webhook",): 1}
        await shown(agent, "cartesia_exporter_receiver_up", up)
        broken["url"] = f"{here.receivers}/webhook"
        await reloaded(here, agent)
        await until(lambda: here.arrived("webhook")["one"] == 2, 5)

    running(tmp_path, test)


def test_reloads_in_the_midst_of_polls_and_deliveries_lose_and_repeat_nothing(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        expected = {"agent.baseline": 1}
        here.settings["alerts"]["digest_threshold"] = 100
        for number in range(12):
            name = f"voice {number}"
            here.world.add(name=name, status="failed")
            expected[name] = 1
            here.settings["poll"]["timeout"] = f"{900 - number}ms"
            here.settings["receivers"][number % 2]["timeout"] = f"{5 + number}s"
            await asyncio.gather(reloaded(here, agent), reload(agent), reload(agent))
        await here.told(expected)

    running(tmp_path, test)


def test_a_poll_that_hangs_is_cut_off_by_a_change_and_holds_up_no_other_part(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_GRACE_SECONDS", 0.2)

    async def test(here: Place, agent: Agent) -> None:
        here.settings["poll"] = {"interval": "30s"}
        await reloaded(here, agent)
        await agent.polled()
        here.simulation.faults = Faults(latency=30)
        here.settings["poll"]["timeout"] = "20s"
        await reloaded(here, agent)
        asked = len(agent.views)
        here.settings["poll"]["timeout"] = "19s"
        with capture_logs() as logs:
            await reloaded(here, agent)
        assert [entry["part"] for entry in logs if "cut off" in entry["event"]] == ["poll main"]
        here.simulation.faults = Faults()
        here.settings["poll"] = {"interval": "1s"}
        await reloaded(here, agent)
        await agent.polled()
        assert len(agent.views) > asked

    running(tmp_path, test)


def test_a_ca_file_that_was_replaced_counts_after_a_reload(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        bundle = tmp_path / "ca.pem"
        authority(tmp_path / "first")[1].rename(bundle)
        here.settings["receivers"][0]["ca_file"] = str(bundle)
        await reloaded(here, agent)
        authority(tmp_path / "second")[1].rename(bundle)
        with capture_logs() as logs:
            await reloaded(here, agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver slack"]
        bundle.write_text("no certificate", encoding="utf-8")
        answer = await reload(agent)
        assert (answer.status_code, "receivers.0.ca_file" in answer.text) == (500, True)

    running(tmp_path, test)
