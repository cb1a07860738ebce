"""The whole agent on real sockets: a simulated API before it, receivers behind it, its own page."""

import asyncio
from collections import Counter

from structlog.testing import capture_logs

from exporter.simulator.api import Faults
from tests.agent_fixture import place
from tests.delivery.delivery_fixture import until

ODD_MODELS = ('quoted "model" \\ with\nlines', "modèle 模型 \U0001f3a4", "{a=1,b=2}", " ")


def test_1237_fine_tunes_on_13_pages_are_counted_exactly(tmp_path):
    async def run() -> None:
        # One poll is enough, and on a busy machine it takes longer than the time that 1s leaves it.
        async with place(tmp_path, 1231) as here:
            here.settings["poll"]["interval"] = "20s"
            here.write()
            for model in ODD_MODELS:
                here.world.add(model_id=model, status="training")
            here.world.add(model_id="sonic-2", status="paused by the moon")
            here.world.add(model_id="sonic-2", status="")
            known = ("created", "training", "completed", "failed")
            expected = Counter(
                ("main", each.model_id, each.status if each.status in known else "unknown")
                for each in here.world
            )
            assert expected.total() == 1237
            async with here.agent() as agent:
                await agent.polled()
                assert await agent.metric("cartesia_fine_tunes") == expected
                assert await agent.metric("cartesia_poll_pages") == {("main",): 13}
                assert await agent.metric("cartesia_up") == {("main",): 1}

    asyncio.run(run())


def test_the_first_run_tells_each_receiver_one_summary_and_no_old_failure(tmp_path):
    async def run() -> None:
        async with place(tmp_path, 200) as here:
            assert any(each.status == "failed" for each in here.world)
            async with here.agent() as agent:
                await agent.polled(3)
                await here.told({"agent.baseline": 1})

    asyncio.run(run())


def test_a_failure_is_told_once_to_each_receiver_and_no_restart_repeats_it(tmp_path):
    async def run() -> None:
        async with place(tmp_path) as here:
            first = here.world.add(name="first", status="training")
            second = here.world.add(name="second", status="training")
            async with here.agent() as agent:
                await agent.polled()
                here.world.set_status(first.id, "failed")
                await here.told({"agent.baseline": 1, "first": 1})
                await agent.polled(2)
            here.world.set_status(second.id, "failed")  # while the agent is down
            for _ in range(2):
                async with here.agent() as agent:
                    await agent.polled(2)
                    await here.told({"agent.baseline": 1, "first": 1, "second": 1})
                    moved = await agent.metric("cartesia_fine_tune_transitions_total")
                    assert sum(moved.values()) == 2

    asyncio.run(run())


def test_an_outage_keeps_the_counts_says_so_and_what_it_hid_is_told_once(tmp_path):
    async def run() -> None:
        async with place(tmp_path) as here:
            hidden = here.world.add(name="hidden", status="training")
            async with here.agent() as agent:
                await agent.polled()
                counts = await agent.metric("cartesia_fine_tunes")
                here.simulation.faults = Faults(error_rate=1)
                here.world.set_status(hidden.id, "failed")
                await until(lambda: any(v.failure == "server_error" for v in agent.views))
                assert await agent.metric("cartesia_fine_tunes") == counts
                assert await agent.metric("cartesia_up") == {}
                failures = await agent.metric("cartesia_exporter_poll_failures_total")
                assert ("main", "server_error") in failures
                assert here.arrived("webhook") == {"agent.baseline": 1}
                here.simulation.faults = Faults()
                await agent.polled()
                assert await agent.metric("cartesia_up") == {("main",): 1}
                await here.told({"agent.baseline": 1, "hidden": 1})
                assert await agent.metric("cartesia_fine_tunes") != counts

    asyncio.run(run())


def test_an_account_whose_key_is_refused_does_not_disturb_another(tmp_path):
    async def run() -> None:
        async with place(tmp_path) as here:
            here.settings["accounts"].append(here.account("other", api_key="refused"))
            here.write()
            async with here.agent() as agent:
                await agent.polled(3)
                assert len(agent.polls("other", up=False)) == 1  # the others are skipped turns
                assert agent.polls("other", up=True) == []
                assert await agent.metric("cartesia_up") == {("main",): 1}
                failures = await agent.metric("cartesia_exporter_poll_failures_total")
                assert failures == {("other", "unauthorized"): 1}
                counted = await agent.metric("cartesia_fine_tunes")
                assert {labels[0] for labels in counted} == {"main"}
                await here.told({"agent.baseline": 1})

    asyncio.run(run())


def test_no_secret_is_on_the_page_in_the_log_or_in_the_state(tmp_path):
    async def run() -> list[str]:
        async with place(tmp_path) as here:
            with capture_logs() as logs:
                async with here.agent() as agent:
                    await here.told({"agent.baseline": 1})
                    here.simulation.faults = Faults(error_rate=1)
                    await agent.polled(up=False)
                    page = await agent.page()
            state = (tmp_path / "state.db").read_bytes().decode(errors="replace")
            return [page, repr(logs), state]

    for text in asyncio.run(run()):
        assert "sk_car" not in text
        assert "/slack" not in text
        assert "/webhook" not in text
