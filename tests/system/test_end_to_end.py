"""The whole agent on real sockets, between a simulated API and simulated receivers."""

from collections import Counter

from structlog.testing import capture_logs

from exporter.simulator.api import Faults
from tests.agent_fixture import agent_fixture
from tests.delivery.delivery_fixture import until

ODD_MODELS = ('quoted "model" \\ with\nlines', "modèle 模型 \U0001f3a4", "{a=1,b=2}", " ")


async def test_1237_fine_tunes_on_13_pages_are_counted_exactly(tmp_path):
    # One poll is enough; on a busy machine it takes longer than 1 s.
    async with agent_fixture(tmp_path, 1231) as fixture:
        fixture.settings["poll"]["interval"] = "20s"
        fixture.write()
        for model in ODD_MODELS:
            fixture.world.add(model_id=model, status="training")
        fixture.world.add(model_id="sonic-2", status="paused by the moon")
        fixture.world.add(model_id="sonic-2", status="")
        documented = ("created", "training", "completed", "failed")
        expected = Counter(
            ("main", each.model_id, each.status if each.status in documented else "unknown")
            for each in fixture.world
        )
        assert expected.total() == 1237
        async with fixture.run() as agent:
            await agent.polled()
            assert await agent.metric("cartesia_fine_tunes") == expected
            assert await agent.metric("cartesia_poll_pages") == {("main",): 13}
            assert await agent.metric("cartesia_up") == {("main",): 1}


async def test_the_first_run_notifies_each_receiver_of_the_baseline_only(tmp_path):
    async with agent_fixture(tmp_path, 200) as fixture:
        assert any(each.status == "failed" for each in fixture.world)
        async with fixture.run() as agent:
            await agent.polled(3)
            await fixture.notified({"agent.baseline": 1})


async def test_a_failure_is_notified_once_to_each_receiver_over_restarts(tmp_path):
    async with agent_fixture(tmp_path) as fixture:
        first = fixture.world.add(name="first", status="training")
        second = fixture.world.add(name="second", status="training")
        async with fixture.run() as agent:
            await agent.polled()
            fixture.world.set_status(first.id, "failed")
            await fixture.notified({"agent.baseline": 1, "first": 1})
            await agent.polled(2)
        fixture.world.set_status(second.id, "failed")  # while the agent is down
        for _ in range(2):
            async with fixture.run() as agent:
                await agent.polled(2)
                await fixture.notified({"agent.baseline": 1, "first": 1, "second": 1})
                moved = await agent.metric("cartesia_fine_tune_transitions_total")
                assert sum(moved.values()) == 2


async def test_an_outage_keeps_the_counts_and_a_failure_in_it_is_notified_once(tmp_path):
    async with agent_fixture(tmp_path) as fixture:
        hidden = fixture.world.add(name="hidden", status="training")
        async with fixture.run() as agent:
            await agent.polled()
            counts = await agent.metric("cartesia_fine_tunes")
            fixture.simulation.faults = Faults(error_rate=1)
            fixture.world.set_status(hidden.id, "failed")
            await until(lambda: any(each.failure == "server_error" for each in agent.statuses))
            assert await agent.metric("cartesia_fine_tunes") == counts
            assert await agent.metric("cartesia_up") == {}
            failures = await agent.metric("cartesia_exporter_poll_failures_total")
            assert ("main", "server_error") in failures
            assert fixture.received("webhook") == {"agent.baseline": 1}
            fixture.simulation.faults = Faults()
            await agent.polled()
            assert await agent.metric("cartesia_up") == {("main",): 1}
            await fixture.notified({"agent.baseline": 1, "hidden": 1})
            assert await agent.metric("cartesia_fine_tunes") != counts


async def test_an_account_whose_key_is_refused_does_not_affect_others(tmp_path):
    async with agent_fixture(tmp_path) as fixture:
        fixture.settings["accounts"].append(fixture.account("other", api_key="refused"))
        fixture.write()
        async with fixture.run() as agent:
            await agent.polled(3)
            assert len(agent.polls("other", up=False)) == 1  # the other polls are skipped
            assert agent.polls("other", up=True) == []
            assert await agent.metric("cartesia_up") == {("main",): 1}
            failures = await agent.metric("cartesia_exporter_poll_failures_total")
            assert failures == {("other", "unauthorized"): 1}
            counted = await agent.metric("cartesia_fine_tunes")
            assert {labels[0] for labels in counted} == {"main"}
            await fixture.notified({"agent.baseline": 1})


async def test_no_secret_is_on_the_page_in_the_log_or_in_the_state(tmp_path):
    with capture_logs() as logs:
        async with agent_fixture(tmp_path) as fixture, fixture.run() as agent:
            await fixture.notified({"agent.baseline": 1})
            fixture.simulation.faults = Faults(error_rate=1)
            await agent.polled(up=False)
            page = await agent.page()
    state = (tmp_path / "state.db").read_bytes().decode(errors="replace")
    for text in (page, repr(logs), state):
        assert "sk_car" not in text
        assert "/slack" not in text
        assert "/webhook" not in text
