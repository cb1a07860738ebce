"""The simulated past: what the pages of the demo show of it."""

from collections import Counter

from sqlalchemy import select

from exporter.core.model import AccountKey
from exporter.simulator.past import NEXT_FAILURE, PAST_SECONDS, write_past
from exporter.simulator.world import Population, World
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.schema import attempts, deliveries, events, outages, trainings

KEY = AccountKey("demo", "http://api.test")
END = 1_800_000_000.0


async def test_the_past_has_failures_an_outage_retrainings_and_a_dead_delivery(tmp_path):
    world = World(Population(fine_tunes=14, seed=7))
    await write_past(tmp_path / "state.db", KEY, world, END)
    async with Database(tmp_path / "state.db") as database:
        state = await Accounts(database).load(KEY)
        with database.read() as connection:
            failures = Counter(
                connection.scalars(
                    select(events.c.subject).where(events.c.type == "fine_tune.failed")
                )
            )
            times = list(connection.scalars(select(events.c.observed_at)))
            durations = list(connection.scalars(select(trainings.c.seconds)))
            outage = connection.execute(select(outages)).one()
            dead = connection.execute(
                select(deliveries.c.message).where(deliveries.c.state == "dead")
            ).one()
            tried = list(
                connection.scalars(
                    select(attempts.c.answer).where(attempts.c.message == dead.message)
                )
            )
            pending = connection.scalars(
                select(deliveries.c.event).where(deliveries.c.state == "pending")
            ).all()
    assert len(failures) > 5
    assert max(failures.values()) == 2
    assert END - PAST_SECONDS <= min(times) < max(times) <= END
    assert outage.until - outage.since > 3600
    assert "answered 503" in tried
    assert len(tried) > 3
    assert pending == []
    assert len({each for each in durations if each is not None}) > 30
    assert state is not None
    stored = {each.fine_tune.id: each.fine_tune.status for each in state.tracked.values()}
    assert stored == {each.id: each.status for each in world}
    assert [each.status for each in world if each.name == NEXT_FAILURE] == ["training"]
