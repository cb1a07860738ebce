"""The configuration is read again while the agent runs: what changed changes, the rest stays."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter import supervisor
from exporter.config import Config, load
from exporter.simulator.api import Faults
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.supervisor import Supervisor
from tests.agent_fixture import Agent, Place, place, running
from tests.delivery.delivery_fixture import until
from tests.fakes.answers import silence
from tests.fakes.api import FakeApi


def test_what_is_added_works_at_once_and_disturbs_nothing(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        polls = await agent.metric("cartesia_exporter_polls_total")
        # In front: a place in the file says nothing about who it is.
        here.settings["accounts"].insert(0, here.account("second"))
        here.settings["receivers"].insert(0, here.receiver("more", "webhook"))
        with capture_logs() as logs:
            await here.reloaded(agent)
        (said,) = [entry for entry in logs if entry["event"] == "configuration reloaded"]
        assert (said["started"], said["stopped"]) == ("deliver more, poll second", "none")
        await until(lambda: bool(agent.polls("second", up=True)))
        assert await agent.accounts() == {"main", "second"}
        assert all(view.counts is not None for view in agent.polls(up=True))
        assert (await agent.metric("cartesia_exporter_polls_total"))["main",] >= polls["main",]
        voice = here.world.add(name="new", status="failed")
        await until(lambda: here.arrived("slack")[voice.name] == 2)  # once for each account
        await until(lambda: here.arrived("webhook")[voice.name] == 4)

    running(tmp_path, test)


def begun(agent: Agent, name: str) -> list[float]:
    """When each poll of an account began, by the wall clock."""
    polls = [view for view in agent.views if view.account == name and view.polled_at]
    return [view.polled_at - view.duration for view in polls]


def test_many_that_are_added_at_once_begin_one_after_another_and_the_others_keep_their_time(
    tmp_path,
):
    names = ["b", "c", "d"]

    async def test() -> None:
        async with place(tmp_path) as here:
            here.settings["accounts"] += [here.account(name) for name in names]
            here.settings["poll"] = {"interval": "2s"}
            here.write()
            async with here.agent() as agent:
                await until(lambda: bool(agent.polls("d", up=True)))
                assert begun(agent, "d")[0] - begun(agent, "main")[0] > 1
                here.settings["accounts"] += [here.account(name * 2) for name in names]
                await here.reloaded(agent)
                await until(lambda: bool(agent.polls("dd", up=True)))
                assert begun(agent, "dd")[0] - begun(agent, "bb")[0] > 0.9
                await until(lambda: len(agent.polls("d", up=True)) == 2)
                for name in ("main", *names):
                    first, second, *_ = begun(agent, name)
                    assert second - first == pytest.approx(2, abs=0.9)

    asyncio.run(test())


def test_what_is_removed_leaves_the_page_and_what_comes_back_is_compared_with_its_state(
    tmp_path,
):
    async def test(here: Place, agent: Agent) -> None:
        second, receivers = here.account("second"), here.settings["receivers"]
        here.settings["accounts"] = [here.account("main"), second]
        await here.reloaded(agent)
        await until(lambda: bool(agent.polls("second", up=True)))
        await here.told({"agent.baseline": 2})
        here.settings["accounts"].remove(second)
        here.settings["receivers"] = receivers[:1]
        await here.reloaded(agent)
        assert await agent.accounts() == {"main"}
        assert 'receiver="webhook"' not in await agent.page()
        voice = here.world.add(name="meanwhile", status="failed")
        await until(lambda: here.arrived("slack")[voice.name] == 1)
        here.settings["accounts"].append(second)
        here.settings["receivers"] = receivers
        await here.reloaded(agent)
        await until(lambda: here.arrived("slack")[voice.name] == 2)
        assert here.arrived("slack")["agent.baseline"] == 2

    running(tmp_path, test)


def test_a_change_of_how_an_account_is_polled_shows_no_gap_even_in_an_outage(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        counts = await agent.metric("cartesia_fine_tunes")
        here.simulation.faults = Faults(error_rate=1)
        await agent.polled(up=False)
        here.settings["poll"] = {"interval": "1500ms", "stale_after": "1h"}
        with capture_logs() as logs:
            await here.reloaded(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["poll main"]
        assert await agent.metric("cartesia_fine_tunes") == counts
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == counts

    running(tmp_path, test)


def test_what_was_shown_by_other_labels_is_shown_no_more(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.simulation.faults = Faults(error_rate=1)
        here.settings["accounts"] = [here.account("main", labels={"team": "voices"})]
        await here.reloaded(agent)
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
        await here.reloaded(agent)
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
            await here.reloaded(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver webhook"]
        here.world.add(name="one", status="failed")
        await until(lambda: here.arrived("slack")["one"] == 1)
        assert here.arrived("webhook") == {"agent.baseline": 1}

    running(tmp_path, test)


def test_an_account_that_was_refused_is_asked_again_after_a_reload(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        here.settings["accounts"].append(here.account("second", api_key="refused"))
        await here.reloaded(agent)
        await until(lambda: len(agent.polls("second", up=False)) == 1)
        await agent.polled(2)
        assert len(agent.polls("second", up=False)) == 1
        await here.reloaded(agent)
        await until(lambda: len(agent.polls("second", up=False)) == 2, 5)

    running(tmp_path, test)


def test_a_receiver_that_a_reload_mends_is_told_at_once(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        broken = here.receiver("third", "webhook")
        broken["url"] = f"{here.receivers}/nowhere"
        here.settings["receivers"].append(broken)
        await here.reloaded(agent)
        here.world.add(name="one", status="failed")
        up: Mapping[tuple[str, ...], float] = {("slack",): 1, ("webhook",): 1}
        await agent.shown("cartesia_exporter_receiver_up", up)
        broken["url"] = f"{here.receivers}/webhook"
        await here.reloaded(agent)
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
            await asyncio.gather(here.reloaded(agent), agent.reload(), agent.reload())
        await here.told(expected)

    running(tmp_path, test)


def test_a_poll_that_hangs_is_cut_off_by_a_change_and_holds_up_no_other_part(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_GRACE_SECONDS", 0.2)

    async def test(here: Place, agent: Agent) -> None:
        here.settings["poll"] = {"interval": "30s"}
        await here.reloaded(agent)
        await agent.polled()
        here.simulation.faults = Faults(latency=30)
        here.settings["poll"]["timeout"] = "20s"
        await here.reloaded(agent)
        asked = len(agent.views)
        here.settings["poll"]["timeout"] = "19s"
        with capture_logs() as logs:
            await here.reloaded(agent)
        assert [entry["part"] for entry in logs if "cut off" in entry["event"]] == ["poll main"]
        here.simulation.faults = Faults()
        here.settings["poll"] = {"interval": "1s"}
        await here.reloaded(agent)
        await agent.polled()
        assert len(agent.views) > asked

    running(tmp_path, test)


def replaced(agent: Agent, name: str) -> int:
    """How often a poller of an account began: first it shows again what was shown before."""
    shown = [view.polled_at for view in agent.views if view.account == name]
    return len(shown) - len(set(shown))


def test_a_poll_that_takes_long_to_end_holds_up_no_other_account_that_changes_too(tmp_path):
    async def test(here: Place, agent: Agent) -> None:
        with FakeApi() as slow:
            slow.otherwise = silence
            # In front: one after another, the next would wait for it.
            here.settings["accounts"].insert(0, here.account("slow", base_url=slow.base_url))
            here.settings["poll"] = {"interval": "3s", "timeout": "2500ms"}
            await here.reloaded(agent)
            await until(lambda: bool(slow.requests))
            here.settings["poll"]["timeout"], before = "2s", replaced(agent, "main")
            reload = asyncio.create_task(here.reloaded(agent))
            await until(lambda: replaced(agent, "main") > before)
            assert not agent.polls("slow", up=False), "it has not ended yet"
            await reload
            assert await agent.accounts() == {"main", "slow"}

    running(tmp_path, test)


def test_an_end_that_comes_while_the_file_is_read_is_no_bug(tmp_path, monkeypatch):
    reading, ending, real = threading.Event(), threading.Event(), Supervisor.stop_all

    def slow(*arguments: Any) -> Config:
        reading.set()
        assert ending.wait(10)
        return load(*arguments)

    async def stop_all(of: Supervisor) -> None:
        stopping = asyncio.create_task(real(of))
        await asyncio.sleep(0)
        ending.set()
        await stopping

    async def test() -> None:
        async with place(tmp_path) as here:
            with monkeypatch.context() as patch:
                patch.setattr(Supervisor, "stop_all", stop_all)
                async with here.agent(slow) as agent:
                    await agent.polled()
                    here.settings["poll"]["timeout"] = "800ms"
                    here.settings["receivers"].pop()
                    here.write()
                    reload = asyncio.create_task(agent.reload())
                    assert await asyncio.to_thread(reading.wait, 10)
            await asyncio.wait([reload])  # its connection may be cut off

    asyncio.run(test())


def test_a_state_that_cannot_be_read_meanwhile_is_read_by_the_first_poll(tmp_path, monkeypatch):
    async def fails(*_: object) -> None:
        raise StoreError("the disk is busy")

    async def test(here: Place, agent: Agent) -> None:
        await here.told({"agent.baseline": 1})
        here.settings["poll"]["timeout"] = "800ms"
        here.world.add(name="meanwhile", status="failed")
        with monkeypatch.context() as patch:
            patch.setattr(Accounts, "load", fails)
            with capture_logs() as logs:
                await here.reloaded(agent)
        assert [entry["part"] for entry in logs if "yet" in entry["event"]] == ["poll main"]
        await here.told({"agent.baseline": 1, "meanwhile": 1})

    running(tmp_path, test)
