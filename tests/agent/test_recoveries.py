"""A running agent whose failed fine-tune trains again."""

from typing import Any

from exporter.core.compose import SUCCESS, WARNING
from tests.agent_fixture import AgentFixture, agent_fixture
from tests.delivery.delivery_fixture import until

EVENTS = ["failed", "recovered"]


def sent(fixture: AgentFixture, receiver_type: str) -> list[Any]:
    return [each for each in fixture.inbox.messages if each.receiver_type == receiver_type]


async def test_those_who_were_notified_of_a_failure_are_notified_once_of_the_recovery(tmp_path):
    async with agent_fixture(tmp_path, fine_tunes=0) as fixture:
        slack = fixture.receiver("slack", "slack", events=EVENTS, group_interval="0s")
        failures_only = fixture.receiver("failures", "webhook", events=["failed"])
        fixture.settings["receivers"] = [slack, failures_only]
        fixture.write()
        voice = fixture.world.add(name="Ada", status="training")
        async with fixture.run() as agent:
            await agent.polled()
            fixture.world.set_status(voice.id, "failed")
            await until(lambda: len(fixture.inbox.messages) == 2)
            later = fixture.receiver("later", "webhook", events=EVENTS)
            fixture.settings["receivers"] = [slack, failures_only, later]
            await fixture.reload(agent)
            fixture.world.set_status(voice.id, "training")
            await until(lambda: len(sent(fixture, "slack")) == 2)
        async with fixture.run() as agent:
            await agent.polled(2)
            fixture.world.set_status(voice.id, "failed")
            await until(lambda: len(fixture.inbox.messages) == 6)
            fixture.world.set_status(voice.id, "completed")
            await until(lambda: len(fixture.inbox.messages) == 8)
        assert [each.payload["text"].partition("\n")[0] for each in sent(fixture, "slack")] == [
            f"{WARNING} Fine-tune failed: Ada",
            f"{SUCCESS} Fine-tune recovered: Ada",
        ] * 2
        types = [each.payload["type"] for each in sent(fixture, "webhook")]
        assert types == ["fine_tune.failed"] * 3 + ["fine_tune.recovered"]
        recovered = sent(fixture, "webhook")[-1].payload["data"]
        assert recovered["previous_status"] == "failed"
        assert recovered["fine_tune"]["status"] == "completed"
