"""Reloads of a running agent."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter import supervisor
from exporter.config import Config, load
from exporter.delivery.deliverer import Deliverer
from exporter.simulator.api import Faults
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.supervisor import Supervisor
from tests.agent_fixture import RunningAgent, agent_fixture, running_agent
from tests.delivery.delivery_fixture import until
from tests.fakes.answers import answer, silence
from tests.fakes.api import FakeApi
from tests.fakes.server import Server


async def test_added_accounts_and_receivers_work_immediately(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        polls = await agent.metric("cartesia_exporter_polls_total")
        # At the front: the position in the file does not identify an account.
        fixture.settings["accounts"].insert(0, fixture.account("second"))
        fixture.settings["receivers"].insert(0, fixture.receiver("more", "webhook"))
        with capture_logs() as logs:
            await fixture.reload(agent)
        (line,) = [entry for entry in logs if entry["event"] == "configuration reloaded"]
        assert (line["started"], line["stopped"]) == ("deliver more, poll second", "none")
        await until(lambda: bool(agent.polls("second", up=True)))
        assert await agent.accounts() == {"main", "second"}
        assert all(status.counts is not None for status in agent.polls(up=True))
        assert (await agent.metric("cartesia_exporter_polls_total"))["main",] >= polls["main",]
        failed = fixture.world.add(name="new", status="failed")
        await until(lambda: fixture.received("slack")[failed.name] == 2)  # once for each account
        await until(lambda: fixture.received("webhook")[failed.name] == 4)


def poll_starts(agent: RunningAgent, name: str) -> list[float]:
    """The start of each poll of an account, in Unix seconds."""
    polls = [each for each in agent.statuses if each.account == name and each.polled_at]
    return [each.polled_at - each.duration for each in polls]


async def test_a_commit_wakes_all_deliverers(tmp_path, monkeypatch):
    """Otherwise they would notice new events up to 5 s later."""
    woken, wake = set(), Deliverer.wake

    def record(deliverer: Deliverer) -> None:
        woken.add(deliverer.name)
        wake(deliverer)

    async with running_agent(tmp_path) as (fixture, agent):
        await fixture.notified({"agent.baseline": 1})
        await agent.polled()
        monkeypatch.setattr(Deliverer, "wake", record)
        assert woken == set()
        fixture.world.add(name="new", status="failed")
        await fixture.notified({"agent.baseline": 1, "new": 1})
        assert woken == {"slack", "webhook"}


async def test_first_polls_of_added_accounts_are_spread(tmp_path):
    names = ["b", "c", "d"]
    async with agent_fixture(tmp_path) as fixture:
        fixture.settings["accounts"] += [fixture.account(name) for name in names]
        fixture.settings["poll"] = {"interval": "2s"}
        fixture.write()
        async with fixture.run() as agent:
            await until(lambda: bool(agent.polls("d", up=True)))
            assert poll_starts(agent, "d")[0] - poll_starts(agent, "main")[0] > 1
            fixture.settings["accounts"] += [fixture.account(name * 2) for name in names]
            await fixture.reload(agent)
            await until(lambda: bool(agent.polls("dd", up=True)))
            assert poll_starts(agent, "dd")[0] - poll_starts(agent, "bb")[0] > 0.9
            await until(lambda: len(agent.polls("d", up=True)) == 2)
            for name in ("main", *names):
                first, second, *_ = poll_starts(agent, name)
                assert second - first == pytest.approx(2, abs=0.9)


async def test_removed_accounts_leave_the_page_and_returning_ones_keep_their_state(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        second, receivers = fixture.account("second"), fixture.settings["receivers"]
        fixture.settings["accounts"] = [fixture.account("main"), second]
        await fixture.reload(agent)
        await until(lambda: bool(agent.polls("second", up=True)))
        await fixture.notified({"agent.baseline": 2})
        fixture.settings["accounts"].remove(second)
        fixture.settings["receivers"] = receivers[:1]
        await fixture.reload(agent)
        assert await agent.accounts() == {"main"}
        assert 'receiver="webhook"' not in await agent.page()
        failed = fixture.world.add(name="meanwhile", status="failed")
        await until(lambda: fixture.received("slack")[failed.name] == 1)
        fixture.settings["accounts"].append(second)
        fixture.settings["receivers"] = receivers
        await fixture.reload(agent)
        await until(lambda: fixture.received("slack")[failed.name] == 2)
        assert fixture.received("slack")["agent.baseline"] == 2


async def test_changed_poll_settings_cause_no_gap_in_an_outage(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        counts = await agent.metric("cartesia_fine_tunes")
        fixture.simulation.faults = Faults(error_rate=1)
        await agent.polled(up=False)
        fixture.settings["poll"] = {"interval": "1500ms", "stale_after": "1h"}
        with capture_logs() as logs:
            await fixture.reload(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["poll main"]
        assert await agent.metric("cartesia_fine_tunes") == counts
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == counts


async def test_series_with_changed_labels_are_removed(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.simulation.faults = Faults(error_rate=1)
        fixture.settings["accounts"] = [fixture.account("main", labels={"team": "voices"})]
        await fixture.reload(agent)
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == {}
        fixture.simulation.faults = Faults()
        await agent.polled()
        assert all("voices" in labels for labels in await agent.metric("cartesia_fine_tunes"))


async def test_another_base_url_is_another_account_with_its_own_baseline(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.simulation.faults = Faults(error_rate=1)
        url = fixture.api_url.replace("127.0.0.1", "localhost")
        fixture.settings["accounts"] = [fixture.account("main", base_url=url)]
        await fixture.reload(agent)
        await agent.polled(up=False)
        assert await agent.metric("cartesia_fine_tunes") == {}
        fixture.simulation.faults = Faults()
        await fixture.notified({"agent.baseline": 2})


async def test_a_changed_match_replaces_the_deliverer_only(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        await fixture.notified({"agent.baseline": 1})
        fixture.settings["receivers"][1]["match"] = {"account": "nobody"}
        with capture_logs() as logs:
            await fixture.reload(agent)
        assert [entry["stopped"] for entry in logs if "stopped" in entry] == ["deliver webhook"]
        fixture.world.add(name="one", status="failed")
        await until(lambda: fixture.received("slack")["one"] == 1)
        assert fixture.received("webhook") == {"agent.baseline": 1}


async def test_changed_labels_change_routes_and_mentions(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        slack, webhook = fixture.settings["receivers"]
        slack["mentions"] = [{"match": {"label.team": "voices"}, "mention": "<@U1>"}]
        slack["mention"], slack["group_interval"] = "<@U2>", "0s"
        webhook["match"] = {"label.team": "voices"}
        for team, mention in (("voices", "<@U1>"), ("research", "<@U2>"), ("voices", "<@U1>")):
            fixture.settings["accounts"] = [fixture.account("main", labels={"team": team})]
            await fixture.reload(agent)
            before = fixture.received("slack").total()
            fixture.world.add(name=team, status="failed")
            await until(lambda before=before: fixture.received("slack").total() > before)  # type: ignore[misc]
            texts = [
                each.payload["text"] for each in fixture.inbox.messages if "text" in each.payload
            ]
            assert texts[-1].startswith(f"{mention} ")
        await until(lambda: fixture.received("webhook")["voices"] == 2)
        assert fixture.received("webhook")["research"] == 0


async def test_a_refused_key_is_used_again_after_a_reload(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.settings["accounts"].append(fixture.account("second", api_key="refused"))
        await fixture.reload(agent)
        await until(lambda: len(agent.polls("second", up=False)) == 1)
        await agent.polled(2)
        assert len(agent.polls("second", up=False)) == 1
        await fixture.reload(agent)
        await until(lambda: len(agent.polls("second", up=False)) == 2, 5)


async def test_a_receiver_whose_url_is_fixed_is_notified_immediately(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        receiver = fixture.receiver("third", "webhook")
        receiver["url"] = f"{fixture.inbox_url}/nowhere"
        fixture.settings["receivers"].append(receiver)
        await fixture.reload(agent)
        fixture.world.add(name="one", status="failed")
        up: Mapping[tuple[str, ...], float] = {("slack",): 1, ("webhook",): 1}
        await agent.shows("cartesia_exporter_receiver_up", up)
        receiver["url"] = f"{fixture.inbox_url}/webhook"
        await fixture.reload(agent)
        await until(lambda: fixture.received("webhook")["one"] == 2, 5)


async def test_a_changed_heartbeat_url_replaces_the_heartbeat(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        with Server(answer()) as old, Server(answer()) as new:
            fixture.settings["heartbeat_url"] = f"{old.base_url}/old"
            await fixture.reload(agent)
            await until(lambda: bool(old.requests))
            fixture.settings["heartbeat_url"] = f"{new.base_url}/new"
            await fixture.reload(agent)
            before = len(old.requests)
            await until(lambda: len(new.requests) >= 2)
            assert len(old.requests) == before
            del fixture.settings["heartbeat_url"]
            await fixture.reload(agent)
            before = len(new.requests)
            await agent.polled(2)
            assert len(new.requests) == before


async def test_reloads_during_polls_and_deliveries_lose_and_repeat_nothing(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        expected = {"agent.baseline": 1}
        fixture.settings["alerts"]["digest_threshold"] = 100
        for number in range(12):
            name = f"voice {number}"
            fixture.world.add(name=name, status="failed")
            expected[name] = 1
            fixture.settings["poll"]["timeout"] = f"{900 - number}ms"
            fixture.settings["receivers"][number % 2]["timeout"] = f"{5 + number}s"
            await asyncio.gather(fixture.reload(agent), agent.reload(), agent.reload())
        await fixture.notified(expected)


async def test_a_hanging_poll_is_cancelled_on_reload(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_GRACE_SECONDS", 0.2)
    async with running_agent(tmp_path) as (fixture, agent):
        fixture.settings["poll"] = {"interval": "30s"}
        polled_at = agent.statuses[-1].polled_at
        await fixture.reload(agent)
        # Perhaps before the answer to the reload.
        await until(lambda: agent.statuses[-1].polled_at > polled_at)
        fixture.simulation.faults = Faults(latency=30)
        fixture.settings["poll"]["timeout"] = "20s"
        await fixture.reload(agent)
        asked = len(agent.statuses)
        fixture.settings["poll"]["timeout"] = "19s"
        with capture_logs() as logs:
            await fixture.reload(agent)
        assert [entry["service"] for entry in logs if "cancelled" in entry["event"]] == [
            "poll main"
        ]
        fixture.simulation.faults = Faults()
        fixture.settings["poll"] = {"interval": "1s"}
        await fixture.reload(agent)
        await agent.polled()
        assert len(agent.statuses) > asked


def replacements(agent: RunningAgent, name: str) -> int:
    """How often an account's poller was replaced: the new one publishes the old status again."""
    times = [each.polled_at for each in agent.statuses if each.account == name]
    return len(times) - len(set(times))


