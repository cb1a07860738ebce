"""A running agent whose key file changes, and whose API sends new statuses."""

from typing import Any

from exporter.simulator.world import Population, World
from tests.agent_fixture import KEY, AgentFixture, agent_fixture
from tests.delivery.delivery_fixture import until

REMOVED = "cartesia_fine_tunes_removed_total"


def all_events(fixture: AgentFixture) -> None:
    """Notify one webhook of every event."""
    events = ["failed", "completed", "removed", "stuck", "created", "agent"]
    fixture.settings["receivers"] = [fixture.receiver("ops", "webhook", events=events)]


def payloads(fixture: AgentFixture, event_type: str) -> list[dict[str, Any]]:
    found = [message.payload for message in fixture.inbox.messages]
    return [each for each in found if each["type"] == event_type]


async def test_the_key_of_another_organisation_leads_to_a_new_baseline(tmp_path):
    key, another = tmp_path / "key", "sk_car_another.the_key"
    async with agent_fixture(tmp_path, fine_tunes=0) as fixture:
        all_events(fixture)
        key.write_text(KEY)
        account = fixture.account("main", api_key_file=str(key))
        del account["api_key"]
        fixture.settings["accounts"] = [account]
        fixture.write()
        fixture.world.add(name="ours", status="failed")
        async with fixture.run() as agent:
            await until(lambda: len(payloads(fixture, "agent.baseline")) == 1)
            other = World(Population(fine_tunes=0, seed=1))
            for number in range(11):
                other.add(name=f"old {number}", status="failed")
            watched = other.add(name="theirs", status="training")
            # Both change between two polls, as when an operator replaces the file.
            key.write_text(another)
            fixture.simulation.world = other
            await until(lambda: len(payloads(fixture, "agent.baseline")) == 2)
            await agent.polled(3)
            other.set_status(watched.id, "failed")
            await until(lambda: bool(payloads(fixture, "fine_tune.failed")))
            assert await agent.metric(REMOVED) == {}
        summary = payloads(fixture, "agent.baseline")[1]["data"]
        assert (summary["total"], summary["failed"], summary["retired"]) == (12, 11, 1)
        assert [each["name"] for each in summary["failed_ones"]] == [
            f"old {number}" for number in reversed(range(11))
        ]
        types = [message.payload["type"] for message in fixture.inbox.messages]
        assert types == ["agent.baseline", "agent.baseline", "fine_tune.failed"]
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("state.db*"))
        assert KEY.encode() not in stored
        assert another.encode() not in stored


async def test_a_new_status_is_reported_and_can_be_configured_as_a_failure(tmp_path):
    async with agent_fixture(tmp_path, fine_tunes=0) as fixture:
        all_events(fixture)
        fixture.write()
        first = fixture.world.add(name="first", status="training")
        async with fixture.run() as agent:
            await agent.polled(2)
            fixture.world.set_status(first.id, "Error")
            await until(lambda: bool(payloads(fixture, "agent.unknown_status")))
            assert not payloads(fixture, "fine_tune.failed")
            fixture.settings["alerts"]["failed_statuses"] = ["failed", "error"]
            await fixture.reload(agent)
            await until(lambda: len(payloads(fixture, "fine_tune.failed")) == 1)
            fixture.world.add(name="second", status="ERROR ")
            await until(lambda: len(payloads(fixture, "fine_tune.failed")) == 2)
            await agent.polled(2)
            counts = await agent.metric("cartesia_fine_tunes")
            assert {labels[-1]: number for labels, number in counts.items()} == {"failed": 1.0}
        (report,) = payloads(fixture, "agent.unknown_status")
        assert (report["data"]["status"], report["data"]["total"]) == ("error", 1)
        assert 'failed_statuses: [failed, "error"]' in report["data"]["text"]
        failures = payloads(fixture, "fine_tune.failed")
        assert [each["data"]["fine_tune"]["status"] for each in failures] == ["Error", "ERROR "]
