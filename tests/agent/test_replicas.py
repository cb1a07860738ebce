"""Two replicas in one process: one cannot do its work for a time, and takes part again."""

import asyncio

import httpx

from exporter.agent import ownership
from exporter.agent.services import Services
from tests.agent_fixture import RunningAgent, agent_fixture
from tests.delivery.delivery_fixture import until
from tests.fakes.relay import relay
from tests.process.agent_process import NO_AUTHORITIES


async def owns(agent: RunningAgent) -> set[str]:
    owned = await agent.metric("cartesia_exporter_owner")
    return {name for kind, name, _ in owned if kind == "account"}


async def answer(agent: RunningAgent, path: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as http:
        return await http.get(f"{agent.url}{path}")


async def test_a_replica_that_loses_the_database_withdraws_and_another_takes_over(
    tmp_path, postgres
):
    database = postgres.emptied_database()
    with relay(postgres.port) as between:
        async with agent_fixture(tmp_path) as fixture:
            url = postgres.url(database, port=between.port, sslmode="disable")
            fixture.settings["storage"] = {"url": url, "lease": "5s"}
            fixture.write()
            async with fixture.run() as first:
                await first.polled()
                # A delivery that is not marked yet would be repeated.
                await fixture.notified({"agent.baseline": 1})
                await first.shows("cartesia_exporter_deliveries_pending", {})
                fixture.settings["storage"] = {"url": postgres.url(database), "lease": "5s"}
                fixture.write()
                async with fixture.run() as second:
                    assert (await owns(first), await owns(second)) == ({"main"}, set())
                    assert second.polls(up=True) == []
                    between.stop()
                    fixture.world.add(name="meanwhile", status="failed")
                    await fixture.notified({"agent.baseline": 1, "meanwhile": 1})
                    assert await owns(second) == {"main"}
                    await first.shows("cartesia_exporter_owner", {})
                    assert await first.accounts() == set()
                    assert (await answer(first, "/-/ready")).status_code == 503
                    assert (await answer(first, "/-/active")).status_code == 503
                    between.resume()
                    await becomes_ready(first)
                    assert await owns(second) == {"main"}
                await until_owned(first)
            await fixture.notified({"agent.baseline": 1, "meanwhile": 1})


async def test_a_replica_whose_services_do_not_stop_leaves_its_lease_to_another(
    tmp_path, postgres, monkeypatch
):
    hung, replaced, goes_on = list[Services](), list[Services](), asyncio.Event()
    replace = Services.replace

    async def replace_unless_hung(services, built):
        replaced.append(services)
        if services in hung:
            await goes_on.wait()
        return await replace(services, built)

    monkeypatch.setattr(Services, "replace", replace_unless_hung)
    monkeypatch.setattr(ownership, "_ACT_LEASES", 0.3)
    async with agent_fixture(tmp_path) as fixture:
        url = postgres.url(postgres.emptied_database())
        fixture.settings["storage"] = {"url": url, "lease": "5s"}
        fixture.write()
        async with fixture.run() as first:
            await first.polled()
            await until(lambda: bool(replaced))
            async with fixture.run() as second:
                hung.append(replaced[0])
                await until_owned(second)
                assert await owns(first) == set()
                assert (await answer(first, "/-/ready")).status_code == 503
                fixture.world.add(name="meanwhile", status="failed")
                await fixture.notified({"agent.baseline": 1, "meanwhile": 1})
                goes_on.set()
                await becomes_ready(first)
                assert (await owns(first), await owns(second)) == (set(), {"main"})
            await until_owned(first)
        await fixture.notified({"agent.baseline": 1, "meanwhile": 1})


async def becomes_ready(agent: RunningAgent) -> None:
    async with asyncio.timeout(20):
        while (await answer(agent, "/-/ready")).status_code != 200:  # noqa: ASYNC110 - as a probe
            await asyncio.sleep(0.1)


async def until_owned(agent: RunningAgent) -> None:
    async with asyncio.timeout(20):
        while await owns(agent) != {"main"}:  # noqa: ASYNC110 - as a scraper would
            await asyncio.sleep(0.1)