async def test_a_poll_that_ends_slowly_does_not_delay_the_reload_of_other_accounts(tmp_path):
    async with running_agent(tmp_path) as (fixture, agent):
        with FakeApi() as slow:
            slow.otherwise = silence
            # At the front: sequentially, the next account would wait for it.
            fixture.settings["accounts"].insert(0, fixture.account("slow", base_url=slow.base_url))
            fixture.settings["poll"] = {"interval": "3s", "timeout": "2500ms"}
            await fixture.reload(agent)
            await until(lambda: bool(slow.requests))
            fixture.settings["poll"]["timeout"], before = "2s", replacements(agent, "main")
            reload = asyncio.create_task(fixture.reload(agent))
            await until(lambda: replacements(agent, "main") > before)
            assert not agent.polls("slow", up=False), "the slow poll has not ended yet"
            await reload
            assert await agent.accounts() == {"main", "slow"}


async def test_a_shutdown_during_a_reload_is_not_an_error(tmp_path, monkeypatch):
    reading, ending, real = threading.Event(), threading.Event(), Supervisor.stop_all

    def read_slowly(*arguments: Any) -> Config:
        reading.set()
        assert ending.wait(10)
        return load(*arguments)

    async def stop_all(supervisor: Supervisor, **last: str) -> None:
        stopping = asyncio.create_task(real(supervisor, **last))
        await asyncio.sleep(0)
        ending.set()
        await stopping

    async with agent_fixture(tmp_path) as fixture:
        with monkeypatch.context() as patch:
            patch.setattr(Supervisor, "stop_all", stop_all)
            async with fixture.run(read_slowly) as agent:
                await agent.polled()
                fixture.settings["poll"]["timeout"] = "800ms"
                fixture.settings["receivers"].pop()
                fixture.write()
                reload = asyncio.create_task(agent.reload())
                assert await asyncio.to_thread(reading.wait, 10)
        await asyncio.wait([reload])  # it may fail: the server closes its connection


async def test_a_state_that_cannot_be_loaded_on_reload_is_loaded_by_the_first_poll(
    tmp_path, monkeypatch
):
    async def fails(*_: object) -> None:
        raise StoreError("the disk is busy")

    async with running_agent(tmp_path) as (fixture, agent):
        await fixture.notified({"agent.baseline": 1})
        fixture.settings["poll"]["timeout"] = "800ms"
        fixture.world.add(name="meanwhile", status="failed")
        with monkeypatch.context() as patch:
            patch.setattr(Accounts, "load", fails)
            with capture_logs() as logs:
                await fixture.reload(agent)
        assert [entry["service"] for entry in logs if "yet" in entry["event"]] == ["poll main"]
        await fixture.notified({"agent.baseline": 1, "meanwhile": 1})
