"""An agent whose state is in PostgreSQL, over a connection that breaks."""

import httpx

from tests.agent_fixture import AgentFixture, agent_fixture
from tests.delivery.delivery_fixture import until
from tests.fakes.relay import Cut, relay
from tests.process.agent_process import NO_AUTHORITIES


def event_ids(fixture: AgentFixture) -> dict[str, set[str]]:
    """The ids of the events that the webhook has received, by the name of the fine-tune."""
    ids: dict[str, set[str]] = {}
    for message in fixture.inbox.messages:
        if message.receiver_type == "webhook" and "fine_tune" in message.payload["data"]:
            name = message.payload["data"]["fine_tune"]["name"]
            ids.setdefault(name, set()).add(message.headers["webhook-id"])
    return ids


async def test_every_failure_is_notified_although_commits_get_no_answer(tmp_path, postgres):
    """Connections are cut at commits of polls and deliveries, before and after they are made."""
    database = postgres.emptied_database()
    with relay(postgres.port) as between:
        async with agent_fixture(tmp_path) as fixture:
            url = postgres.url(database, port=between.port)
            fixture.settings |= {
                "storage": {"url": url},
                "alerts": {"group_wait": "0s", "digest_threshold": 1000},
            }
            fixture.write()
            async with fixture.run():
                await fixture.notified({"agent.baseline": 1})
                names = {f"voice {number}" for number in range(8)}
                for name in names:
                    fixture.world.add(name=name, status="failed")
                    for answered in (False, True):
                        between.cuts.append(Cut(b"COMMIT", b"INSERT INTO changes", answered))
                        await until(lambda: not between.cuts, 10)
                await until(lambda: event_ids(fixture).keys() == names, 30)
                assert {len(each) for each in event_ids(fixture).values()} == {1}


async def test_an_agent_outlives_a_restart_of_the_server(tmp_path, postgres):
    async with agent_fixture(tmp_path) as fixture:
        fixture.settings["storage"] = {"url": postgres.url(postgres.emptied_database())}
        fixture.write()
        async with (
            fixture.run() as agent,
            httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as http,
        ):
            await fixture.notified({"agent.baseline": 1})
            postgres.stop()
            try:
                fixture.world.add(name="meanwhile", status="failed")
                await agent.polled(up=False)
                assert (await http.get(f"{agent.url}/-/healthy")).status_code == 200
                ready = await http.get(f"{agent.url}/-/ready")
                assert ready.status_code == 503
                assert "the state cannot be stored: the database test_" in ready.text
            finally:
                postgres.start()
            await fixture.notified({"agent.baseline": 1, "meanwhile": 1})
            assert (await http.get(f"{agent.url}/")).status_code == 200
